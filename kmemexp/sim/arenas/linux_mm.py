"""Linux's two kinds of kernel memory: the direct map of all pages is a buddy, all other maps are vmalloc space.

Map `DIRECT`, once it has been added, is a zone of `sim.arenas.buddy`; the others are those of `sim.arenas.vmap`.
The direct map and all submaps are carved out of map 0 at boot (ATTR_SINGLE), without guard pages.

Left out: what those two leave out, and user memory, which would fragment the direct map from below.
"""

from typing import NamedTuple

from kmemexp.jit import kernel, outlined
from kmemexp.sim.arenas import buddy, vmap
from kmemexp.sim.maps import DIRECT

ZONE = 0  # the buddy has this one map


class Params(NamedTuple):
    """What a sweep may change: the fields of both."""

    max_order: int = 10
    pageblock_order: int = 9
    pcp: int = 1
    migrate: int = 1
    plain: int = 0
    cpus: int = 0
    guard: int = 1
    nodes: int = 0
    lazy_max_pages: int = 0


class State(NamedTuple):
    """The states of both."""

    p: Params
    vmap: vmap.State
    buddy: buddy.State


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), the others empty until `add_map`. Raises ValueError as the two do."""
    fields = params._asdict()
    return State(
        params,
        vmap.init(_part(vmap.Params, fields), kva_bytes=kva_bytes, cpus=cpus, maps=maps),
        buddy.empty(_part(buddy.Params, fields), kva_bytes=kva_bytes, cpus=cpus, maps=1),
    )


def add_map(st: State, m: int, base: int, nbytes: int) -> None:
    """Give map `m`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    if m == DIRECT:
        buddy.add_map(st.buddy, ZONE, base, nbytes)
    else:
        vmap.add_map(st.vmap, m, base, nbytes)


@kernel
def map_alloc(st, m, nbytes, align, attr, cpu):
    """Allocate `nbytes` of map `m` at a multiple of `align` (bytes). Returns the address or NO_SPACE."""
    if m == DIRECT:
        return buddy.map_alloc(st.buddy, ZONE, nbytes, align, attr, cpu)
    return vmap.map_alloc(st.vmap, m, nbytes, align, attr, cpu)


@kernel
def map_free(st, m, addr, nbytes, cpu):
    """Free what `map_alloc` returned, whole. Returns 0."""
    if m == DIRECT:
        return buddy.map_free(st.buddy, ZONE, addr, nbytes, cpu)
    return vmap.map_free(st.vmap, m, addr, nbytes, cpu)


@outlined
def map_measure(st, m, out):
    """Write the state of map `m` into `out` (int64[M_COUNT])."""
    if m == DIRECT:
        buddy.map_measure(st.buddy, ZONE, out)
    else:
        vmap.map_measure(st.vmap, m, out)


@outlined
def map_paint(st, m, bins):
    """Write the occupied share of each of len(bins) equal stretches of map `m` (float64, 0 … 1)."""
    if m == DIRECT:
        buddy.map_paint(st.buddy, ZONE, bins)
    else:
        vmap.map_paint(st.vmap, m, bins)


@kernel
def map_walked(st, m):
    """What searches of map `m` have passed one by one."""
    if m == DIRECT:
        return buddy.map_walked(st.buddy, ZONE)
    return vmap.map_walked(st.vmap, m)


@kernel
def map_free_bytes(st, m):
    """Bytes of map `m` that are not in use."""
    if m == DIRECT:
        return buddy.map_free_bytes(st.buddy, ZONE)
    return vmap.map_free_bytes(st.vmap, m)


@kernel
def map_flushes(st, m):
    """TLB flushes so far: none in the direct map, which stays mapped."""
    return 0 if m == DIRECT else vmap.map_flushes(st.vmap, m)


def census(st: State) -> dict[str, int]:
    """The counts of both, and the entries of both together."""
    pages, areas = buddy.census(st.buddy), vmap.census(st.vmap)
    return pages | areas | {"entries": pages["entries"] + areas["entries"]}


def used(st: State, m: int) -> int:
    """Bytes of map `m` that are in use (by a submap, perhaps)."""
    return buddy.used(st.buddy, ZONE) if m == DIRECT else vmap.used(st.vmap, m)


def ranges(st: State, m: int) -> list[tuple[int, int, int]]:
    """(start, end, attribute) of what is in use in map `m`, in address order."""
    return buddy.ranges(st.buddy, ZONE) if m == DIRECT else vmap.ranges(st.vmap, m)


def check(st: State, m: int) -> None:
    """Assert what must hold of map `m` (slow, for tests)."""
    if m == DIRECT:
        buddy.check(st.buddy, ZONE)
    else:
        vmap.check(st.vmap, m)


def _part(kind: type, fields: dict[str, int]) -> tuple:
    """Parameters of one of the two."""
    return kind(**{name: value for name, value in fields.items() if name in kind._fields})
