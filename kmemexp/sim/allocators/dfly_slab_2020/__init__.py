"""DragonFly's slab allocator as of July 2020: sys/kern/kern_slaballoc.c, sys/sys/slaballoc.h (f875a8ee), x86_64.

Zones, chunk classes and the sliding first index are those of 2003 (`dfly_slab.py`). What has changed since: a zone
keeps one last-in first-out list of freed chunks (2010). A chunk freed on another CPU is pushed on a second list of its
zone without a lock; its owner gets a passive IPI only if that list was empty and the zone has said that it is off its
class's list. The owner takes such chunks over, behind its own, when it hands out its last one, when the IPI comes, and
every 10 s (slab_cleanup(), 2013). Chunks come from the tail of a class's list; new zones, and full ones that get their
first chunk back, go to its head, so that old zones may empty (2015). A wholly free zone goes to its CPU's FreeZones if
its class has another and no IPI is under way to it; the newest is used again, the oldest is unmapped by a malloc() that
may sleep, beyond a threshold that grows with memory and shrinks with CPUs (2020). Requests of 4096 and 8192 bytes use
zones (2007); larger whole pages and what reaches ZoneLimit go to the map. Freed by an interrupt or an interrupt thread,
such a block still waits on FreeOvZones for a malloc() that may sleep, which now unmaps the oldest first.

The allocator goes by regs.SIZE alone, like that of 2003. A zone that has said that it is off its list goes on saying so
when its owner frees into it; only a message, or taking over chunks with the last one, ends that. So the code has it.

Options that the kernel does not have: lists in another order (`slab_order`), and a task that gives the FreeZones of one
CPU after the other back when memory is short (`reap`).

Left out: the limit of a malloc type (`_shared.malloc_types`) where a kind stands for many; M_NULLOK, M_POWEROF2,
M_CACHEALIGN, M_ZERO; the bitmaps of INVARIANTS kernels;
the instants between the instructions of a lock-free push. A passive IPI costs what any does, though it waits for the
target's next poll. slab_cleanup() runs on one CPU for all, a step for each, not in a callout on each. The object's lock
is taken once for all pages of a request, not again for each entry in the page tables.
"""

from collections.abc import Sequence

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, Registers
from kmemexp.sim.allocators._shared import dfly_zones, malloc_types
from kmemexp.sim.allocators._shared.dfly_slab_layout import (
    CHUNK,
    MIN_CHUNK_SHIFT,
    MIN_CHUNK_SIZE,
    NZONES,
    chosen_zone_size,
    class_sizes,
    class_table,
)
from kmemexp.sim.allocators._shared.dfly_zones import (
    DRAINING,
    FREE_OVER,
    FREE_ZONES,
    FREE_ZONES_COUNT,
    JUNK_INDEX,
    NEW_ZONE,
    NIL,
    OVER_NEXT,
    OVERSIZE,
    OWNER,
    RELEASING,
    UNMAP_BLOCK,
    ZERO_LENGTH_PTR,
    ask_oversize,
    class_of,
    due,
    oversize_mapped,
    release_oversize,
    unmap_oversize,
    unmap_zone,
)
from kmemexp.sim.allocators._shared.malloc_types import at_limit, die, gave, took, took_fast
from kmemexp.sim.allocators._shared.slab_order import check_order
from kmemexp.sim.allocators.dfly_slab_2020 import zones
from kmemexp.sim.allocators.dfly_slab_2020.state import ZONE_HEADER, Params, State, release_threshold
from kmemexp.sim.allocators.dfly_slab_2020.zones import (
    begin_zone,
    is_last,
    off_free_zones,
    put,
    put_remote,
    put_unsorted,
    signalled,
    sweep,
    take,
    take_local,
    tells,
)
from kmemexp.sim.asking import ask_wired, hand_out, refused
from kmemexp.sim.items import Item
from kmemexp.sim.map_calls import KMEM_FREE_5
from kmemexp.sim.slots import AGAIN, CLASS_MALLOC, CLASS_MBUF, CLASS_ZONE, DONE, IPI, PAGE, PAGE_SHIFT, TEND_TICK
from kmemexp.sim.tables import flag, obj, panics, regs
from kmemexp.sim.widths import wide

SERVES = (CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF)  # whatever has a size
LIMITS_TYPES = 1  # of malloc
LOCKS = ("critical",)
# As in 2003, but the map's lock is given back before pages are taken, under kernel_object's, and TLBs are flushed once
# at the end.
CALLS = (
    "keep lock space unlock object pages unobject enter flush",
    f"keep {KMEM_FREE_5} leave",
    "space pages enter",
    "section leave section lock space unlock object pages unobject leave enter flush section leave",
    f"section {KMEM_FREE_5} leave",
)
TICK_NS = 10_000_000_000  # slab_cleanup()
caches = dfly_zones.caches


# Further phases. `kmalloc_obj` begins its own at 16.
SIGNALLED = OVERSIZE + 1  # the IPI of a free
SWEEPING = OVERSIZE + 2  # slab_cleanup() of CPU regs.CPU
REAPING = OVERSIZE + 3  # its FreeZones are given back


def layout(zone_bytes: int, header_bytes: int = ZONE_HEADER) -> Array:
    """Build the table of classes, int64[72, 3].

    Chunks of a power of two are aligned to their size, others to the step in which their class grows.
    """
    return class_table(zone_bytes, header_bytes, *class_sizes())


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Return an allocator without any zone; `items` and `bases` do not matter to it. ValueError: bad parameters."""
    check_order(params.slab_order)
    limit = min(params.ram_bytes or kva_bytes, kva_bytes)
    zone_bytes = chosen_zone_size(params.zone_bytes, limit)
    threshold = params.release_threshold if params.release_threshold >= 0 else release_threshold(limit, cpus)
    cpu = np.full((cpus, zones.CPU_COLUMNS), NIL, np.int64)
    cpu[:, [FREE_ZONES_COUNT, JUNK_INDEX]] = 0
    shared = dfly_zones.fields(zone_bytes, kva_bytes, layout(zone_bytes, params.header_bytes), zones.ZONE_COLUMNS)
    # A link is written before it is read.
    link = demand.scattered((len(shared["zone"]), zone_bytes // MIN_CHUNK_SIZE), np.int16)
    return State(
        p=params._replace(zone_bytes=zone_bytes, release_threshold=threshold),
        map_number=map_number,
        zone_first=np.full((cpus, NZONES), NIL, np.int32),
        zone_last=np.full((cpus, NZONES), NIL, np.int32),
        cpu=cpu,
        types=malloc_types.table(params.malloc_types, params.malloc_type_bytes),
        link=link,
        **shared,
    )


@kernel
def oversize(st: State, size: Bytes) -> bool:
    """Whether a request goes straight to the map."""
    return size >= st.zone_limit or (size & (PAGE - 1) == 0 and size > 2 * PAGE)


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Play one step of a kmalloc."""
    if reg[i, regs.PHASE] == 0 and at_limit(st, reg[i, regs.ITEM]):
        return die(reg, i)
    return took(st, reg, i, _alloc(st, reg, i))


@kernel
def _alloc(st: State, reg: Registers, i: int) -> int:
    if reg[i, regs.PHASE] >= NEW_ZONE:
        return _mapped(st, reg, i)
    cpu = reg[i, regs.CPU]
    size = reg[i, regs.SIZE]
    if size == 0:
        return hand_out(reg, i, ZERO_LENGTH_PTR, 0)
    first = due(st, cpu, reg[i, regs.FLAGS], reg[i, regs.PHASE])
    if first == RELEASING:
        return _release_zone(st, reg, i, RELEASING)
    if first == DRAINING:
        return release_oversize(st, reg, i)
    if oversize(st, size):
        return ask_oversize(st, reg, i)
    klass = class_of(st, size)
    zone = wide(st.zone_last[cpu, klass])
    if zone != NIL:
        return take(st, reg, i, zone, klass)
    if st.cpu[cpu, FREE_ZONES] == NIL:
        return ask_wired(reg, i, NEW_ZONE, st.map_number, st.p.zone_bytes, st.p.zone_bytes)
    zone = st.cpu[cpu, FREE_ZONES]
    off_free_zones(st, cpu, zone)
    return begin_zone(st, reg, i, zone, klass)


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Play one step of a kfree."""
    return gave(st, reg, i, _free(st, reg, i), _rounded(st, reg[i, regs.SIZE]))


@kernel
def _rounded(st: State, size: Bytes) -> Bytes:
    """Bytes granted for a request."""
    if oversize(st, size):
        return (size + PAGE - 1) & -PAGE
    return wide(st.klass[class_of(st, size), CHUNK]) if size > 0 else 0


@kernel
def _free(st: State, reg: Registers, i: int) -> int:
    phase = reg[i, regs.PHASE]
    addr = reg[i, regs.ADDR]
    if phase == SIGNALLED:
        return signalled(st, reg, i, addr >> st.zone_shift)
    if phase != 0 or addr == ZERO_LENGTH_PTR:  # phase: an oversize block has been unmapped
        reg[i, regs.BARE] = 1
        return DONE
    cpu = reg[i, regs.CPU]
    zone = addr >> st.zone_shift
    unit = (addr & (st.p.zone_bytes - 1)) >> MIN_CHUNK_SHIFT
    owner = wide(st.zone[zone, OWNER]) - 1
    if owner == cpu:
        put(st, reg, i, zone, unit)
        return DONE
    if owner == NIL:
        return _free_oversize(st, reg, i)
    told = tells(st, zone)
    put_remote(st, zone, unit)
    if not told:
        return DONE
    st.zone[zone, zones.IN_FLIGHT] += 1
    reg[i, regs.TARGET] = owner
    reg[i, regs.FLAGS] |= flag.HARD
    reg[i, regs.PHASE] = SIGNALLED
    return IPI


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Take a chunk of the last zone of the class, unless something must go back to the map or be taken over before."""
    if size == 0 or oversize(st, size) or due(st, cpu, flags, 0) or at_limit(st, item):
        return obj.ABSENT, 0
    klass = class_of(st, size)
    zone = wide(st.zone_last[cpu, klass])
    if zone == NIL or (is_last(st, zone) and st.zone[zone, zones.REMOTE] > 0):
        return obj.ABSENT, 0
    took_fast(st, item, st.klass[klass, CHUNK])
    return take_local(st, zone, cpu, klass), st.klass[klass, CHUNK]


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Give a chunk back to its zone, where its owner need not be told, and lists are in their own order."""
    if st.p.slab_order or addr < 0 or at_limit(st, item):
        return False
    zone = addr >> st.zone_shift
    owner, unit = wide(st.zone[zone, OWNER]) - 1, (addr & (st.p.zone_bytes - 1)) >> MIN_CHUNK_SHIFT
    if owner == cpu:
        put_unsorted(st, zone, cpu, unit)
        took_fast(st, item, -_rounded(st, size))
        return True
    if owner == NIL or tells(st, zone):
        return False
    took_fast(st, item, -_rounded(st, size))
    put_remote(st, zone, unit)
    return True


@kernel
def tend(st: State, reg: Registers, i: int) -> int:
    """Play one step of slab_cleanup(), for one CPU after the other. Short memory changes nothing by itself."""
    reg[i, regs.LOCK] = 0
    if reg[i, regs.PHASE] == 0:
        if reg[i, regs.SIZE] != TEND_TICK and not st.p.reap:
            return DONE
        reg[i, regs.PHASE] = SWEEPING if reg[i, regs.SIZE] == TEND_TICK else REAPING
        reg[i, regs.CPU] = 0
        return AGAIN
    if reg[i, regs.PHASE] == SWEEPING:
        sweep(st, reg, i)
    elif st.cpu[reg[i, regs.CPU], FREE_ZONES] != NIL:
        return _release_zone(st, reg, i, REAPING)
    if reg[i, regs.CPU] + 1 == st.cpu.shape[0]:
        return DONE
    reg[i, regs.CPU] += 1
    return AGAIN


@kernel
def _mapped(st: State, reg: Registers, i: int) -> int:
    """Go on with what the map has answered to ask_wired."""
    base = reg[i, regs.BASE]
    if base < 0:
        return refused(reg, i, panics.KERNEL_MAP)
    if reg[i, regs.PHASE] == NEW_ZONE:
        return begin_zone(st, reg, i, base >> st.zone_shift, class_of(st, reg[i, regs.SIZE]))
    return oversize_mapped(st, reg, i)


@kernel
def _release_zone(st: State, reg: Registers, i: int, phase: int) -> int:
    """Unmap the oldest of FreeZones."""
    zone = st.cpu[reg[i, regs.CPU], zones.FREE_ZONES_LAST]
    off_free_zones(st, reg[i, regs.CPU], zone)
    return unmap_zone(st, reg, i, phase, zone)


@kernel
def _free_oversize(st: State, reg: Registers, i: int) -> int:
    """Unmap an oversize block, or put it on FreeOvZones where the caller must not block on the map."""
    page = reg[i, regs.ADDR] >> PAGE_SHIFT
    if reg[i, regs.FLAGS] & (flag.SOFT | flag.HARD) == 0:
        reg[i, regs.CALL] = UNMAP_BLOCK
        return unmap_oversize(st, reg, i, OVERSIZE, page)
    cpu = reg[i, regs.CPU]
    st.over[page, OVER_NEXT] = NIL
    if st.cpu[cpu, FREE_OVER] == NIL:
        st.cpu[cpu, FREE_OVER] = page
    else:
        st.over[st.cpu[cpu, zones.FREE_OVER_LAST], OVER_NEXT] = page
    st.cpu[cpu, zones.FREE_OVER_LAST] = page
    return DONE


def census(st: State) -> dict[str, int]:
    """Count what the allocator holds.

    `zones`: mapped, among them `idle_zones` on FreeZones; `free_chunks` of the other zones, among them `fresh_chunks`
    never used; `remote_chunks`: besides, freed on other CPUs and not yet taken over; `live_bytes`: chunks and blocks
    handed out; `oversize_pages`: mapped, among them `queued_pages` on FreeOvZones; `pages`: all that is mapped.
    """
    return dfly_zones.count(st, zones.REMOTE)
