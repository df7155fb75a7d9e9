"""Two-ended fit: requests of two sorts from the two ends of a map. A study: no kernel modelled here has it.

Neither sort cuts up the other's room. What comes from the top, by `apart`:

0  nothing: first fit, or best fit, on a list of holes
1  whatever asks for no more than the alignment of a page. Aligned blocks of one size (the zones of DragonFly's slab
   allocator, 2003) leave no holes among themselves that another one cannot fill. Among ranges of odd sizes they do:
   what is left before the next multiple of their alignment.
2  what is mapped for its own sake (ATTR_PAGEABLE: pipes, device memory); wired memory comes from the bottom. Compare
   FreeBSD's transient_map of 2013, a submap of fixed size for mappings that do not last.

Submaps, and what boot sets aside, come from the bottom. At the bottom a request takes the low end of the lowest hole
where it fits, at the top the high end of the highest; with `fit` 1 the smallest hole where it fits, of equal ones the
first from its end. Two ends for two sizes or lifetimes are an old idea for heaps: Knuth, The Art of Computer
Programming 1, 2.5. The list of holes is `_shared.hole_list`, as in `arenas/sequential`; any range that is allocated may
be freed.

Left out: the table of holes takes no memory; sleeping for a hole.
"""

from typing import NamedTuple

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Bytes, MapNo, Registers
from kmemexp.sim.arenas._shared import hole_list
from kmemexp.sim.arenas._shared.hole_list import (
    State,
    add_map,
    census,
    check,
    cut,
    holes,
    map_free,
    map_free_bytes,
    map_measure,
    map_paint,
    map_walked,
    one_hole,
    used,
)
from kmemexp.sim.map_calls import KMEM_ALLOC, KMEM_FREE
from kmemexp.sim.slots import ATTR_NOFREE, ATTR_PAGEABLE, ATTR_SINGLE, ATTR_SORT, NO_SPACE, PAGE

__all__ = ["State", "add_map", "census", "check", "holes", "map_free", "map_free_bytes", "map_measure", "map_paint",
           "map_walked", "used"]  # fmt: skip

TOGETHER, BY_ALIGNMENT, BY_USE = range(3)
FIRST_FIT, BEST_FIT = range(2)


CALLS = (KMEM_ALLOC, KMEM_FREE)


class Params(NamedTuple):
    """What a sweep may change."""

    apart: int = BY_USE
    fit: int = FIRST_FIT


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), one hole; the others empty until `add_map`. ValueError: unknown parameter."""
    if params.apart not in range(3):
        raise ValueError(f"apart is {params.apart}; it must be 0 (nothing), 1 (by alignment) or 2 (by use)")
    if params.fit not in range(2):
        raise ValueError(f"fit is {params.fit}; it must be 0 (first) or 1 (best fit)")
    return one_hole(params, kva_bytes, maps)


@kernel
def map_attr(reg: Registers, i: int, attr: int, server: int) -> int:
    """The attribute, and whether the memory will ever be given back."""
    return attr & (ATTR_SORT | ATTR_NOFREE)


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Take `nbytes` of map `map_no` at a multiple of `align` (bytes). Returns the address or NO_SPACE."""
    align = max(align, 1)
    top = from_top(st, align, attr)
    onward = hole_list.PREV if top else hole_list.NEXT
    found, size, addr = map_no, 0, NO_SPACE
    h = st.hole[map_no, onward]
    passed = 0
    while h != map_no:
        have = st.hole[h, hole_list.END] - st.hole[h, hole_list.START]
        at = placed(st, h, nbytes, align, top)
        if at >= 0 and (found == map_no or have < size):
            found, size, addr = h, have, at
            if st.p.fit == FIRST_FIT or have == nbytes:
                break
        passed += 1
        h = st.hole[h, onward]
    st.maps[map_no, hole_list.WALKED] += passed
    if found != map_no:
        cut(st, map_no, found, addr, nbytes)
    return addr


@kernel
def from_top(st: State, align: int, attr: int) -> bool:
    """Whether a request is of the sort that comes from the top."""
    sort = attr & ATTR_SORT
    if sort == ATTR_SINGLE or (attr & ATTR_NOFREE and sort == ATTR_PAGEABLE):
        return False  # a submap, or KVA set aside at boot
    if st.p.apart == BY_ALIGNMENT:
        return align <= PAGE
    return st.p.apart == BY_USE and sort == ATTR_PAGEABLE


@kernel
def placed(st: State, h: int, nbytes: Bytes, align: int, top: int) -> int:
    """Address of a request in hole `h`, at its high end or its low one; negative: it does not fit."""
    start, end = st.hole[h, hole_list.START], st.hole[h, hole_list.END]
    if top:
        addr = (end - nbytes) // align * align
        return addr if addr >= start else -1
    addr = (start + align - 1) // align * align
    return addr if addr + nbytes <= end else -1
