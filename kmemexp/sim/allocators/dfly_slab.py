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

The allocator goes by regs.SIZE alone: a zone that it serves passes the size of its items. Left out: the limit of a
malloc type (`_shared.malloc_types`) where a kind stands for many; M_NULLOK; M_ZERO and its record; the panic on a
corrupted zone; that until 2 October 2003 a 32 KiB zone took chunks of 16 KiB, of which it holds one, and then handed
out memory twice.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, Registers, Table, Words
from kmemexp.sim.allocators._shared import dfly_slab_layout, dfly_zones, malloc_types
from kmemexp.sim.allocators._shared.dfly_release import free_oversize, pop_free_zone, release_older, release_zone
from kmemexp.sim.allocators._shared.dfly_slab_layout import chosen_zone_size, class_sizes, class_table
from kmemexp.sim.allocators._shared.dfly_zones import (
    ask_oversize,
    chunk_at,
    class_of,
    count,
    due,
    fields,
    fresh_chunk,
    lay_out,
    oversize_mapped,
    release_oversize,
)
from kmemexp.sim.allocators._shared.malloc_types import at_limit, die, gave, took, took_fast
from kmemexp.sim.allocators._shared.slab_lists import enter, gained, leave, push
from kmemexp.sim.allocators._shared.slab_order import check_order
from kmemexp.sim.asking import ask_wired, go_on, hand_out, refused
from kmemexp.sim.items import Item
from kmemexp.sim.map_calls import KMEM_FREE, KMEM_MALLOC
from kmemexp.sim.slots import CLASS_MALLOC, CLASS_MBUF, CLASS_ZONE, DONE, IPI, PAGE, PAGE_SHIFT, TEND_REAP
from kmemexp.sim.tables import flag, obj, panics, regs
from kmemexp.sim.widths import wide

SERVES = (CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF)  # whatever has a size
LIMITS_TYPES = 1  # of malloc
LOCKS = ("critical",)
# kmem_slab_alloc(), kmem_slab_free(). A zone is made inside the section of malloc(); a drain leaves its section after
# each zone or block. What goes straight to the map has sections of its own: reserving map entries, from the search to
# the last page, releasing entries.
CALLS = (
    f"keep {KMEM_MALLOC}",
    f"keep {KMEM_FREE} leave",
    "space pages enter",
    "section leave section lock space pages leave enter unlock section leave",
    f"section {KMEM_FREE} leave",
    f"keep {KMEM_FREE}",  # free() of August 2003
)
TENDS_IF = "reap"  # parameter without which `tend` does nothing
caches = dfly_zones.caches

ZONE_HEADER = 176  # sizeof(SLZone) on the i386 since 28 August 2003
PAGE_ARY = dfly_slab_layout.ZALLOC_MAX_ZONE_SIZE // PAGE  # free lists in a zone's header, whatever the zone's size

# A further column of State.klass.
RECIPROCAL = 3  # of the chunk's size: spares free() a division
RECIPROCAL_SHIFT = 32  # exact for every offset in a zone

# A further column of State.zone. FreeZones are linked by NEXT alone.
FIRST_FREE_PAGE = dfly_zones.ZONE_COLUMNS  # no lower page has a freed chunk
LISTED = (dfly_zones.NEXT, dfly_zones.PREV, dfly_zones.N_FREE)  # what a list goes by

# A further regs.PHASE.
REAPING = dfly_zones.OVERSIZE + 1  # FreeZones of CPU regs.CPU are given back


class Params(NamedTuple):
    """What a sweep may change, with the values of 2003."""

    zone_bytes: int = 0  # a power of two, 32768 … 131072; 0: by the rule, from the smaller of RAM and KVA
    ram_bytes: int = 0  # physical memory; 0: not smaller than the KVA
    release_threshold: int = 2  # ZONE_RELS_THRESH: wholly free zones that a CPU may keep on FreeZones
    header_bytes: int = ZONE_HEADER  # sizeof(SLZone); 164 on 27 Aug 2003
    slide: int = 20  # ZALLOC_SLAB_SLIDE: how far the first chunk index moves with each zone; 0 until 28 Aug
    free_unmaps: int = 0  # 1: free() unmaps the zone that is just beyond the threshold (27 Aug to 25 Sep 2003)
    queue_oversize: int = (
        2  # who queues an oversize free: 0 nobody (until 2 Oct 2003), 1 fast interrupts, 2 all interrupts
    )
    slab_order: int = 0  # which zone of a list is used first: 0 as above, 1 the lowest, 2 the fullest
    reap: int = 0  # 1: short memory makes all CPUs give their FreeZones back
    malloc_types: int = 0  # types that the roles of the load's kinds name; 0: of the load
    malloc_type_bytes: int = 0  # limit of each; 0: the kernel's own


class State(NamedTuple):
    """Zones are numbered by address: zone z lies at z * zone_bytes. Chunks are numbered within their zone."""

    p: Params  # zone_bytes chosen
    map_number: int
    zone_shift: int  # log2 of zone_bytes
    zone_limit: int  # ZoneLimit: requests of this size or more are oversize

    class_of: Words  # uint8[2049], class by request size in units of 8 bytes, rounded up
    klass: Table  # int64[72, 4]
    zone: Table  # int32[zones, 8]
    page_head: Table  # int16[zones, 32], first freed chunk by page
    link: Table  # int16[zones, zone_bytes / 8], the freed chunk after this one in its page
    types: Table  # int64[types + 1, 2], malloc types and their limits
    zone_ary: Table  # int32[cpus, 72], first zone with free chunks
    cpu: Table  # int64[cpus, 4]
    over: Table  # int32[kva / 4096, 2]


def layout(zone_bytes: int, header_bytes: int = ZONE_HEADER) -> Array:
    """Build the table of classes, int64[72, 4].

    Chunks of a power of two are aligned to their size, others to 8 bytes.
    """
    chunk, _ = class_sizes()
    table = class_table(zone_bytes, header_bytes, chunk, dfly_slab_layout.MIN_CHUNK_SIZE)
    return np.column_stack([table, (1 << RECIPROCAL_SHIFT) // chunk + 1])


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Return an allocator without any zone; `items` and `bases` do not matter to it. ValueError: bad parameters."""
    check_order(params.slab_order)
    zone_bytes = chosen_zone_size(params.zone_bytes, min(params.ram_bytes or kva_bytes, kva_bytes))
    shared = fields(zone_bytes, kva_bytes, layout(zone_bytes, params.header_bytes), dfly_zones.ZONE_COLUMNS + 1)
    cpu = np.zeros((cpus, dfly_zones.CPU_COLUMNS), np.int64)
    cpu[:, [dfly_zones.FREE_ZONES, dfly_zones.FREE_OVER]] = dfly_zones.NIL
    return State(
        p=params._replace(zone_bytes=zone_bytes),
        map_number=map_number,
        page_head=demand.empty((len(shared["zone"]), PAGE_ARY), np.int16),
        zone_ary=np.full((cpus, dfly_slab_layout.NZONES), dfly_zones.NIL, np.int32),
        cpu=cpu,
        types=malloc_types.table(params.malloc_types, params.malloc_type_bytes),
        link=demand.scattered((len(shared["zone"]), zone_bytes // dfly_slab_layout.MIN_CHUNK_SIZE), np.int16),
        **shared,
    )


@kernel
def oversize(st: State, size: Bytes) -> bool:
    """Whether a request goes straight to the map."""
    return size >= st.zone_limit or size & (PAGE - 1) == 0


@kernel
def _due(st: State, cpu: int, flags: int, phase: int) -> int:
    """What a malloc() gives back first; where free() unmaps zones (August 2003), malloc() does not."""
    first = due(st, cpu, flags, phase)
    if first != dfly_zones.RELEASING or not st.p.free_unmaps:
        return first
    return dfly_zones.DRAINING if st.cpu[cpu, dfly_zones.FREE_OVER] != dfly_zones.NIL else 0


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Play one step of a malloc."""
    if reg[i, regs.PHASE] == 0 and at_limit(st, reg[i, regs.ITEM]):
        return die(reg, i)
    return took(st, reg, i, _alloc(st, reg, i))


@kernel
def _alloc(st: State, reg: Registers, i: int) -> int:
    if reg[i, regs.PHASE] >= dfly_zones.NEW_ZONE:
        return _mapped(st, reg, i)
    cpu = reg[i, regs.CPU]
    size = reg[i, regs.SIZE]
    if size == 0:
        return hand_out(reg, i, dfly_zones.ZERO_LENGTH_PTR, 0)
    first = _due(st, cpu, reg[i, regs.FLAGS], reg[i, regs.PHASE])
    if first == dfly_zones.RELEASING:
        return release_zone(st, reg, i, dfly_zones.RELEASING)
    if first == dfly_zones.DRAINING:
        return release_oversize(st, reg, i)
    if oversize(st, size):
        return ask_oversize(st, reg, i)
    klass = class_of(st, size)
    zone = wide(st.zone_ary[cpu, klass])
    if zone != dfly_zones.NIL:
        return hand_out(reg, i, _take(st, zone, cpu, klass), st.klass[klass, dfly_slab_layout.CHUNK])
    if st.cpu[cpu, dfly_zones.FREE_ZONES] == dfly_zones.NIL:
        return ask_wired(reg, i, dfly_zones.NEW_ZONE, st.map_number, st.p.zone_bytes, st.p.zone_bytes)
    return _begin_zone(st, reg, i, pop_free_zone(st, cpu), klass)


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Play one step of a free."""
    return gave(st, reg, i, _free(st, reg, i), _rounded(st, reg[i, regs.SIZE]))


@kernel
def _rounded(st: State, size: Bytes) -> Bytes:
    """Bytes granted for a request."""
    if oversize(st, size):
        return (size + PAGE - 1) & -PAGE
    return wide(st.klass[class_of(st, size), dfly_slab_layout.CHUNK])


@kernel
def _free(st: State, reg: Registers, i: int) -> int:
    if reg[i, regs.PHASE] != 0:  # an oversize block or a zone has been unmapped
        reg[i, regs.BARE] = 1
        return DONE
    addr = reg[i, regs.ADDR]
    if addr == dfly_zones.ZERO_LENGTH_PTR:
        return DONE
    cpu = reg[i, regs.CPU]
    zone = addr >> st.zone_shift
    owner = wide(st.zone[zone, dfly_zones.OWNER]) - 1
    if owner == cpu:
        klass = _put(st, zone, addr)
        _relist(st, reg, i, zone, cpu, klass)
        _retire(st, zone, cpu, klass)
        if (
            st.p.free_unmaps
            and not reg[i, regs.LOCKED]
            and st.cpu[cpu, dfly_zones.FREE_ZONES_COUNT] == st.p.release_threshold + 1
        ):
            return release_older(st, reg, i)
        return DONE
    if owner == dfly_zones.NIL:
        return free_oversize(st, reg, i)
    reg[i, regs.TARGET] = owner
    reg[i, regs.FLAGS] |= flag.HARD
    return IPI


@kernel
def tend(st: State, reg: Registers, i: int) -> int:
    """Give FreeZones back, of one CPU after the other, each in its critical section."""
    if reg[i, regs.PHASE] == 0:
        if reg[i, regs.SIZE] != TEND_REAP or not st.p.reap:
            return DONE
        reg[i, regs.CPU] = 0
    elif st.cpu[reg[i, regs.CPU], dfly_zones.FREE_ZONES] != dfly_zones.NIL:
        reg[i, regs.LOCK] = 0
        return release_zone(st, reg, i, REAPING)
    elif reg[i, regs.CPU] + 1 == len(st.cpu):
        return DONE
    else:
        reg[i, regs.CPU] += 1
    return go_on(reg, i, REAPING, 0)


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Take a chunk of the first zone of the class, unless something must go back to the map before."""
    if oversize(st, size) or _due(st, cpu, flags, 0) or at_limit(st, item):
        return obj.ABSENT, 0
    klass = class_of(st, size)
    zone = wide(st.zone_ary[cpu, klass])
    if zone == dfly_zones.NIL:
        return obj.ABSENT, 0
    took_fast(st, item, st.klass[klass, dfly_slab_layout.CHUNK])
    return _take(st, zone, cpu, klass), st.klass[klass, dfly_slab_layout.CHUNK]


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Give a chunk back to a zone of the CPU, where lists are in their own order and free() unmaps nothing."""
    zone = addr >> st.zone_shift
    if st.p.slab_order or st.p.free_unmaps or addr < 0 or st.zone[zone, dfly_zones.OWNER] != cpu + 1:
        return False
    if at_limit(st, item):
        return False
    klass = _put(st, zone, addr)
    took_fast(st, item, -st.klass[klass, dfly_slab_layout.CHUNK])
    if st.zone[zone, dfly_zones.N_FREE] == 1:
        _enter_first(st, zone, cpu, klass)
    _retire(st, zone, cpu, klass)
    return True


@kernel
def _take(st: State, zone: int, cpu: int, klass: int) -> int:
    """Address of a chunk from a zone that has one."""
    st.zone[zone, dfly_zones.N_FREE] -= 1
    if st.zone[zone, dfly_zones.N_FREE] == 0:  # full zones are on no list
        _unlink(st, zone, cpu, klass)
    pages = st.p.zone_bytes >> PAGE_SHIFT
    page = wide(st.zone[zone, FIRST_FREE_PAGE])
    while page < pages:
        index = wide(st.page_head[zone, page])
        if index != dfly_zones.NIL:
            st.page_head[zone, page] = st.link[zone, index]
            st.zone[zone, FIRST_FREE_PAGE] = page
            return chunk_at(st, zone, klass, index)
        page += 1
    st.zone[zone, FIRST_FREE_PAGE] = pages
    return fresh_chunk(st, zone, klass)


@kernel
def _put(st: State, zone: int, addr: Address) -> int:
    """Give a chunk back to its zone. Returns the zone's class."""
    klass = wide(st.zone[zone, dfly_zones.KLASS])
    inside = addr & (st.p.zone_bytes - 1)
    page = inside >> PAGE_SHIFT
    index = ((inside - st.klass[klass, dfly_slab_layout.OFFSET]) * st.klass[klass, RECIPROCAL]) >> RECIPROCAL_SHIFT
    st.link[zone, index] = st.page_head[zone, page]
    st.page_head[zone, page] = index
    st.zone[zone, FIRST_FREE_PAGE] = min(st.zone[zone, FIRST_FREE_PAGE], page)
    st.zone[zone, dfly_zones.N_FREE] += 1
    return klass


@kernel
def _relist(st: State, reg: Registers, i: int, zone: int, cpu: int, klass: int) -> None:
    """Put a zone that has got a chunk back where it belongs in its class's list."""
    if st.zone[zone, dfly_zones.N_FREE] == 1:
        _enter(st, reg, i, zone, cpu, klass)
    else:
        first = wide(st.zone_ary[cpu, klass])
        st.zone_ary[cpu, klass] = gained(reg, i, st.zone, LISTED, st.p.slab_order, zone, first)


@kernel
def _retire(st: State, zone: int, cpu: int, klass: int) -> None:
    """Put a zone on FreeZones if it is wholly free, and its class has another."""
    if st.zone[zone, dfly_zones.N_FREE] == st.klass[klass, dfly_slab_layout.N_MAX] and (
        st.zone[zone, dfly_zones.NEXT] != dfly_zones.NIL or st.zone_ary[cpu, klass] != zone
    ):
        _unlink(st, zone, cpu, klass)
        st.zone[zone, dfly_zones.NEXT] = st.cpu[cpu, dfly_zones.FREE_ZONES]
        st.cpu[cpu, dfly_zones.FREE_ZONES] = zone
        st.cpu[cpu, dfly_zones.FREE_ZONES_COUNT] += 1


@kernel
def _enter(st: State, reg: Registers, i: int, zone: int, cpu: int, klass: int) -> None:
    """Put a zone at the head of a class's list, or where a sorted list wants it."""
    first = wide(st.zone_ary[cpu, klass])
    st.zone_ary[cpu, klass] = enter(reg, i, st.zone, LISTED, st.p.slab_order, zone, first)


@kernel
def _enter_first(st: State, zone: int, cpu: int, klass: int) -> None:
    """Put a zone at the head of a class's list, which has its own order."""
    push(st.zone, LISTED, zone, wide(st.zone_ary[cpu, klass]))
    st.zone_ary[cpu, klass] = zone


@kernel
def _unlink(st: State, zone: int, cpu: int, klass: int) -> None:
    """Take a zone off a class's list. The kernel walks the list to find it; the order that remains is the same."""
    st.zone_ary[cpu, klass] = leave(st.zone, LISTED, zone, wide(st.zone_ary[cpu, klass]))


@kernel
def _begin_zone(st: State, reg: Registers, i: int, zone: int, klass: int) -> int:
    """Serve a request from a new or reused zone, and put that on the list."""
    answer = lay_out(st, reg, i, zone, klass)
    st.zone[zone, FIRST_FREE_PAGE] = st.p.zone_bytes >> PAGE_SHIFT
    st.page_head[zone] = dfly_zones.NIL
    _enter(st, reg, i, zone, reg[i, regs.CPU], klass)
    return answer


@kernel
def _mapped(st: State, reg: Registers, i: int) -> int:
    """Go on with what the map has answered to ask_wired."""
    base = reg[i, regs.BASE]
    if base < 0:
        return refused(reg, i, panics.KERNEL_MAP)
    if reg[i, regs.PHASE] == dfly_zones.NEW_ZONE:
        return _begin_zone(st, reg, i, base >> st.zone_shift, class_of(st, reg[i, regs.SIZE]))
    return oversize_mapped(st, reg, i)


def census(st: State) -> dict[str, int]:
    """Count what the allocator holds.

    `zones`: mapped, among them `idle_zones` on FreeZones; `free_chunks` of the other zones, among them `fresh_chunks`
    never used; `live_bytes`: chunks and blocks handed out; `oversize_pages`: mapped, among them `queued_pages` on
    FreeOvZones; `pages`: all that is mapped.
    """
    return count(st)
