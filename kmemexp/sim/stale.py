"""Stale references: what lies at the place of a freed object that is still read.

A *watch* begins just before an object is freed to which a reference remains, and ends with the last read. Meanwhile
whatever takes the first byte of the object is noted: an object (of the same kind, beginning at the same address, or
another one), a map that takes the page back, or gives it out again. A read then finds one of five things:

- the object itself: its memory has not been used since;
- another object of the same kind, and the reader finds that out from a generation count;
- the same, and it does not: it takes the wrong object for its own;
- something else: an object of another kind, a part of one, or a page that a map has handed out again;
- no page: it faults.

What an allocator writes into free memory of its own (links, headers) is not noted, and a reference to an object that an
allocator moves is not followed. All is in one array `watch` (empty: nothing is watched): counts first, then for each
page of the KVA the first watch on it, then the watches. A watch is named by the place where it begins, 0 is none.
"""

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, Registers, Words
from kmemexp.sim.ops import CHECKS, LAST
from kmemexp.sim.slots import MAP_ALLOC, MAP_FREE, PAGE_SHIFT
from kmemexp.sim.tables import regs

# Counts, and what is told when the table is made.
REFERENCES = 0  # references that did not outlive their object
SAME_OBJECT = 1  # reads after the free, by what they found
SAME_TYPE = 2
WRONG_OBJECT = 3
OTHER_TYPE = 4
UNMAPPED = 5
KIND = 6  # the kind that is watched
PAGES = 7  # pages of the KVA
DIRECT = 8  # map whose pages stay mapped when they are free; -1: none
HEADER = 9

# A watch.
ADDR = 0  # of the object; GONE: there was none
HOLDS = 1  # what is there now
NEXT = 2  # next watch on the same page
BACK = 3  # place of the number that leads to this one
COLUMNS = 4
GONE = -1

# What is there: nothing new, an object of the kind, something else, no page.
INTACT, SAME, OTHER, NOTHING = range(4)


NONE = np.zeros(0, np.int64)


def table(*, kind: int, watches: int, references: int, kva_bytes: int, direct_map: int) -> Array:
    """Make the table for so many watches of one kind's objects; `references`: those that need none."""
    pages = kva_bytes >> PAGE_SHIFT
    watch = demand.zeros(HEADER + pages + watches * COLUMNS)
    watch[REFERENCES], watch[KIND], watch[PAGES], watch[DIRECT] = references, kind, pages, direct_map
    return watch


def census(watch: Array) -> dict[str, float]:
    """Count references and stale reads, under the names of the metrics."""
    same, benign, wrong, other, unmapped = (int(n) for n in watch[SAME_OBJECT : UNMAPPED + 1])
    stale = same + benign + wrong + other + unmapped
    total = int(watch[REFERENCES]) + stale
    return {
        "references_count": total,
        "stale_reads_count": stale,
        "stale_same_object_count": same,
        "stale_same_type_count": benign + wrong,
        "stale_wrong_object_count": wrong,
        "stale_other_type_count": other,
        "stale_unmapped_count": unmapped,
        "violations_per_million": (wrong + other + unmapped) / total * 1e6 if total else 0.0,
    }


@kernel
def begin_watch(watch: Words, number: int, addr: Address) -> None:
    """Begin watch `number` on the object at an address; below 0: its allocation had failed."""
    x = HEADER + watch[PAGES] + number * COLUMNS
    if addr < 0:
        watch[x + ADDR] = GONE
        return
    place = HEADER + (addr >> PAGE_SHIFT)
    following = watch[place]
    watch[x + ADDR] = addr
    watch[x + HOLDS] = INTACT
    watch[x + NEXT] = following
    watch[x + BACK] = place
    if following:
        watch[following + BACK] = x + NEXT
    watch[place] = x


@kernel
def read_freed(watch: Words, number: int, how: int) -> None:
    """Read through a reference to the object of a watch; `how`: CHECKS, LAST."""
    x = HEADER + watch[PAGES] + number * COLUMNS
    if watch[x + ADDR] == GONE:
        return
    holds = watch[x + HOLDS]
    if holds == INTACT:
        watch[SAME_OBJECT] += 1
    elif holds == OTHER:
        watch[OTHER_TYPE] += 1
    elif holds == NOTHING:
        watch[UNMAPPED] += 1
    elif how & CHECKS:
        watch[SAME_TYPE] += 1
    else:
        watch[WRONG_OBJECT] += 1
    if how & LAST:
        following = watch[x + NEXT]
        watch[watch[x + BACK]] = following
        if following:
            watch[following + BACK] = watch[x + BACK]
        watch[x + ADDR] = GONE


@kernel
def note_object(watch: Words, addr: Address, nbytes: Bytes, kind: int) -> None:
    """Note that an object of `kind` is in [addr, addr + nbytes) now."""
    for page in range(addr >> PAGE_SHIFT, ((addr + nbytes - 1) >> PAGE_SHIFT) + 1):
        x = watch[HEADER + page]
        while x:
            at = watch[x + ADDR]
            if addr <= at < addr + nbytes:
                watch[x + HOLDS] = SAME if at == addr and kind == watch[KIND] else OTHER
            x = watch[x + NEXT]


@kernel
def note_map_step(reg: Registers, i: int, watch: Words, answer: int) -> None:
    """Note a map step that has been carried out: a map took pages back, or gave them out."""
    if answer == MAP_FREE:
        if reg[i, regs.MAP] == watch[DIRECT]:
            return
        holds = NOTHING
    elif answer == MAP_ALLOC:
        holds = OTHER
    else:
        return
    first = reg[i, regs.BASE] >> PAGE_SHIFT
    for page in range(first, first + (reg[i, regs.BYTES] >> PAGE_SHIFT)):
        x = watch[HEADER + page]
        while x:
            watch[x + HOLDS] = holds
            x = watch[x + NEXT]
