"""illumos' heap arena and kmem_va: usr/src/uts/common/os/vmem.c and kmem.c (illumos-gate 0616c1c3, 03ba8404; 2020).

An arena has a free list for each power of two, last freed first. Instant fit takes the head of the first list all of
whose segments are large enough, and falls back to the list below when there is no such segment; best and first fit look
at that one always; next fit goes round the segments from a rotor. A request takes the low end. If the rest belongs on
the same list it stays where it is there. A free merges with both neighbours at once. With alignment the first segment
of the same lists that holds an aligned range is taken (`alloc`).

Map 0 is the heap. Wired memory comes from kmem_va: sizes up to `qcache_max` pages from quantum caches, whose slabs (32
pages for 8) come from kmem_va's own segments, as larger requests do (`qcache`). What kmem_va lacks it
imports from the heap, exactly as much as is asked for (with alignment, that less a page more), by instant fit, and a
span that is wholly free goes back at once. All else in map 0, submaps among it, comes from the heap itself. Another map
is an arena with its range as its only span. `strategy` is that of requests; imports and slabs always use instant fit.

Tags: 16 must be in hand before an operation. They come from a global list, at first the 200 of the kernel image, then
from vmem_populate(): a page of 73 (of 2 pages with 5 populators), which vmem_seg imports from vmem_metadata, and that
from the heap, 32 pages at once. Heap, vmem_metadata and vmem_seg take what that needs from their own tags and are
restocked to 12. No page goes back. A request that gets no tags has NO_SPACE (`census` counts them). Each range of
kmem_va costs two tags more in kmem_default, which lies over it and gives each span back at once.

With `metadata`, pages of kmem's own caches come from kmem_msb, and that has them of kmem_metadata, which imports 32
pages at once. With `firewall`, as on LP64, oversize blocks come from kmem_oversize: that has them of kmem_firewall_va,
which takes a page more of the heap, by next fit, and leaves it unmapped. Else both come from kmem_default.

Callers free exactly what they have allocated; another address or size, a panic in the kernel, is refused with NO_ENTRY.

Left out: the magazines of the quantum caches (of one range for 4096 bytes, at first), their depot and the memory of
their slabs' and buffers' descriptors (so slabs of equal weight are ordered by their own address, not their
descriptor's); kmem_cache and kmem_hash, with what boot takes of them; vmem_hash and the memory of the hash tables (the
arithmetic is in `layout`, with that of phase and nocross); VM_ENDALLOC; sleeping, kmem_reap and the
update every 15 s; races, so that no import is superfluous; large-page heaps.
"""

import numpy as np

from kmemexp.jit import entry, kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, MapNo, Registers, Shares, Words
from kmemexp.sim.arenas._shared import segments as g
from kmemexp.sim.arenas.vmem_illumos import alloc as v
from kmemexp.sim.arenas.vmem_illumos import layout
from kmemexp.sim.arenas.vmem_illumos import qcache as q
from kmemexp.sim.arenas.vmem_illumos.state import BEST_FIT, FIRST_FIT, INSTANT_FIT, NEXT_FIT, Params, State
from kmemexp.sim.asking import sort_alone
from kmemexp.sim.checks import insist
from kmemexp.sim.map_calls import SEGKMEM_FREE, SEGKMEM_XALLOC
from kmemexp.sim.slots import ATTR_METADATA, ATTR_OVERSIZE, ATTR_SORT, ATTR_WIRED, NO_ENTRY, NO_SPACE, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import gauge

CALLS = (SEGKMEM_XALLOC, SEGKMEM_FREE)

TAIL = -1  # attribute of what no range of a slab covers


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), the others empty until `add_map`. Raises ValueError for impossible parameters."""
    p = _checked(params)
    pages = kva_bytes >> PAGE_SHIFT
    slab_pages = max(layout.qcache_slab_bytes(p.qcache_max * PAGE) // PAGE, 1)
    cells = -(-pages // slab_pages)
    caches = max(p.qcache_max, 1)
    st = State(
        p,
        **g.arrays(kva_bytes, maps + v.EXTRA_ARENAS, g.LEVELS + 1 + p.metadata, v.SUPPLY),
        slab_pages=slab_pages,
        slab=demand.zeros((cells, q.SLAB_COLUMNS)),
        link=demand.zeros(pages, demand.names(pages)),
        tree=demand.zeros((caches, 2 << (cells - 1).bit_length()), np.int8),
    )
    supply = st.supply
    supply[v.BATCH], supply[v.BATCH_PAGES] = layout.populate_batch(p.populators, p.tag_bytes)
    supply[v.GLOBAL] = supply[v.MADE] = layout.SEG_INITIAL
    for a in (maps + v.VMEM_METADATA, maps + v.VMEM_SEG):
        st.arena[a, g.HAND] = layout.MINFREE
    supply[v.OTHERS] = (p.populators - 3) * layout.MINFREE
    supply[v.GLOBAL] -= 2 * layout.MINFREE + supply[v.OTHERS]
    g.bound(st, maps + v.KMEM_VA, 0, kva_bytes)
    if p.metadata:
        g.bound(st, maps + v.KMEM_METADATA, 0, kva_bytes)
    add_map(st, 0, 0, kva_bytes)
    return st


def add_map(st: State, map_no: int, base: int, nbytes: int) -> None:
    """Give map `map_no`, still empty, the range [base, base + nbytes), which its parent must have allocated.

    Where the global list has no 16 tags for it, a page of boot, in no map, brings them.
    """
    g.bound(st, map_no, base, nbytes)
    supply = st.supply
    while supply[v.GLOBAL] < layout.MINFREE:
        supply[v.GLOBAL] += supply[v.BATCH]
        supply[v.MADE] += supply[v.BATCH]
        supply[v.TAG_PAGES] += supply[v.BATCH_PAGES]
    supply[v.GLOBAL] -= layout.MINFREE
    st.arena[map_no, g.HAND] += layout.MINFREE
    g.add_span(st, map_no, layout.free_list(nbytes))


@kernel
def map_attr(reg: Registers, i: int, attr: int, server: int) -> int:
    """The sort of range, and whether it is for metadata or for an oversize block."""
    return sort_alone(reg, i, attr, server) | attr & (ATTR_METADATA | ATTR_OVERSIZE)


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Allocate `nbytes` of map `map_no` at a multiple of `align`. Returns the address or NO_SPACE."""
    align = max(align, PAGE)
    if map_no == 0 and attr & ATTR_METADATA and st.p.metadata:
        return take_metadata(st, nbytes, align)
    if map_no == 0 and attr & ATTR_OVERSIZE and st.p.firewall:
        return take_oversize(st, nbytes, align)
    attr &= ATTR_SORT
    if map_no == 0 and attr == ATTR_WIRED:
        return take_wired(st, nbytes, align)
    if not v.restocked(st, map_no):
        return NO_SPACE
    return v.place(st, map_no, nbytes, align, st.p.strategy, attr)


@kernel
def map_free(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """Free what `map_alloc` returned, whole. Returns 0, or NO_ENTRY for what is no such range."""
    row = g.in_use(st, map_no, addr)
    if map_no == 0 and (row == 0 or st.seg[row, g.NOTE] >= v.IMPORT):
        return give_wired(st, addr, nbytes)
    if row == 0 or g.size(st, row) != nbytes:
        return NO_ENTRY
    v.xfree(st, map_no, row)
    return 0


@outlined
def take_wired(st: State, nbytes: Bytes, align: int) -> int:
    """Allocate from kmem_default, which has it from kmem_va. Returns the address or NO_SPACE."""
    default = v.arena(st, v.KMEM_DEFAULT)
    if not v.restocked(st, default):
        return NO_SPACE
    if nbytes <= st.p.qcache_max * PAGE and align <= PAGE:
        addr = q.take_chunk(st, nbytes)
    else:
        addr = v.take_kmem_va(st, nbytes, align, st.p.strategy, ATTR_WIRED)
    if addr >= 0:
        v.use_tags(st, default, 2)
    return addr


@outlined
def take_metadata(st: State, nbytes: Bytes, align: int) -> int:
    """Allocate from kmem_msb, which has it from kmem_metadata. Returns the address or NO_SPACE."""
    msb = v.arena(st, v.KMEM_MSB)
    if not v.restocked(st, msb):
        return NO_SPACE
    addr = v.take_import(st, v.arena(st, v.KMEM_METADATA), nbytes, align, INSTANT_FIT, ATTR_WIRED)
    if addr >= 0:
        v.use_tags(st, msb, 2)
    return addr


@outlined
def take_oversize(st: State, nbytes: Bytes, align: int) -> int:
    """Allocate from kmem_oversize: kmem_firewall_va takes a page more of the heap, by next fit. Address or NO_SPACE."""
    oversize, firewall = v.arena(st, v.KMEM_OVERSIZE), v.arena(st, v.KMEM_FIREWALL_VA)
    if not (v.restocked(st, oversize) and v.restocked(st, firewall) and v.restocked(st, 0)):
        return NO_SPACE
    addr = v.place(st, 0, nbytes + PAGE, align, NEXT_FIT, v.OVERSIZE)
    if addr >= 0:
        v.use_tags(st, oversize, 2)
        v.use_tags(st, firewall, 2)
    return addr


@kernel
def give_special(st: State, addr: Address, nbytes: Bytes) -> int:
    """Free what take_metadata() or take_oversize() returned. Returns 0, or NO_ENTRY if neither did."""
    a = v.arena(st, v.KMEM_METADATA)
    row = g.in_use(st, a, addr) if st.p.metadata else 0
    if row and g.size(st, row) == nbytes:
        v.xfree(st, a, row)
        v.use_tags(st, v.arena(st, v.KMEM_MSB), -2)
        return 0
    row = g.in_use(st, 0, addr)
    if row and st.seg[row, g.NOTE] == v.OVERSIZE and g.size(st, row) == nbytes + PAGE:
        v.xfree(st, 0, row)
        v.use_tags(st, v.arena(st, v.KMEM_OVERSIZE), -2)
        v.use_tags(st, v.arena(st, v.KMEM_FIREWALL_VA), -2)
        return 0
    return NO_ENTRY


@outlined
def give_wired(st: State, addr: Address, nbytes: Bytes) -> int:
    """Free what take_wired() returned, or one of the special ones. Returns 0 or NO_ENTRY."""
    if (st.p.metadata or st.p.firewall) and give_special(st, addr, nbytes) == 0:
        return 0
    a = v.arena(st, v.KMEM_VA)
    row = g.in_use(st, a, addr)
    if row and st.seg[row, g.NOTE] != v.SLAB:
        if g.size(st, row) != nbytes:
            return NO_ENTRY
        v.xfree(st, a, row)
    elif q.give_chunk(st, addr, nbytes) < 0:
        return NO_ENTRY
    v.use_tags(st, v.arena(st, v.KMEM_DEFAULT), -2)
    return 0


@outlined
def map_measure(st: State, map_no: MapNo, out: Words) -> None:
    """Write the state of map `map_no` into `out` (int64[M_COUNT]). An entry is a boundary tag.

    A hole is a range that one request can have: a free segment of the heap or of kmem_va, or a free range of a slab.
    gauge.ENTRY_BYTES, the pages of tags, is reported by map 0 for all maps. gauge.HIGH of map 0 is that of the heap,
    imports of kmem_va and vmem_metadata among it.
    """
    g.measure_map(st, map_no, out)
    if map_no == 0:
        g.measure(st, v.arena(st, v.KMEM_VA), out)
        g.measure(st, v.arena(st, v.KMEM_METADATA), out)
        q.measure_chunks(st, out)
        for a in range(v.arena(st, 0), len(st.arena)):
            out[gauge.ENTRIES] += st.arena[a, g.TAGS]
        out[gauge.ENTRY_BYTES] = st.supply[v.TAG_PAGES] * PAGE
        out[gauge.WALKED] = map_walked(st, map_no)


@outlined
def map_paint(st: State, map_no: MapNo, bins: Shares) -> None:
    """Write the occupied share of each of len(bins) equal stretches of map `map_no` (float64, 0 … 1)."""
    g.paint_map(st, map_no, bins)
    if map_no == 0:
        g.erase_vacant(st, map_no, v.arena(st, v.KMEM_VA), bins)
        g.erase_vacant(st, map_no, v.arena(st, v.KMEM_METADATA), bins)
        q.erase_chunks(st, bins, st.arena[map_no, g.BASE], st.arena[map_no, g.TOP])


@kernel
def map_walked(st: State, map_no: MapNo) -> int:
    """Segments that searches of map `map_no` have looked at without taking them at once."""
    walked = st.arena[map_no, g.WALKED]
    if map_no == 0:
        walked += st.arena[v.arena(st, v.KMEM_VA), g.WALKED] + st.arena[v.arena(st, v.KMEM_METADATA), g.WALKED]
    return walked


@kernel
def map_free_bytes(st: State, map_no: MapNo) -> int:
    """Free bytes of map `map_no` in all: in the heap, in kmem_va and in slabs."""
    free = st.arena[map_no, g.FREE_BYTES]
    if map_no == 0:
        a = v.arena(st, v.KMEM_VA)
        free += st.arena[a, g.FREE_BYTES] + st.arena[a, v.SLAB_FREE]
        free += st.arena[v.arena(st, v.KMEM_METADATA), g.FREE_BYTES]
    return free


def census(st: State) -> dict[str, int]:
    """Totals over all maps: tags by where they are, pages of tags, and what kmem_va has of the heap."""
    supply = st.supply
    a = len(st.arena) - v.EXTRA_ARENAS + v.KMEM_VA
    slabs = int(np.count_nonzero(st.slab[:, q.FIRST]))
    return {
        "tags": int(st.arena[:, g.TAGS].sum()),
        "tags_in_hand": int(st.arena[:, g.HAND].sum()),
        "tags_global": int(supply[v.GLOBAL]),
        "tag_pages": int(supply[v.TAG_PAGES]),
        "populates": int(supply[v.POPULATES]),
        "populate_fails": int(supply[v.POPULATE_FAILS]),
        "kmem_va_bytes": _imported(st, v.KMEM_VA),
        "kmem_metadata_bytes": _imported(st, v.KMEM_METADATA),
        "slabs": slabs,
        "slab_free_bytes": int(st.arena[a, v.SLAB_FREE]),
        "walked": int(st.arena[:, g.WALKED].sum()),
    }


def _imported(st: State, which: int) -> int:
    """Bytes that one of the extra arenas has of the heap."""
    return sum(end - start for start, end, _, _ in g.segments(st, len(st.arena) - v.EXTRA_ARENAS + which))


def used(st: State, map_no: int) -> int:
    """Bytes of map `map_no` that are allocated, the tails of slabs among them."""
    return sum(end - start for start, end, _ in ranges(st, map_no))


def ranges(st: State, map_no: int) -> list[tuple[int, int, int]]:
    """(start, end, attribute) of what is allocated of a map, by address; of a slab its ranges in use and its TAIL."""
    found = []
    for start, end, kind, note in g.segments(st, map_no):
        if kind == g.BUSY and note != v.IMPORT:
            found.append((start, end, ATTR_WIRED if note in (v.METADATA, v.OVERSIZE) else note))
    for which in (v.KMEM_VA, v.KMEM_METADATA) if map_no == 0 else ():
        for start, end, kind, note in g.segments(st, len(st.arena) - v.EXTRA_ARENAS + which):
            if kind == g.BUSY:
                found += _chunks(st, start, end) if note == v.SLAB else [(start, end, note)]
    return sorted(found)


def _chunks(st: State, start: int, end: int) -> list[tuple[int, int, int]]:
    """What is not free of a slab."""
    nbytes = int(st.slab[(start >> PAGE_SHIFT) // st.slab_pages, q.CHUNK]) * PAGE
    tail = start + (end - start) // nbytes * nbytes
    taken = [at for at in range(start, tail, nbytes) if not st.link[at >> PAGE_SHIFT]]
    return [(at, at + nbytes, ATTR_WIRED) for at in taken] + ([(tail, end, TAIL)] if tail < end else [])


def check(st: State, map_no: int) -> None:
    """Assert what must hold of map `map_no`, of kmem_va and of the supply of tags (slow, for tests)."""
    kmem_va = len(st.arena) - v.EXTRA_ARENAS + v.KMEM_VA
    for a in (map_no, kmem_va, *([kmem_va - v.KMEM_VA + v.KMEM_METADATA] if st.p.metadata else [])):
        g.check(st, a, list_of=layout.free_list)
    counts, supply = census(st), st.supply
    insist(
        counts["tags"] + counts["tags_in_hand"] + counts["tags_global"] + supply[v.OTHERS] == supply[v.MADE],
        "tags lost",
    )
    insist((st.arena[:, g.HAND] >= 0).all(), "tags in hand miscounted")
    insist(
        entry(map_free_bytes)(st, map_no) + used(st, map_no) == st.arena[map_no, g.TOP] - st.arena[map_no, g.BASE],
        "bytes lost",
    )
    imports = [(b, e) for b, e, kind, note in g.segments(st, 0) if (kind, note) == (g.BUSY, v.IMPORT)]
    insist(
        sum(e - b for b, e in imports) == counts["kmem_va_bytes"] + counts["kmem_metadata_bytes"],
        "kmem_va or kmem_metadata has what the heap did not give",
    )
    slabs = [b for b, _, kind, note in g.segments(st, kmem_va) if (kind, note) == (g.BUSY, v.SLAB)]
    insist(slabs == ((st.slab[st.slab[:, q.FIRST] > 0, q.FIRST] - 1) * PAGE).tolist(), "slabs lost")
    for first, chunk, refcnt, head in st.slab[st.slab[:, q.FIRST] > 0].tolist():
        free = [page for page in range(first - 1, first - 1 + st.slab_pages // chunk * chunk, chunk) if st.link[page]]
        listed, at = [], head
        while at:
            listed.append(at - 1)
            at = int(st.link[at - 1]) - q.LAST
        insist(sorted(listed) == free, "free ranges of a slab are wrong")
        insist(0 < refcnt == st.slab_pages // chunk - len(listed), "slab miscounted")


def _checked(p: Params) -> Params:
    """Raise ValueError for what cannot be."""
    if p.strategy not in (INSTANT_FIT, BEST_FIT, FIRST_FIT, NEXT_FIT):
        raise ValueError(f"strategy is {p.strategy}; it must be 0 (instant), 1 (best), 2 (first) or 3 (next fit)")
    if not 0 <= p.qcache_max <= layout.NQCACHE_MAX:
        raise ValueError(f"qcache_max = {p.qcache_max}: must lie in 0 … {layout.NQCACHE_MAX} pages")
    if not 3 <= p.populators <= layout.INITIAL:
        raise ValueError(f"populators = {p.populators}: must lie in 3 … {layout.INITIAL}")
    for name in ("metadata", "firewall"):
        if getattr(p, name) not in (0, 1):
            raise ValueError(f"{name} = {getattr(p, name)}: must be 0 or 1")
    if not 0 < p.tag_bytes <= 512:
        raise ValueError(f"tag_bytes = {p.tag_bytes}: must lie in 1 … 512")
    return p
