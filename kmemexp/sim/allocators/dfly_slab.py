"""DragonFly's slab allocator: sys/kern/kern_slaballoc.c and sys/sys/slaballoc.h as of 25 October 2003 (81f5fc99).

Each CPU owns zones of 32 to 128 KiB, aligned to their size, each cut into chunks of one of 72 classes, so that a chunk
finds its zone by masking its address. A zone with free chunks is on its CPU's list for the class, last in first out.
Inside a zone freed chunks are kept per page (the page in which they begin); the lowest page is used first, then memory
that was never used, which begins at an index that slides from zone to zone. A chunk freed on another CPU travels to
its owner by IPI. A wholly free zone goes to its CPU's FreeZones if its class has another zone; free() never touches the
map for a zone: a later malloc() that may sleep unmaps what exceeds the threshold. Requests of ZoneLimit bytes or more,
and whole pages, go straight to the map; freed by an interrupt, they wait on FreeOvZones for such a malloc().

Options that the kernel did not have: lists in another order (`slab_order`), and a task that gives the FreeZones of one
CPU after the other back when memory is short (`reap`); a list's only zone is not on FreeZones.

The allocator goes by R_SIZE alone: a zone that it serves passes the size of its items. Left out: the limits of each
malloc type (ks_limit), since a request names no type; M_NULLOK, which no request carries; M_ZERO and the record of what
is still zero; the panic on a corrupted zone; that until 2 October 2003 a 32 KiB zone took chunks of 16 KiB, of which it
holds one, and then handed out memory twice.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim.allocators._shared.dfly_slab_layout import (
    CHUNK,
    MIN_CHUNK_SHIFT,
    MIN_CHUNK_SIZE,
    N_MAX,
    NZONES,
    OFFSET,
    RECIPROCAL,
    RECIPROCAL_SHIFT,
    ZALLOC_MAX_ZONE_SIZE,
    ZALLOC_MIN_ZONE_SIZE,
    ZALLOC_ZONE_LIMIT,
    ZONE_HEADER,
    layout,
    zone_size,
)
from kmemexp.sim.allocators._shared.slab_order import FULLEST, check_order, insert
from kmemexp.sim.asking import ask_unmap, ask_wired
from kmemexp.sim.items import Item
from kmemexp.sim.slots import (
    AGAIN,
    C_MALLOC,
    C_MBUF,
    C_ZONE,
    DONE,
    F_HARD,
    F_NOWAIT,
    F_SOFT,
    FAILED,
    IPI,
    NO_ENTRY,
    NO_SPACE,
    P_ENTRIES,
    P_KERNEL_MAP,
    PAGE,
    PAGE_SHIFT,
    R_ADDR,
    R_BASE,
    R_BYTES,
    R_CPU,
    R_FLAGS,
    R_GRANTED,
    R_LOCK,
    R_LOCKED,
    R_PANIC,
    R_PHASE,
    R_SIZE,
    R_TARGET,
    T_REAP,
)

SERVES = (C_MALLOC, C_ZONE, C_MBUF)  # whatever has a size
LOCKS = ("critical",)
KEEPS = True  # kernel_map is locked inside the critical section
TENDS_IF = "reap"  # parameter without which `tend` does nothing

PAGE_ARY = ZALLOC_MAX_ZONE_SIZE // PAGE  # free lists in a zone's header, whatever the zone's size
ZERO_LENGTH_PTR = -8  # what malloc(0) returns
NIL = -1  # end of a list
# Columns of State.zone.
OWNER = 0  # CPU; NIL: no zone at this address
KLASS = 1
N_FREE = 2
NEXT = 3  # on ZoneAry or FreeZones
PREV = 4  # on ZoneAry
FIRST_FREE_PAGE = 5  # no lower page has a freed chunk
U_INDEX = 6  # chunk last taken from the never used area
U_END = 7  # chunk at which that area ends
LISTED = (NEXT, PREV, N_FREE)  # what a sorted list goes by

# Columns of State.cpu.
FREE_ZONES = 0  # first of the wholly free zones
FREE_ZONES_COUNT = 1
JUNK_INDEX = 2  # where the next zone's never used area begins
FREE_OVER = 3  # first page of the first oversize block that waits to be unmapped (FreeOvZones)

# Columns of State.over, in the row of a block's first page.
OVER_PAGES = 0  # pages of the block (kmemusage)
OVER_NEXT = 1  # on FreeOvZones

# R_PHASE: which map step an operation waits for.
RELEASING = 1  # a zone beyond the threshold is being unmapped
DRAINING = 2  # an oversize block of FreeOvZones is being unmapped
NEW_ZONE = 3
OVERSIZE = 4
REAPING = 5  # FreeZones of CPU R_CPU are given back


class Params(NamedTuple):
    """What a sweep may change, with the values of 2003."""

    zone_bytes: int = 0  # a power of two, 32768 … 131072; 0: by the rule, from the smaller of RAM and KVA
    ram_bytes: int = 0  # physical memory; 0: not smaller than the KVA
    release_threshold: int = 2  # ZONE_RELS_THRESH: wholly free zones that a CPU may keep on FreeZones
    header_bytes: int = ZONE_HEADER  # sizeof(SLZone); 164 on 27 Aug 2003
    slide: int = 20  # ZALLOC_SLAB_SLIDE: how far the first chunk index moves with each zone; 0 until 28 Aug
    free_unmaps: int = 0  # 1: free() itself unmaps a zone beyond the threshold (27 Aug to 25 Sep 2003)
    queue_oversize: int = (
        2  # who queues an oversize free: 0 nobody (until 2 Oct 2003), 1 fast interrupts, 2 all interrupts
    )
    slab_order: int = 0  # which zone of a list is used first: 0 as above, 1 the lowest, 2 the fullest
    reap: int = 0  # 1: short memory makes all CPUs give their FreeZones back


class State(NamedTuple):
    """Zones are numbered by address: zone z lies at z * zone_bytes. Chunks are numbered within their zone."""

    p: Params  # zone_bytes chosen
    map_number: int
    zone_shift: int  # log2 of zone_bytes
    zone_limit: int  # ZoneLimit: requests of this size or more are oversize

    class_of: np.ndarray  # uint8[2049], class by request size in units of 8 bytes, rounded up
    klass: np.ndarray  # int64[72, 4]
    zone: np.ndarray  # int32[zones, 8]
    page_head: np.ndarray  # int16[zones, 32], first freed chunk by page
    link: np.ndarray  # int16[zones, zone_bytes / 8], the freed chunk after this one in its page
    zone_ary: np.ndarray  # int32[cpus, 72], first zone with free chunks
    cpu: np.ndarray  # int64[cpus, 4]
    over: np.ndarray  # int32[kva / 4096, 2]


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Return an allocator without any zone; `items` and `bases` do not matter to it. ValueError: bad parameters."""
    check_order(params.slab_order)
    zone_bytes = params.zone_bytes or zone_size(min(params.ram_bytes or kva_bytes, kva_bytes))
    if zone_bytes & (zone_bytes - 1) or not ZALLOC_MIN_ZONE_SIZE <= zone_bytes <= ZALLOC_MAX_ZONE_SIZE:
        raise ValueError(f"zone_bytes is {zone_bytes}; it must be 0 or a power of two from 32768 to 131072")
    klass = layout(zone_bytes, params.header_bytes)
    units = np.arange(ZALLOC_ZONE_LIMIT // MIN_CHUNK_SIZE + 1) * MIN_CHUNK_SIZE
    zones, pages = -(-kva_bytes // zone_bytes), -(-kva_bytes // PAGE)
    return State(
        p=params._replace(zone_bytes=zone_bytes),
        map_number=map_number,
        zone_shift=zone_bytes.bit_length() - 1,
        zone_limit=min(zone_bytes // 4, ZALLOC_ZONE_LIMIT),
        class_of=np.searchsorted(klass[:, CHUNK], units).astype(np.uint8),
        klass=klass,
        zone=np.full((zones, 8), NIL, np.int32),
        page_head=np.full((zones, PAGE_ARY), NIL, np.int16),
        link=np.zeros((zones, zone_bytes // MIN_CHUNK_SIZE), np.int16),
        zone_ary=np.full((cpus, NZONES), NIL, np.int32),
        cpu=np.tile(np.array([NIL, 0, 0, NIL], np.int64), (cpus, 1)),
        over=np.tile(np.array([0, NIL], np.int32), (pages, 1)),
    )


@kernel
def alloc(st, reg, i):
    """Play one step of a malloc."""
    phase = reg[i, R_PHASE]
    if phase >= NEW_ZONE:
        return _mapped(st, reg, i)
    cpu = reg[i, R_CPU]
    size = reg[i, R_SIZE]
    if size == 0:
        reg[i, R_ADDR] = ZERO_LENGTH_PTR
        reg[i, R_GRANTED] = 0
        return DONE
    if reg[i, R_FLAGS] & F_NOWAIT == 0:
        if phase != DRAINING and st.cpu[cpu, FREE_ZONES_COUNT] > st.p.release_threshold:
            return _release_zone(st, reg, i, RELEASING)
        if st.cpu[cpu, FREE_OVER] != NIL:
            return _release_oversize(st, reg, i)
    if size >= st.zone_limit or size & (PAGE - 1) == 0:
        return ask_wired(reg, i, OVERSIZE, st.map_number, (size + PAGE - 1) & ~(PAGE - 1), PAGE)
    klass = np.int64(st.class_of[(size + MIN_CHUNK_SIZE - 1) >> MIN_CHUNK_SHIFT])
    zone = np.int64(st.zone_ary[cpu, klass])
    if zone != NIL:
        reg[i, R_ADDR] = _take(st, zone, cpu, klass)
        reg[i, R_GRANTED] = st.klass[klass, CHUNK]
        return DONE
    zone = np.int64(st.cpu[cpu, FREE_ZONES])
    if zone == NIL:
        return ask_wired(reg, i, NEW_ZONE, st.map_number, st.p.zone_bytes, st.p.zone_bytes)
    st.cpu[cpu, FREE_ZONES] = st.zone[zone, NEXT]
    st.cpu[cpu, FREE_ZONES_COUNT] -= 1
    return _begin_zone(st, reg, i, zone, klass)


@kernel
def free(st, reg, i):
    """Play one step of a free."""
    if reg[i, R_PHASE] != 0:  # an oversize block has been unmapped
        return DONE
    addr = reg[i, R_ADDR]
    if addr == ZERO_LENGTH_PTR:
        return DONE
    cpu = reg[i, R_CPU]
    zone = addr >> st.zone_shift
    owner = np.int64(st.zone[zone, OWNER])
    if owner == cpu:
        _put(st, reg, i, zone, cpu, addr)
        if st.p.free_unmaps and not reg[i, R_LOCKED] and st.cpu[cpu, FREE_ZONES_COUNT] > st.p.release_threshold:
            return _release_older(st, reg, i)
        return DONE
    if owner == NIL:
        return _free_oversize(st, reg, i)
    reg[i, R_TARGET] = owner
    reg[i, R_FLAGS] |= F_HARD
    return IPI


@kernel
def tend(st, reg, i):
    """Give FreeZones back, of one CPU after the other, each in its critical section."""
    if reg[i, R_PHASE] == 0:
        if reg[i, R_SIZE] != T_REAP or not st.p.reap:
            return DONE
        reg[i, R_PHASE] = REAPING
        reg[i, R_CPU] = 0
    elif st.cpu[reg[i, R_CPU], FREE_ZONES] != NIL:
        reg[i, R_LOCK] = 0
        return _release_zone(st, reg, i, REAPING)
    elif reg[i, R_CPU] + 1 == len(st.cpu):
        return DONE
    else:
        reg[i, R_CPU] += 1
    reg[i, R_LOCK] = 0
    return AGAIN


@kernel
def _take(st, zone, cpu, klass):
    """Address of a chunk from a zone that has one."""
    st.zone[zone, N_FREE] -= 1
    if st.zone[zone, N_FREE] == 0:  # full zones are on no list
        _unlink(st, zone, cpu, klass)
    base = zone << st.zone_shift
    pages = st.p.zone_bytes >> PAGE_SHIFT
    page = np.int64(st.zone[zone, FIRST_FREE_PAGE])
    while page < pages:
        index = np.int64(st.page_head[zone, page])
        if index != NIL:
            st.page_head[zone, page] = st.link[zone, index]
            st.zone[zone, FIRST_FREE_PAGE] = page
            return base + st.klass[klass, OFFSET] + index * st.klass[klass, CHUNK]
        page += 1
    st.zone[zone, FIRST_FREE_PAGE] = pages
    index = np.int64(st.zone[zone, U_INDEX]) + 1
    if index == st.klass[klass, N_MAX]:
        index = 0
    st.zone[zone, U_INDEX] = index
    return base + st.klass[klass, OFFSET] + index * st.klass[klass, CHUNK]


@kernel
def _put(st, reg, i, zone, cpu, addr):
    """Give a chunk back to its zone, on the CPU that owns the zone."""
    klass = np.int64(st.zone[zone, KLASS])
    inside = addr & (st.p.zone_bytes - 1)
    page = inside >> PAGE_SHIFT
    index = ((inside - st.klass[klass, OFFSET]) * st.klass[klass, RECIPROCAL]) >> RECIPROCAL_SHIFT
    st.link[zone, index] = st.page_head[zone, page]
    st.page_head[zone, page] = index
    st.zone[zone, FIRST_FREE_PAGE] = min(st.zone[zone, FIRST_FREE_PAGE], page)
    st.zone[zone, N_FREE] += 1
    if st.zone[zone, N_FREE] == 1:
        _push(st, reg, i, zone, cpu, klass)
    elif st.p.slab_order == FULLEST:
        before, after = np.int64(st.zone[zone, PREV]), np.int64(st.zone[zone, NEXT])
        _unlink(st, zone, cpu, klass)
        _insert(st, reg, i, zone, before, after)
    if st.zone[zone, N_FREE] == st.klass[klass, N_MAX] and (
        st.zone[zone, NEXT] != NIL or st.zone_ary[cpu, klass] != zone
    ):
        _unlink(st, zone, cpu, klass)
        st.zone[zone, NEXT] = st.cpu[cpu, FREE_ZONES]
        st.cpu[cpu, FREE_ZONES] = zone
        st.cpu[cpu, FREE_ZONES_COUNT] += 1


@kernel
def _push(st, reg, i, zone, cpu, klass):
    """Put a zone at the head of a class's list, or where a sorted list wants it."""
    after = np.int64(st.zone_ary[cpu, klass])
    if st.p.slab_order:
        _insert(st, reg, i, zone, NIL, after)
        return
    st.zone[zone, NEXT] = after
    st.zone[zone, PREV] = NIL
    if after != NIL:
        st.zone[after, PREV] = zone
    st.zone_ary[cpu, klass] = zone


@kernel
def _insert(st, reg, i, zone, before, after):
    """Put a zone into its class's sorted list, from between two neighbours on."""
    if insert(st.zone, LISTED, st.p.slab_order, zone, before, after, reg, i) == NIL:
        st.zone_ary[np.int64(st.zone[zone, OWNER]), np.int64(st.zone[zone, KLASS])] = zone


@kernel
def _unlink(st, zone, cpu, klass):
    """Take a zone off a class's list. The kernel walks the list to find it; the order that remains is the same."""
    before = st.zone[zone, PREV]
    after = st.zone[zone, NEXT]
    if before == NIL:
        st.zone_ary[cpu, klass] = after
    else:
        st.zone[before, NEXT] = after
    if after != NIL:
        st.zone[after, PREV] = before


@kernel
def _begin_zone(st, reg, i, zone, klass):
    """Lay out a new or reused zone for a class, put it on the list and serve the request from it."""
    cpu = reg[i, R_CPU]
    first = st.cpu[cpu, JUNK_INDEX] % st.klass[klass, N_MAX]
    st.cpu[cpu, JUNK_INDEX] = (st.cpu[cpu, JUNK_INDEX] + st.p.slide) & (ZALLOC_MAX_ZONE_SIZE - 1)
    st.zone[zone, OWNER] = cpu
    st.zone[zone, KLASS] = klass
    st.zone[zone, N_FREE] = st.klass[klass, N_MAX] - 1
    st.zone[zone, FIRST_FREE_PAGE] = st.p.zone_bytes >> PAGE_SHIFT
    st.zone[zone, U_INDEX] = first
    st.zone[zone, U_END] = first
    st.page_head[zone] = NIL
    _push(st, reg, i, zone, cpu, klass)
    reg[i, R_ADDR] = (zone << st.zone_shift) + st.klass[klass, OFFSET] + first * st.klass[klass, CHUNK]
    reg[i, R_GRANTED] = st.klass[klass, CHUNK]
    return DONE


@kernel
def _mapped(st, reg, i):
    """Go on with what the map has answered to ask_wired."""
    base = reg[i, R_BASE]
    if base < 0:
        if base == NO_ENTRY:
            reg[i, R_PANIC] = P_ENTRIES
        elif base == NO_SPACE and reg[i, R_FLAGS] & F_NOWAIT == 0:
            reg[i, R_PANIC] = P_KERNEL_MAP
        return FAILED
    size = reg[i, R_SIZE]
    if reg[i, R_PHASE] == NEW_ZONE:
        klass = np.int64(st.class_of[(size + MIN_CHUNK_SIZE - 1) >> MIN_CHUNK_SHIFT])
        return _begin_zone(st, reg, i, base >> st.zone_shift, klass)
    st.over[base >> PAGE_SHIFT, OVER_PAGES] = reg[i, R_BYTES] >> PAGE_SHIFT
    reg[i, R_ADDR] = base
    reg[i, R_GRANTED] = reg[i, R_BYTES]
    return DONE


@kernel
def _release_zone(st, reg, i, phase):
    """Unmap the head of FreeZones."""
    cpu = reg[i, R_CPU]
    zone = np.int64(st.cpu[cpu, FREE_ZONES])
    st.cpu[cpu, FREE_ZONES] = st.zone[zone, NEXT]
    st.cpu[cpu, FREE_ZONES_COUNT] -= 1
    st.zone[zone, OWNER] = NIL
    return ask_unmap(reg, i, phase, st.map_number, zone << st.zone_shift, st.p.zone_bytes)


@kernel
def _release_older(st, reg, i):
    """Unmap the zone behind the head of FreeZones, which has just been put there: free() of 27 August 2003.

    The head itself where no zone may be kept.
    """
    cpu = reg[i, R_CPU]
    head = np.int64(st.cpu[cpu, FREE_ZONES])
    zone = np.int64(st.zone[head, NEXT])
    if zone == NIL:
        return _release_zone(st, reg, i, RELEASING)
    st.zone[head, NEXT] = st.zone[zone, NEXT]
    st.cpu[cpu, FREE_ZONES_COUNT] -= 1
    st.zone[zone, OWNER] = NIL
    return ask_unmap(reg, i, RELEASING, st.map_number, zone << st.zone_shift, st.p.zone_bytes)


@kernel
def _free_oversize(st, reg, i):
    """Unmap an oversize block, or put it on FreeOvZones where the caller must not block on the map."""
    page = reg[i, R_ADDR] >> PAGE_SHIFT
    queues = (0, F_HARD, F_SOFT | F_HARD)[st.p.queue_oversize]
    if reg[i, R_FLAGS] & queues == 0:
        return unmap_oversize(st, reg, i, OVERSIZE, page)
    cpu = reg[i, R_CPU]
    st.over[page, OVER_NEXT] = st.cpu[cpu, FREE_OVER]
    st.cpu[cpu, FREE_OVER] = page
    return DONE


@kernel
def _release_oversize(st, reg, i):
    """Unmap the head of FreeOvZones."""
    cpu = reg[i, R_CPU]
    page = st.cpu[cpu, FREE_OVER]
    st.cpu[cpu, FREE_OVER] = st.over[page, OVER_NEXT]
    return unmap_oversize(st, reg, i, DRAINING, page)


@kernel
def unmap_oversize(st, reg, i, phase, page):
    """Unmap an oversize block and forget its page count."""
    nbytes = np.int64(st.over[page, OVER_PAGES]) << PAGE_SHIFT
    st.over[page, OVER_PAGES] = 0
    return ask_unmap(reg, i, phase, st.map_number, page << PAGE_SHIFT, nbytes)


def census(st: State) -> dict[str, int]:
    """Count what the allocator holds.

    `zones`: mapped, among them `idle_zones` on FreeZones; `free_chunks` of the other zones, among them `fresh_chunks`
    never used; `live_bytes`: chunks and blocks handed out; `oversize_pages`: mapped, among them `queued_pages` on
    FreeOvZones; `pages`: all that is mapped.
    """
    idle = members(st.cpu[:, FREE_ZONES], st.zone[:, NEXT])
    mapped = np.flatnonzero(st.zone[:, OWNER] != NIL)
    used = st.zone[np.setdiff1d(mapped, idle)].astype(np.int64)
    klass = st.klass[used[:, KLASS]]
    oversize = st.over[:, OVER_PAGES].sum()
    queued = st.over[members(st.cpu[:, FREE_OVER], st.over[:, OVER_NEXT]), OVER_PAGES].sum()
    counts = {
        "zones": len(mapped),
        "idle_zones": len(idle),
        "free_chunks": used[:, N_FREE].sum(),
        "fresh_chunks": ((used[:, U_END] - used[:, U_INDEX] - 1) % klass[:, N_MAX]).sum(),
        "live_bytes": ((klass[:, N_MAX] - used[:, N_FREE]) * klass[:, CHUNK]).sum() + (oversize - queued) * PAGE,
        "oversize_pages": oversize,
        "queued_pages": queued,
        "pages": len(mapped) * st.p.zone_bytes // PAGE + oversize,
    }
    return {name: int(count) for name, count in counts.items()}


def members(heads: np.ndarray, following: np.ndarray) -> list[int]:
    """List the members of all lists that begin at `heads`."""
    members = []
    for head in heads.tolist():
        at = head
        while at != NIL:
            members.append(at)
            at = int(following[at])
    return members
