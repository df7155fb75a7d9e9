"""FreeBSD's kernel_arena and its like: sys/kern/subr_vmem.c (03ccfdd2) and sys/vm/vm_kern.c, FreeBSD 13 to 15.

An arena (`alloc`) has 32 free lists of exact sizes and one for each power of two above. A request takes the
low end of the first segment that is large enough on the first list that may hold one (BEST_FIT: kva_alloc asks for it),
looks at the lists' heads only (FIRST_FIT, then BEST_FIT), or goes round the segments (NEXT_FIT). The rest goes to the
head of its list; a free merges with both neighbours at once.

Map 0 is kernel_map. Its arena begins empty and imports from it in units of `import_bytes` (KVA_QUANTUM: a superpage, 2
MiB, or 1 MiB without superpages), aligned to the unit and rounded up to units, lowest first, for ever. For an aligned
request it imports twice the alignment more. A span that continues the last one is joined to it. ATTR_SINGLE requests
(submaps) come from kernel_map itself, beside the arena. With `import_bytes` = 0 all of map 0 is one span of the arena
from the beginning, and nothing lies beside it. Another map is an arena with its range as its only span (buffer_arena).

Tags: an operation that allocates must have four in hand (BT_MAXALLOC); after a free an arena keeps at most 32
(BT_MAXFREE). They come from a zone by the slab, a page. When no more than its reserve of 8 tags a CPU is left, it takes
a page, which is a wired allocation from the arena of map 0 itself (vmem_bt_alloc), whose own four tags may come out of
the reserve: so tags run out only when there is no KVA for a page. Then the request has NO_SPACE, as the kernel's has
ENOMEM: no panic (`census` counts them). With `direct` = 1 (UMA_MD_SMALL_ALLOC) the page lies in a direct map, not here.
The zone never gives a page back. The slab that there is at boot, and tags of submaps where it is too small for them,
lie in pages of boot, in no map.

With `qcache_max` > 0 requests of up to so many pages (at most 16) go through caches of single sizes; kernel_arena has
none, buffer_arena has 32 pages on machines of more than 4 CPUs (`submap_qcache_max`, for all maps but 0). A CPU's cache
of a size is a bucket, last in, first out. One that is empty is filled by as many xallocs, lowest address first, as go
without draining; one that is full sends frees to the arena. An allocation that the arena cannot serve empties the
caches of all CPUs and tries again. Left out of UMA: the second bucket of a CPU, the zone's list of full buckets (and so
that a drain reaches those only), growth of buckets, buckets by domain, and the memory of the buckets.

Callers free exactly what they have allocated; another address or size is refused with NO_ENTRY.

With `levels` = 2 that is kernel_arena, and each NUMA domain has an arena of its own that imports from it for
kmem_malloc() (ATTR_WIRED requests of a CPU of the domain): superpages, for ever, 128 of them at a time where there are
several domains. What is not wired comes from kernel_arena itself, as kva_alloc() has it. `arenas.freebsd_mm` uses it
so. For kernel stacks each domain has a third one: it imports five superpages from the domain's, begins them where a
page's number is a multiple of the five pages of a stack, and gives back a span in which no stack is left
(vm_glue.c, 2024; KVA_KSTACK_QUANTUM is taken to be a superpage).

Left out: sleeping for space and the reclaim hook (the drivers' own); superpage reservations; entries of kernel_map,
which are few; races for tags and imports; the hash of ranges in use, its memory and its resizing; per-CPU buckets of
the tag zone; phase, nocross and address limits of xalloc; address 0, which no quantum cache can hold. (A nextfit search
that finds nothing after it has wrapped at the cursor does not end in 03ccfdd2; here it does.)
"""

import numpy as np

from kmemexp.jit import entry, kernel, outlined
from kmemexp.sim.aliases import Address, Bytes, MapNo, Shares, Words
from kmemexp.sim.allocators.uma_today import keg as uma_keg
from kmemexp.sim.arenas._shared import segments as g
from kmemexp.sim.arenas.vmem import alloc as v
from kmemexp.sim.arenas.vmem import stacks
from kmemexp.sim.arenas.vmem.state import BEST_FIT, FIRST_FIT, NEXT_FIT, Params, State
from kmemexp.sim.checks import insist
from kmemexp.sim.map_calls import KMEM_BACK, KMEM_UNBACK
from kmemexp.sim.slots import ATTR_SINGLE, ATTR_SORT, ATTR_WIRED, NO_ENTRY, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import gauge

CALLS = (KMEM_BACK, KMEM_UNBACK)

QCACHE_IDX_MAX = 16  # VMEM_QCACHE_IDX_MAX


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), the others empty until `add_map`. Raises ValueError for impossible parameters."""
    p = _resolved(params, cpus)
    most = min(max(p.qcache_max, p.submap_qcache_max), QCACHE_IDX_MAX)
    limits = [p.qcache_bucket or uma_keg.bucket_select(n * PAGE) for n in range(1, most + 1)]
    st = State(
        p,
        **g.arrays(kva_bytes, maps + (2 * p.domains if p.levels == 2 else 0) + 1, g.LEVELS, v.SUPPLY + QCACHE_IDX_MAX),
        maps=maps,
        bucket=np.zeros((maps, p.cpus, max(most, 1), max(limits, default=1)), np.int64),
        filled=np.zeros((maps, p.cpus, max(most, 1)), np.int64),
    )
    supply = st.supply
    supply[v.PER_PAGE] = supply[v.ZONE_FREE] = uma_keg.keg_layout(p.tag_bytes, internal=True).items
    supply[v.ZONE_PAGES] = 1
    supply[v.RESERVE] = 2 * v.BT_MAXALLOC * p.cpus
    supply[v.LIMIT : v.LIMIT + most] = limits
    st.arena[:maps, v.QCACHE] = min(p.submap_qcache_max, most) * PAGE
    st.arena[0, v.QCACHE] = min(p.qcache_max, most) * PAGE
    g.bound(st, 0, 0, kva_bytes)
    if p.import_bytes:
        # kernel_map shares the table: what lies in it beside the arena begins where nothing of the arena does.
        st.arena[maps:, [g.TOP, g.SHIFT]] = st.arena[0, [g.TOP, g.SHIFT]]
        g.add_span(st, len(st.arena) - 1, 0)
    else:
        _static_span(st, 0)
    return st


def add_map(st: State, map_no: int, base: int, nbytes: int) -> None:
    """Give map `map_no`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    g.bound(st, map_no, base, nbytes)
    _static_span(st, map_no)


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Allocate `nbytes` of map `map_no` at a multiple of `align`. Returns the address or NO_SPACE."""
    if map_no == 0 and attr == ATTR_SINGLE and st.p.import_bytes:
        return v.take_beside(st, nbytes, align)
    if map_no == 0 and attr & ATTR_SORT == ATTR_WIRED and st.p.levels == 2:
        return v.domain_alloc(st, cpu * st.p.domains // st.p.cpus, nbytes, max(align, PAGE), attr)
    if nbytes <= st.arena[map_no, v.QCACHE]:
        if align <= PAGE:
            return v.cached_alloc(st, map_no, nbytes, attr, cpu)
        return v.xalloc(st, map_no, nbytes, align, attr | v.UNCACHED, True)
    return v.xalloc(st, map_no, nbytes, max(align, PAGE), attr, True)


@kernel
def map_free(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """Free what `map_alloc` returned, whole. Returns 0, or NO_ENTRY for what is no such range."""
    row = g.in_use(st, map_no, addr)
    if row == 0 or g.size(st, row) != nbytes or st.seg[row, g.NOTE] == g.CACHED:
        return NO_ENTRY
    if st.seg[row, g.NOTE] & v.BESIDE:
        v.give_beside(st, row)
    elif nbytes <= st.arena[map_no, v.QCACHE] and not st.seg[row, g.NOTE] & v.UNCACHED:
        v.cached_free(st, map_no, row, cpu)
    else:
        a = v.in_domain(st, row) if map_no == 0 else map_no
        if map_no == 0 and stacks.holds_stacks(st, a):
            stacks.stack_free(st, a, row)
        else:
            v.xfree(st, a, row)
    return 0


@kernel
def in_stacks(st: State, addr: Address) -> bool:
    """Whether the range in use that begins at an address of map 0 is a kernel stack with its guard page."""
    row = g.in_use(st, 0, addr) if addr >= st.arena[0, g.BASE] else 0
    return row != 0 and stacks.holds_stacks(st, v.in_domain(st, row))


@outlined
def map_measure(st: State, map_no: MapNo, out: Words) -> None:
    """Write the state of map `map_no` into `out` (int64[M_COUNT]). An entry is a boundary tag.

    A hole is a range that one request can have. So what the arena of map 0 has free and what it has not imported yet
    are two holes even side by side. gauge.ENTRY_BYTES, the pages of the tag zone, is reported by map 0 for all maps.
    """
    g.measure_map(st, map_no, out)
    if map_no == 0:
        for a in range(st.maps, len(st.arena)):
            g.measure(st, a, out)
        for a in range(st.maps, v.kernel_map(st)):
            out[gauge.ENTRIES] += st.arena[a, g.TAGS]
            out[gauge.WALKED] += st.arena[a, g.WALKED]
        out[gauge.ENTRY_BYTES] = st.supply[v.ZONE_PAGES] * PAGE


@outlined
def map_paint(st: State, map_no: MapNo, bins: Shares) -> None:
    """Write the occupied share of each of len(bins) equal stretches of map `map_no` (float64, 0 … 1)."""
    g.paint_map(st, map_no, bins)
    if map_no == 0:
        for a in range(st.maps, len(st.arena)):
            g.erase_vacant(st, map_no, a, bins)


@kernel
def map_walked(st: State, map_no: MapNo) -> int:
    """Tags that searches of map `map_no` have passed: too small ones on free lists, or all up to the one taken."""
    walked = st.arena[map_no, g.WALKED]
    if map_no == 0:
        for a in range(st.maps, v.kernel_map(st)):
            walked += st.arena[a, g.WALKED]
    return walked


@kernel
def map_free_bytes(st: State, map_no: MapNo) -> int:
    """Free bytes of map `map_no` in all, those of quantum caches and of kernel_map that was not imported among them."""
    free = st.arena[map_no, g.FREE_BYTES] + st.arena[map_no, v.CACHED_BYTES]
    if map_no == 0:
        for a in range(st.maps, len(st.arena)):
            free += st.arena[a, g.FREE_BYTES]
    return free


def census(st: State) -> dict[str, int]:
    """Totals over all maps: tags by where they are, pages of tags, imports, and requests that got no tags."""
    supply, arenas = st.supply, st.arena[:-1]
    return {
        "tags": int(arenas[:, g.TAGS].sum()),
        "tags_in_hand": int(arenas[:, g.HAND].sum()),
        "zone_free": int(supply[v.ZONE_FREE]),
        "zone_pages": int(supply[v.ZONE_PAGES]),
        "imports": int(supply[v.IMPORTS]),
        "imported_bytes": int(supply[v.IMPORTED]),
        "no_tags": int(supply[v.NO_TAGS]),
        "cached_bytes": int(arenas[:, v.CACHED_BYTES].sum()),
        "walked": int(arenas[:, g.WALKED].sum()),
    }


def used(st: State, map_no: int) -> int:
    """Bytes of map `map_no` that are allocated."""
    return sum(end - start for start, end, _ in ranges(st, map_no))


def ranges(st: State, map_no: int) -> list[tuple[int, int, int]]:
    """(start, end, attribute) of what is allocated of a map, by address; pages of tags are, cached ranges are not."""
    found = [s for a in _arenas(st, map_no) for s in g.segments(st, a)]
    return sorted(
        (start, end, note & v.ATTRIBUTE)
        for start, end, kind, note in found
        if kind == g.BUSY and note != g.CACHED and not note & v.IMPORT
    )


def check(st: State, map_no: int) -> None:
    """Assert what must hold of map `map_no` and of the supply of tags (slow, for tests)."""
    beside = (
        [start for start, _, kind, note in _beside(st) if kind == g.BUSY and note & v.BESIDE] if map_no == 0 else []
    )
    # NEXT_FIT leaves what it merges around its cursor on the list of its former size.
    list_of = None if st.p.strategy == NEXT_FIT else _list
    for a in range(st.maps, len(st.arena) - 1) if map_no == 0 else ():
        beside += [start for start, _, kind, note in g.segments(st, a) if kind == g.BUSY and not note & v.IMPORT]
    g.check(st, map_no, list_of=list_of, beside=beside, whole_spans=False, lent=v.IMPORT)
    counts, supply = census(st), st.supply
    insist(
        counts["tags"] + counts["tags_in_hand"] + counts["zone_free"] == supply[v.ZONE_PAGES] * supply[v.PER_PAGE],
        "tags lost",
    )
    insist(all(st.arena[:-1, g.HAND] >= 0), "tags in hand miscounted")
    there = entry(map_free_bytes)(st, map_no) + used(st, map_no) + (_trimmed(st) if map_no == 0 else 0)
    insist(there == st.arena[map_no, g.TOP] - st.arena[map_no, g.BASE], "bytes lost")
    cached = sum(end - start for start, end, kind, note in g.segments(st, map_no) if (kind, note) == (g.BUSY, g.CACHED))
    insist(cached == st.arena[map_no, v.CACHED_BYTES], "cached bytes miscounted")


def _beside(st: State) -> list[tuple[int, int, int, int]]:
    """Segments of kernel_map itself."""
    return g.segments(st, len(st.arena) - 1)


def _trimmed(st: State) -> int:
    """Bytes of what arenas of stacks have imported that are in no span of theirs."""
    spans = [st.seg[row] for a in range(st.maps, len(st.arena) - 1) for row in g.rows(st, a)]
    spans = [span for span in spans if span[g.KIND] == g.SPAN and span[g.NOTE]]
    return sum(stacks.STACK_PAGES * v.SUPERPAGE - int(span[g.END] - span[g.START]) for span in spans)


def _arenas(st: State, map_no: int) -> list[int]:
    """Arenas that hold what is allocated of a map."""
    return [map_no, *range(st.maps, len(st.arena))] if map_no == 0 else [map_no]


def _static_span(st: State, map_no: int) -> None:
    """Give a map's arena all of its range, with tags of the zone (vmem_init)."""
    supply = st.supply
    while supply[v.ZONE_FREE] < v.BT_MAXALLOC:
        supply[v.ZONE_FREE] += supply[v.PER_PAGE]
        supply[v.ZONE_PAGES] += 1
    supply[v.ZONE_FREE] -= v.BT_MAXALLOC
    st.arena[map_no, g.HAND] += v.BT_MAXALLOC
    g.add_span(st, map_no, _list(int(st.arena[map_no, g.TOP] - st.arena[map_no, g.BASE])))


def _list(nbytes: int) -> int:
    """Free list of a segment, without compiling anything at boot."""
    pages = nbytes >> PAGE_SHIFT
    return pages - 1 if pages <= v.EXACT_LISTS else pages.bit_length() + 25


def _resolved(params: Params, cpus: int) -> Params:
    """Fill in what is 0; raises ValueError for what cannot be."""
    p = params._replace(cpus=max(params.cpus or cpus, cpus), domains=params.domains or 1)
    if p.levels not in (1, 2):
        raise ValueError(f"levels is {p.levels}; it must be 1 or 2")
    if p.levels == 2 and p.import_bytes == 0:
        raise ValueError("import_bytes is 0: two levels import from each other")
    if p.levels == 2 and p.domains > 1 and p.import_bytes == v.SUPERPAGE:
        p = p._replace(import_bytes=v.SEVERAL * v.SUPERPAGE)  # KVA_NUMA_IMPORT_QUANTUM
    if p.strategy not in (BEST_FIT, FIRST_FIT, NEXT_FIT):
        raise ValueError(f"strategy is {p.strategy}; it must be 0 (best), 1 (first) or 2 (next fit)")
    if p.import_bytes % PAGE or p.import_bytes < 0:
        raise ValueError(f"import_bytes = {p.import_bytes}: must be whole pages, or 0")
    if not 0 < p.tag_bytes <= PAGE // 8:
        raise ValueError(f"tag_bytes = {p.tag_bytes}: must lie in 1 … {PAGE // 8}")
    if min(p.qcache_max, p.submap_qcache_max, p.qcache_bucket) < 0:
        raise ValueError("qcache_max, submap_qcache_max, qcache_bucket: must not be negative")
    return p
