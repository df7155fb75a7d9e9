"""Linux's two kinds of kernel memory: the direct map of all pages is a buddy, all other maps are vmalloc space.

Map `DIRECT`, once it has been added, is a zone of `sim.arenas.buddy`; the others are those of `sim.arenas.vmap`.
The direct map and all submaps are carved out of map 0 at boot (ATTR_SINGLE), without guard pages.

Left out: what those two leave out, and user memory, which would fragment the direct map from below.
"""

from typing import NamedTuple

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Bytes, MapNo, Shares, Words
from kmemexp.sim.arenas import buddy, vmap
from kmemexp.sim.maps import DIRECT

CALLS = vmap.CALLS
CPU_LOCK = buddy.CPU_LOCK

ZONE = 0  # the buddy has this one map


class Params(NamedTuple):
    """What a sweep may change: the fields of both."""

    max_order: int = 10
    pageblock_order: int = 9
    pcp: int = 1
    migrate: int = 1
    plain: int = 0
    cpus: int = 0
    min_free_kib: int = 0
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
        vmap.init(vmap.Params(**_of(vmap.Params._fields, fields)), kva_bytes=kva_bytes, cpus=cpus, maps=maps),
        buddy.empty(buddy.Params(**_of(buddy.Params._fields, fields)), kva_bytes=kva_bytes, cpus=cpus, maps=1),
    )


def add_map(st: State, map_no: int, base: int, nbytes: int) -> None:
    """Give map `map_no`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    if map_no == DIRECT:
        buddy.add_map(st.buddy, ZONE, base, nbytes)
    else:
        vmap.add_map(st.vmap, map_no, base, nbytes)


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Allocate `nbytes` of map `map_no` at a multiple of `align` (bytes). Returns the address or NO_SPACE."""
    if map_no == DIRECT:
        return buddy.map_alloc(st.buddy, ZONE, nbytes, align, attr, cpu)
    return vmap.map_alloc(st.vmap, map_no, nbytes, align, attr, cpu)


@kernel
def map_free(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """Free what `map_alloc` returned, whole. Returns 0."""
    if map_no == DIRECT:
        return buddy.map_free(st.buddy, ZONE, addr, nbytes, cpu)
    return vmap.map_free(st.vmap, map_no, addr, nbytes, cpu)


@outlined
def map_measure(st: State, map_no: MapNo, out: Words) -> None:
    """Write the state of map `map_no` into `out` (int64[M_COUNT])."""
    if map_no == DIRECT:
        buddy.map_measure(st.buddy, ZONE, out)
    else:
        vmap.map_measure(st.vmap, map_no, out)


@outlined
def map_paint(st: State, map_no: MapNo, bins: Shares) -> None:
    """Write the occupied share of each of len(bins) equal stretches of map `map_no` (float64, 0 … 1)."""
    if map_no == DIRECT:
        buddy.map_paint(st.buddy, ZONE, bins)
    else:
        vmap.map_paint(st.vmap, map_no, bins)


@kernel
def map_walked(st: State, map_no: MapNo) -> int:
    """What searches of map `map_no` have passed one by one."""
    if map_no == DIRECT:
        return buddy.map_walked(st.buddy, ZONE)
    return vmap.map_walked(st.vmap, map_no)


@kernel
def map_moved(st: State, map_no: MapNo) -> int:
    """What has been moved under zone->lock, or under free_vmap_area_lock."""
    return buddy.map_moved(st.buddy, ZONE) if map_no == DIRECT else vmap.map_moved(st.vmap, map_no)


@kernel
def map_free_bytes(st: State, map_no: MapNo) -> int:
    """Bytes of map `map_no` that are not in use."""
    if map_no == DIRECT:
        return buddy.map_free_bytes(st.buddy, ZONE)
    return vmap.map_free_bytes(st.vmap, map_no)


@kernel
def map_flushes(st: State, map_no: MapNo) -> int:
    """TLB flushes so far: none in the direct map, which stays mapped."""
    return 0 if map_no == DIRECT else vmap.map_flushes(st.vmap, map_no)


def census(st: State) -> dict[str, int]:
    """The counts of both, and the entries of both together."""
    pages, areas = buddy.census(st.buddy), vmap.census(st.vmap)
    return pages | areas | {"entries": pages["entries"] + areas["entries"]}


def used(st: State, map_no: int) -> int:
    """Bytes of map `map_no` that are in use (by a submap, perhaps)."""
    return buddy.used(st.buddy, ZONE) if map_no == DIRECT else vmap.used(st.vmap, map_no)


def ranges(st: State, map_no: int) -> list[tuple[int, int, int]]:
    """(start, end, attribute) of what is in use in map `map_no`, in address order."""
    return buddy.ranges(st.buddy, ZONE) if map_no == DIRECT else vmap.ranges(st.vmap, map_no)


def check(st: State, map_no: int) -> None:
    """Assert what must hold of map `map_no` (slow, for tests)."""
    if map_no == DIRECT:
        buddy.check(st.buddy, ZONE)
    else:
        vmap.check(st.vmap, map_no)


def _of(names: tuple[str, ...], fields: dict[str, int]) -> dict[str, int]:
    """Those of the fields that one of the two has."""
    return {name: fields[name] for name in names if name in fields}
