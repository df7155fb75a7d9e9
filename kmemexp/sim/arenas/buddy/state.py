"""What a sweep may change of `buddy`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Table, Words


class Params(NamedTuple):
    """What a sweep may change; the defaults are those of x86-64."""

    max_order: int = 10  # MAX_PAGE_ORDER
    pageblock_order: int = 9  # a huge page; at most max_order
    pcp: int = 1  # 0: no per-CPU lists
    migrate: int = 1  # 0: no grouping by mobility
    plain: int = 0  # 1: a textbook buddy
    cpus: int = 0  # 0: the machine's
    min_free_kib: int = 0  # vm.min_free_kbytes; 0: by its rule
    late_flush: int = 0  # 1: blocks of several pages stay on a CPU's list until more have been freed (since Linux 6.16)


class State(NamedTuple):
    """Maps and their pages."""

    p: Params
    tag: Words  # int8[rows], tags of `zone`
    held: Words  # int32[rows], at the first page of a range in use
    link: Table  # int32[pageblocks + rows, 2], pages before and after on a list, by `zone.link_row`
    blocks: Words  # int8[pageblocks], migrate types
    lists: Table  # int64[lists, LIST_COLUMNS]: zones' lists, then CPUs'
    tree: Words  # int32[nodes], plain
    maps: Table  # int64[maps, MAP_COLUMNS]
    pcp: Table  # int64[maps * cpus, PCP_COLUMNS]
    next: Words  # int64[3], first row, pageblock and tree node that no map has yet
