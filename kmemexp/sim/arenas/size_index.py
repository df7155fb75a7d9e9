"""Best fit on an index by size, so that neither taking nor giving back grows with the number of holes. A study.

A request takes the low end of the smallest hole where it fits, of equal ones the lowest, as OpenBSD's uaddr_bestfit
does (sys/uvm/uvm_addr.c; there one tree by free space, then address, and one by address). The index is
`_shared.hole_index`.

A request with an alignment tries the holes from the smallest large enough upwards. After `looks` of them it takes the
smallest hole that has room for any offset, if there is one, and goes on looking otherwise.

What a search passes (`map_walked`) are nodes of treaps beyond the first; the bitmap is not counted. Any range that is
allocated may be freed.

Left out: memory for the index and the tags; sleeping for a hole.
"""

from typing import NamedTuple

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Address, Bytes, MapNo, Table, Words
from kmemexp.sim.arenas._shared import hole_index
from kmemexp.sim.arenas._shared.hole_index import add_map, check, holes, map_measure, map_paint
from kmemexp.sim.arenas._shared.hole_list import census, map_free_bytes, map_walked, used
from kmemexp.sim.arenas._shared.powers import round_up
from kmemexp.sim.map_calls import KMEM_ALLOC, KMEM_FREE
from kmemexp.sim.slots import NO_SPACE

__all__ = ["add_map", "census", "check", "holes", "map_free_bytes", "map_measure", "map_paint", "map_walked", "used"]

CALLS = (KMEM_ALLOC, KMEM_FREE)


class Params(NamedTuple):
    """What a sweep may change."""

    looks: int = 16  # ASSUMPTION: holes tried for an alignment before one with room for any offset is taken


class State(NamedTuple):
    """Maps, their holes, and the index: `hole_index.fields`."""

    p: Params
    hole: Table
    root: Table
    first: Table
    bits: Table
    maps: Table
    tag: Words
    supply: Words


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), one hole; the others empty until `add_map`. ValueError: no looks."""
    if params.looks < 1:
        raise ValueError(f"looks is {params.looks}; it must be 1 or more")
    st = State(params, **hole_index.fields(kva_bytes, maps))
    add_map(st, 0, 0, kva_bytes)
    return st


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Take `nbytes` of map `map_no` at a multiple of `align` (bytes). Returns the address or NO_SPACE."""
    align = max(align, 1)
    h = hole_index.best(st, map_no, nbytes, align)
    if h == hole_index.NONE:
        return NO_SPACE
    addr = round_up(st.hole[h, hole_index.START], align)
    hole_index.cut(st, map_no, h, addr, nbytes)
    return addr


@kernel
def map_free(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """Give [addr, addr + nbytes) back to map `map_no`: any range that is allocated. Returns 0."""
    hole_index.give(st, map_no, addr, nbytes)
    return 0
