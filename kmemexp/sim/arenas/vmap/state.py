"""What a sweep may change of `vmap`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Table, Words

LAZY_PAGES = 8192  # 32 MiB for each bit of the number of CPUs


class Params(NamedTuple):
    """What a sweep may change; the defaults are the real rules."""

    guard: int = 1  # 0: no guard pages
    nodes: int = 0  # 0: as many as CPUs, 1 … 128; 1: no pools
    lazy_max_pages: int = 0  # 0: 32 MiB for each bit of the number of CPUs; -1: drain at each free


class State(NamedTuple):
    """Maps, their areas and free ranges."""

    p: Params
    area: Table  # int32[rows, AREA_COLUMNS], a row for each page of each map
    node: Table  # int64[nodes, NODE_COLUMNS], free ranges; 0 is none
    maps: Table  # int64[maps, MAP_COLUMNS]
    pools: Table  # int64[maps * nodes * POOL_SIZES, 3]
    pooled: Words  # int64[maps * nodes], areas in a node's pools
    chains: Table  # int64[nodes, 4], a drain's: lazily freed areas of a node, then decayed ones
    supply: Words  # int64[SUPPLY_COLUMNS]


def lazy_max_pages(cpus: int) -> int:
    """Pages that may be lazily freed before a drain (lazy_max_pages)."""
    return cpus.bit_length() * LAZY_PAGES
