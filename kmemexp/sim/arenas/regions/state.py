"""What a sweep may change of `regions`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Table, Words

# Params.segregate.
TOGETHER, NEVER_FREED, BY_USE, BY_LIFETIME = range(4)


LOWEST, FULLEST = range(2)


class Params(NamedTuple):
    """What a sweep may change."""

    region_bytes: int = 4 << 20  # a power of two; superpage of the i386 without PAE
    segregate: int = TOGETHER
    choice: int = LOWEST  # of the regions with room: 0 lowest address, 1 fullest
    two_ended: int = 0  # 1: short-lived classes claim regions from the top
    lifetime_bytes: int = 0  # bytes entered into the map that a long-lived range sees come; 0: an eighth of the map
    patience: int = 64  # ranges after which a requester that has freed none counts as long-lived: ASSUMPTION


class State(NamedTuple):
    """Maps, their regions and holes, and what is known of requesters."""

    p: Params
    shift: int  # log2 of a region's pages
    maps: Table  # int64[maps, MAP_COLUMNS]
    region: Table  # int64[rows, REGION_COLUMNS], those of a map in a row
    hole: Table  # int64[pages, HOLE_COLUMNS]
    stamp: Words  # int64[pages]: birth * WHO_COUNT + requester; minus the number of the map where it is free
    who: Table  # int64[maps * WHO_COUNT, WHO_COLUMNS]
