"""Parameters and state of `foreseen`."""

from typing import NamedTuple

from kmemexp.sim.aliases import Table, Words

GREEDY, LONGEST_FIRST = range(2)

# Columns of State.heard (what is written down) and State.known (what a rehearsal has written down).
BYTES = 0
ALIGN = 1
MAP = 2
BORN = 3  # map calls before it
DIES = 4  # map calls before the last free of a part of it; 0: none was seen
ADDR = 5  # heard: where it lay; known: where it is to lie, of `LONGEST_FIRST`. Negative: nowhere
HEARD_COLUMNS = 6

# State.clock.
NOW = 0  # requests and frees of all maps so far
REQUESTS = 1
KNOWN = 2  # requests that a rehearsal has heard; 0: this is the rehearsal
END = 3  # map calls that it has heard
DIFFERS = 4  # first request that is not the rehearsal's, + 1; 0: none
CLOCK_COLUMNS = 5


class Params(NamedTuple):
    """What a sweep may change."""

    plan: int = GREEDY  # 0: where it adds least to superpages in use, 1: the longest-lived choose first
    requests: int = 1 << 22  # that can be written down
    superpage_bytes: int = 0  # 0: the machine's


class State(NamedTuple):
    """Maps, their holes (`hole_list.State`), what is heard and what is known."""

    p: Params
    hole: Table
    maps: Table
    supply: Words
    heard: Table  # int64[requests, HEARD_COLUMNS]
    known: Table  # the same
    owner: Words  # int64[pages], request that has taken the page last, + 1
    home: Words  # int64[maps], request that has taken the map's range, + 1; 0: kernel_map, or no map
    busy: Words  # int64[superpages], map calls before the end of whatever lies in it
    clock: Words  # int64[CLOCK_COLUMNS]
    shift: int  # log2 of a superpage
