"""What soft submaps are made of: columns, parameters, state."""

from typing import NamedTuple

from kmemexp.sim.aliases import Table, Words

MOST_PAGES = 32  # of a slot: a bit for each
WHOLE = 100  # per cent

# Columns of State.quota, by map.
GUARANTEE = 0  # slots
LIMIT = 1  # slots
SLOTS = 2  # that it has
RUN_PAGES = 3  # in requests larger than a slot
USED_PAGES = 4  # in slots
LISTS = 5  # bit r: there is a slot whose longest free run has r pages
CARVED = 6  # bytes that were carved out at boot
QUOTA_COLUMNS = 7

# Columns of State.slot.
FREE_PAGES = 0  # a bit for each
OWNER = 1  # map; KERNEL: nobody
NEXT = 2  # slot + 1; 0: none
PREV = 3
RUN = 4  # pages of the longest free run
SLOT_COLUMNS = 5

# State.total.
FREE_SLOTS = 0
PROMISED = 1  # slots guaranteed and not taken
ZONES = 2  # of these, slots that are guaranteed to zones and never taken here


class Params(NamedTuple):
    """What a sweep may change."""

    slot_bytes: int = 128 << 10  # MAXPHYS; a power of two, up to 32 pages
    limit_percent: int = 112  # of its guarantee that a consumer may have, 100 or more: an ASSUMPTION, an eighth more
    lend_percent: int = 0  # share of idle guarantees that is lent for good
    looks: int = 16  # ASSUMPTION: holes tried before one with room for any offset is taken, or a request refused
    near: int = 0  # 1: a slot is taken at that end of its hole where it breaks no superpage, if there is one
    zones_percent: int = 100  # of what ZONES set aside that is KVA of their own; the rest is a guarantee
    superpage_bytes: int = 0  # 0: the machine's; where none says what that is, the i386's 4 MiB


class State(NamedTuple):
    """Maps, their holes and the index of `hole_index.fields`; consumers and their slots."""

    p: Params
    hole: Table
    root: Table
    first: Table
    bits: Table
    maps: Table
    tag: Words
    supply: Words
    quota: Table  # int64[maps, QUOTA_COLUMNS]
    slot: Table  # int64[slots, SLOT_COLUMNS]
    head: Table  # int64[maps, MOST_PAGES + 1]: first slot + 1 by its longest free run
    total: Words  # int64[3]
    slot_shift: int
