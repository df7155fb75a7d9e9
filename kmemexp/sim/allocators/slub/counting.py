"""What `allocators/slub` holds, counted: by cache, and in all."""

import numpy as np

from kmemexp.sim.allocators.slub import layout
from kmemexp.sim.allocators.slub import slabs as u
from kmemexp.sim.allocators.slub.sheaves import H_SIZE
from kmemexp.sim.allocators.slub.state import State
from kmemexp.sim.caches import Cache, Live, large, rows
from kmemexp.sim.slots import ITEM_MALLOC, ITEM_MBUF, item_of_set


def caches(st: State, live: Live) -> list[Cache]:
    """What each cache holds. A merged one has the name of its first."""
    sets = max(st.p.kmalloc_sets, 1)
    names = [f"{layout.KMALLOC_NAMES[k]}-{size}" for k in range(sets) for size in layout.KMALLOC_SIZES]
    sorts: list[tuple[int, ...]] = [(item_of_set(k),) if k else (ITEM_MALLOC, ITEM_MBUF) for k in range(sets)]
    served = [sort for sort in sorts for _ in layout.KMALLOC_SIZES]
    zones = range(len(names), len(st.cache))
    served += [tuple(np.flatnonzero(st.item_cache == k).tolist()) for k in zones]
    columns = (st.cache[:, column] for column in (u.K_SIZE, u.K_SLABS, u.K_PAGES))
    every = tuple(item for sort in sorts for item in sort)
    return [*rows(names + [""] * len(zones), served, *columns), large(st.large[0], every)]


def census(st: State) -> dict[str, int]:
    """Count what the allocator holds.

    `pages`: all that it holds, among them `large_pages` of large kmalloc()s. `slabs`, with `free_objects`: of these
    `current_slabs` are CPUs' current ones, `cpu_partial_slabs` on CPUs' partial lists, `node_partial_slabs` on nodes';
    `fallbacks`: slabs ever made of the smallest order because no larger block was free. `sheaves`, with
    `sheaf_objects`. `vectors` of slabs.
    """
    first = np.flatnonzero((st.slab[:, u.S_CACHE] > 0) & (st.slab[:, u.S_FIRST] == np.arange(len(st.slab))))
    slabs = st.slab[first].astype(np.int64)
    depth = st.cpu[:, :, u.C_PARTIAL]
    mains = st.cpu[:, :, [u.C_MAIN, u.C_SPARE]]
    barns = st.node[:, :, u.NODE_FULLS].sum(axis=1)
    counts = {
        "pages": st.cache[:, u.K_PAGES].sum() + st.large[0],
        "large_pages": st.large[0],
        "slabs": st.cache[:, u.K_SLABS].sum(),
        "current_slabs": (st.cpu[:, :, u.C_SLAB] != u.NIL).sum(),
        "cpu_partial_slabs": st.slab[depth[depth != u.NIL], u.S_SLABS].sum(),
        "node_partial_slabs": st.node[:, :, u.NODE_PARTIAL].sum(),
        "free_objects": (slabs[:, u.S_OBJECTS] - slabs[:, u.S_INUSE]).sum() + _in_freelists(st),
        "sheaf_objects": st.word[mains[mains != u.NIL] + H_SIZE].sum() + (barns * st.cache[:, u.K_SHEAF]).sum(),
        "sheaves": (mains != u.NIL).sum() + barns.sum() + st.node[:, :, u.NODE_EMPTIES].sum(),
        "fallbacks": st.cache[:, u.K_FALLBACKS].sum(),
        "vectors": np.count_nonzero(st.vector),
    }
    return {name: int(count) for name, count in counts.items()}


def _in_freelists(st: State) -> int:
    """Free objects on CPUs' own freelists: all are followed at once, link by link."""
    base, at = st.cpu[:, :, u.C_SLAB].ravel() << u.PAGE_WORD_SHIFT, st.cpu[:, :, u.C_FREE].ravel()
    k = np.repeat(np.arange(len(st.cache)), st.cpus)
    count = 0
    while (more := at != u.NIL).any():
        base, at, k = base[more], at[more], k[more]
        count += len(at)
        at = st.link[st.cache[k, u.K_PLANE] + (base + at >> st.cache[k, u.K_SHIFT])].astype(np.int64)
    return count
