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

Left out: sleeping for space and the reclaim hook (the drivers' own); arenas by domain; superpage reservations; entries
of kernel_map, which are few; races for tags and imports; the hash of ranges in use, its memory and its resizing;
per-CPU buckets of the tag zone; phase, nocross and address limits of xalloc; address 0, which no quantum cache can
hold. (A nextfit search that finds nothing after it has wrapped at the cursor does not end in 03ccfdd2; here it does.)
"""

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim import slots
from kmemexp.sim.allocators.uma_today import keg as uma_keg
from kmemexp.sim.arenas._shared import segments as g
from kmemexp.sim.arenas.vmem import alloc as v
from kmemexp.sim.arenas.vmem.state import BEST_FIT, FIRST_FIT, NEXT_FIT, Params, State
from kmemexp.sim.slots import ATTR_SINGLE, NO_ENTRY, PAGE, PAGE_SHIFT

QCACHE_IDX_MAX = 16  # VMEM_QCACHE_IDX_MAX


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), the others empty until `add_map`. Raises ValueError for impossible parameters."""
    p = _resolved(params, cpus)
    most = min(max(p.qcache_max, p.submap_qcache_max), QCACHE_IDX_MAX)
    limits = [p.qcache_bucket or uma_keg.bucket_select(n * PAGE) for n in range(1, most + 1)]
    st = State(
        p,
        **g.arrays(kva_bytes, maps + 1, g.LEVELS, v.SUPPLY + QCACHE_IDX_MAX),
        bucket=np.zeros((maps, p.cpus, max(most, 1), max(limits, default=1)), np.int64),
        filled=np.zeros((maps, p.cpus, max(most, 1)), np.int64),
    )
    s = st.supply
    s[v.PER_PAGE] = s[v.ZONE_FREE] = uma_keg.keg_layout(p.tag_bytes, internal=True).items
    s[v.ZONE_PAGES] = 1
    s[v.RESERVE] = 2 * v.BT_MAXALLOC * p.cpus
    s[v.LIMIT : v.LIMIT + most] = limits
    st.arena[:maps, v.QCACHE] = min(p.submap_qcache_max, most) * PAGE
    st.arena[0, v.QCACHE] = min(p.qcache_max, most) * PAGE
    g.bound(st, 0, 0, kva_bytes)
    if p.import_bytes:
        # kernel_map shares the table: what lies in it beside the arena begins where nothing of the arena does.
        st.arena[maps, [g.TOP, g.SHIFT]] = st.arena[0, [g.TOP, g.SHIFT]]
        g.add_span(st, maps, 0)
    else:
        _static_span(st, 0)
    return st


def add_map(st: State, m: int, base: int, nbytes: int) -> None:
    """Give map `m`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    g.bound(st, m, base, nbytes)
    _static_span(st, m)


@kernel
def map_alloc(st, m, nbytes, align, attr, cpu):
    """Allocate `nbytes` of map `m` at a multiple of `align`. Returns the address or NO_SPACE."""
    if m == 0 and attr == ATTR_SINGLE and st.p.import_bytes:
        return v.take_beside(st, nbytes, align)
    if nbytes <= st.arena[m, v.QCACHE]:
        if align <= PAGE:
            return v.cached_alloc(st, m, nbytes, attr, cpu)
        return v.xalloc(st, m, nbytes, align, attr | v.UNCACHED, True)
    return v.xalloc(st, m, nbytes, max(align, PAGE), attr, True)


@kernel
def map_free(st, m, addr, nbytes, cpu):
    """Free what `map_alloc` returned, whole. Returns 0, or NO_ENTRY for what is no such range."""
    row = g.in_use(st, m, addr)
    if row == 0 or g.size(st, row) != nbytes or st.seg[row, g.NOTE] == g.CACHED:
        return NO_ENTRY
    if st.seg[row, g.NOTE] & v.BESIDE:
        v.give_beside(st, row)
    elif nbytes <= st.arena[m, v.QCACHE] and not st.seg[row, g.NOTE] & v.UNCACHED:
        v.cached_free(st, m, row, cpu)
    else:
        v.xfree(st, m, row)
    return 0


@outlined
def map_measure(st, m, out):
    """Write the state of map `m` into `out` (int64[M_COUNT]). An entry is a boundary tag.

    A hole is a range that one request can have. So what the arena of map 0 has free and what it has not imported yet
    are two holes even side by side. M_ENTRY_BYTES, the pages of the tag zone, is reported by map 0 for all maps.
    """
    g.measure_map(st, m, out)
    if m == 0:
        g.measure(st, v.kernel_map(st), out)
        out[slots.M_ENTRY_BYTES] = st.supply[v.ZONE_PAGES] * PAGE


@outlined
def map_paint(st, m, bins):
    """Write the occupied share of each of len(bins) equal stretches of map `m` (float64, 0 … 1)."""
    g.paint_map(st, m, bins)
    if m == 0:
        g.erase_vacant(st, m, v.kernel_map(st), bins)


@kernel
def map_walked(st, m):
    """Tags that searches of map `m` have passed: too small ones on free lists, or all up to the one taken."""
    return st.arena[m, g.WALKED]


@kernel
def map_free_bytes(st, m):
    """Free bytes of map `m` in all, those of quantum caches and of kernel_map that was not imported among them."""
    free = st.arena[m, g.FREE_BYTES] + st.arena[m, v.CACHED_BYTES]
    return free + st.arena[v.kernel_map(st), g.FREE_BYTES] if m == 0 else free


def census(st: State) -> dict[str, int]:
    """Totals over all maps: tags by where they are, pages of tags, imports, and requests that got no tags."""
    s, arenas = st.supply, st.arena[:-1]
    return {
        "tags": int(arenas[:, g.TAGS].sum()),
        "tags_in_hand": int(arenas[:, g.HAND].sum()),
        "zone_free": int(s[v.ZONE_FREE]),
        "zone_pages": int(s[v.ZONE_PAGES]),
        "imports": int(s[v.IMPORTS]),
        "imported_bytes": int(s[v.IMPORTED]),
        "no_tags": int(s[v.NO_TAGS]),
        "cached_bytes": int(arenas[:, v.CACHED_BYTES].sum()),
        "walked": int(arenas[:, g.WALKED].sum()),
    }


def used(st: State, m: int) -> int:
    """Bytes of map `m` that are allocated."""
    return sum(end - start for start, end, _ in ranges(st, m))


def ranges(st: State, m: int) -> list[tuple[int, int, int]]:
    """(start, end, attribute) of what is allocated of map `m`, by address; pages of tags are, cached ranges are not."""
    found = g.segments(st, m) + (_beside(st) if m == 0 else [])
    return sorted(
        (start, end, note & v.ATTRIBUTE)
        for start, end, kind, note in found
        if kind == g.BUSY and note not in (g.CACHED, v.IMPORT)
    )


def check(st: State, m: int) -> None:
    """Assert what must hold of map `m` and of the supply of tags (slow, for tests)."""
    beside = [start for start, _, kind, note in _beside(st) if kind == g.BUSY and note & v.BESIDE] if m == 0 else []
    # NEXT_FIT leaves what it merges around its cursor on the list of its former size.
    list_of = None if st.p.strategy == NEXT_FIT else _list
    g.check(st, m, list_of=list_of, beside=beside, whole_spans=False)
    counts, s = census(st), st.supply
    assert counts["tags"] + counts["tags_in_hand"] + counts["zone_free"] == s[v.ZONE_PAGES] * s[v.PER_PAGE], "tags lost"
    assert all(st.arena[:-1, g.HAND] >= 0), "tags in hand miscounted"
    assert map_free_bytes(st, m) + used(st, m) == st.arena[m, g.TOP] - st.arena[m, g.BASE], "bytes lost"
    cached = sum(end - start for start, end, kind, note in g.segments(st, m) if (kind, note) == (g.BUSY, g.CACHED))
    assert cached == st.arena[m, v.CACHED_BYTES], "cached bytes miscounted"


def _beside(st: State) -> list[tuple[int, int, int, int]]:
    """Segments of kernel_map itself."""
    return g.segments(st, len(st.arena) - 1)


def _static_span(st: State, m: int) -> None:
    """Give a map's arena all of its range, with tags of the zone (vmem_init)."""
    s = st.supply
    while s[v.ZONE_FREE] < v.BT_MAXALLOC:
        s[v.ZONE_FREE] += s[v.PER_PAGE]
        s[v.ZONE_PAGES] += 1
    s[v.ZONE_FREE] -= v.BT_MAXALLOC
    st.arena[m, g.HAND] += v.BT_MAXALLOC
    g.add_span(st, m, _list(int(st.arena[m, g.TOP] - st.arena[m, g.BASE])))


def _list(nbytes: int) -> int:
    """Free list of a segment, without compiling anything at boot."""
    pages = nbytes >> PAGE_SHIFT
    return pages - 1 if pages <= v.EXACT_LISTS else pages.bit_length() + 25


def _resolved(params: Params, cpus: int) -> Params:
    """Fill in what is 0; raises ValueError for what cannot be."""
    p = params._replace(cpus=max(params.cpus or cpus, cpus))
    if p.strategy not in (BEST_FIT, FIRST_FIT, NEXT_FIT):
        raise ValueError(f"strategy is {p.strategy}; it must be 0 (best), 1 (first) or 2 (next fit)")
    if p.import_bytes % PAGE or p.import_bytes < 0:
        raise ValueError(f"import_bytes = {p.import_bytes}: must be whole pages, or 0")
    if not 0 < p.tag_bytes <= PAGE // 8:
        raise ValueError(f"tag_bytes = {p.tag_bytes}: must lie in 1 … {PAGE // 8}")
    if min(p.qcache_max, p.submap_qcache_max, p.qcache_bucket) < 0:
        raise ValueError("qcache_max, submap_qcache_max, qcache_bucket: must not be negative")
    return p
