"""Slabs by need: DragonFly's slab allocator whose zones are as large as a class needs them. Ours; no kernel has it.

What it does is that of kern_slaballoc.c of October 2003 (`dfly_slab.py`): zones of one CPU and class, chunks by page in
them, frees that travel to their owner, FreeZones that a later malloc() gives back. Four things differ.

1. *Size by need.* A zone has 4 to 128 KiB (`least_bytes`, `most_bytes`): twice as much as before when its class has
   `grow` such zones in live bytes on this CPU, half as much when it has less than `shrink` zones of the present size.
   Between the two nothing changes, so that a class at the border does not swing. Where the size would leave more than
   an eighth of a zone unused (KMEM_VOID_FRACTION of illumos) a class begins with a larger one. A chunk finds its zone
   by a table of pages, as blocks do in kmemusage, for zones have no common size to mask with.
2. *No zone for nothing.* A class's only zone goes to FreeZones when it is wholly free; `keep_last` keeps it, as the
   real kernel does.
3. *Release by superpage* (`drain`). Zones in superpages in which the allocator holds much are used first, those in
   others go back first. It knows what it holds itself, not what else lies there. That is counted when a zone or block
   is mapped or unmapped, not at each chunk, for CPUs would fight for such counts. With `trim_percent` a tick
   gives all wholly free zones back when one was mapped where the allocator holds little: a superpage was opened, or
   begins to fill, and what goes back serves what comes next. Once in `trim_ticks`, as illumos holds kmem_reap() back.
4. *Evacuation* (`movable`, `moves`; `evacuation.py`). Chunks of kinds that can be moved, in zones of their own, leave
   zones that are nearly empty, some per tick. Which kinds have such callbacks is an ASSUMPTION: in illumos about 15 of
   200 caches do; `movable=1` takes all zones and no malloc(), which is more than any kernel has.

As in `dfly_slab` a reap, and here a tick, visit all CPUs' lists without messages to them. Left out beyond what is left
out there: splitting a wholly free zone for a smaller one; moving whole zones.
"""

import functools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, Registers
from kmemexp.sim.allocators import dfly_slab
from kmemexp.sim.allocators._shared import dfly_slab_layout, dfly_zones
from kmemexp.sim.allocators._shared.dfly_slab_layout import class_by_units, class_sizes, class_table
from kmemexp.sim.allocators._shared.dfly_zones import ask_oversize, class_of, count, due, oversize_mapped
from kmemexp.sim.allocators.slab_by_need import state as u
from kmemexp.sim.allocators.slab_by_need.evacuation import tend_step
from kmemexp.sim.allocators.slab_by_need.idle import pop, release, unmap_block
from kmemexp.sim.allocators.slab_by_need.state import Params, State
from kmemexp.sim.allocators.slab_by_need.zones import (
    NZONES,
    begin_zone,
    choose,
    enter_pages,
    hold,
    level_for,
    list_of,
    opens,
    put,
    relist,
    take,
)
from kmemexp.sim.asking import ask_wired, hand_out, refused
from kmemexp.sim.items import Item
from kmemexp.sim.slots import CLASS_MALLOC, CLASS_MBUF, CLASS_ZONE, DONE, IPI, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import flag, obj, panics, regs
from kmemexp.sim.widths import wide

SERVES = (CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF)
LOCKS = ("critical",)
CALLS = dfly_slab.CALLS
TICK_NS = 1_000_000_000
I386_SUPERPAGE = 4 << 20
RANGES = (
    ("drain", 0, 1),
    ("keep_last", 0, 1),
    ("movable", 0, 2),
    ("sparse_percent", 1, 100),
    ("trim_percent", 0, 100),
)
VOID_FRACTION = 8  # of a zone, at most one byte in so many is unused


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Return an allocator without any zone; `items` and `bases` do not matter to it. ValueError: bad parameters."""
    params = params._replace(superpage_bytes=params.superpage_bytes or I386_SUPERPAGE)
    _check(params)
    demand.check_kva(kva_bytes)
    pages = -(-kva_bytes // PAGE) + (dfly_slab_layout.ZALLOC_MAX_ZONE_SIZE >> PAGE_SHIFT)
    words = PAGE // dfly_slab_layout.MIN_CHUNK_SIZE
    names = demand.names(pages)
    klass = _layouts(params.header_bytes)
    bounds = _bounds(params, klass)
    dense = np.zeros((cpus, u.LISTS * NZONES, u.DENSE_COLUMNS), np.int64)
    dense[:, :, u.CHOSEN] = np.tile(bounds[:, 0], u.LISTS)
    cpu = np.zeros((cpus, dfly_zones.CPU_COLUMNS), np.int64)
    cpu[:, [dfly_zones.FREE_ZONES, dfly_zones.FREE_OVER]] = dfly_zones.NIL
    return State(
        p=params,
        map_number=map_number,
        zone_shift=PAGE_SHIFT,
        zone_limit=params.limit_bytes,
        page_words=words,
        superpage_shift=params.superpage_bytes.bit_length() - 1,
        class_of=class_by_units(klass[:NZONES, dfly_slab_layout.CHUNK]),
        klass=klass,
        bounds=bounds,
        zone=demand.zeros((pages, u.ZONE_COLUMNS), names),
        zone_of=demand.zeros(pages, names),
        page_head=demand.empty(pages, np.int16),
        word=demand.scattered(pages * words, np.int32),
        zone_ary=np.full((cpus, u.LISTS * NZONES), dfly_zones.NIL, names),
        dense=dense,
        cpu=cpu,
        over=demand.zeros((pages, 2), names),
        held=np.zeros(-(-pages * PAGE // params.superpage_bytes), np.int64),
        task=np.zeros(u.TASK_WORDS, np.int64),
    )


def _check(p: Params) -> None:
    """Raise ValueError for parameters that make no sense, alone or together."""
    largest = dfly_slab_layout.ZALLOC_MAX_ZONE_SIZE
    for name in ("least_bytes", "most_bytes"):
        size = getattr(p, name)
        if size & (size - 1) or not PAGE <= size <= largest:
            raise ValueError(f"{name} is {size}; it must be a power of two from {PAGE} to {largest}")
    if p.least_bytes > p.most_bytes:
        raise ValueError(f"least_bytes is {p.least_bytes}, which is more than most_bytes, {p.most_bytes}")
    if not 0 < p.shrink < p.grow:
        raise ValueError(f"shrink is {p.shrink} and grow {p.grow}; shrink must be at least 1, and less than grow")
    most = min(dfly_slab_layout.ZALLOC_ZONE_LIMIT, p.most_bytes // 4)
    if p.limit_bytes % dfly_slab_layout.MIN_CHUNK_SIZE or not 8 <= p.limit_bytes <= most:
        raise ValueError(f"limit_bytes is {p.limit_bytes}; it must be a multiple of 8 up to {most}")
    if p.trim_ticks < 1:
        raise ValueError(f"trim_ticks is {p.trim_ticks}; it must be 1 or more")
    for name, low, high in RANGES:
        if not low <= getattr(p, name) <= high:
            raise ValueError(f"{name} is {getattr(p, name)}; it must be from {low} to {high}")
    if p.superpage_bytes & (p.superpage_bytes - 1) or p.superpage_bytes < largest:
        raise ValueError(f"superpage_bytes is {p.superpage_bytes}; it must be a power of two from {largest}")
    if p.moves and not p.movable:
        raise ValueError(f"moves is {p.moves}, but nobody's chunks may move: movable is 0")


@functools.cache
def _layouts(header_bytes: int) -> Array:
    """Build the table of classes for zones of all levels, int64[6 * 72, 4]."""
    chunk, _ = class_sizes()
    tables = [
        class_table(PAGE << level, header_bytes, chunk, dfly_slab_layout.MIN_CHUNK_SIZE) for level in range(u.LEVELS)
    ]
    return np.column_stack([np.concatenate(tables), np.tile((1 << dfly_slab.RECIPROCAL_SHIFT) // chunk + 1, u.LEVELS)])


def _bounds(p: Params, klass: Array) -> Array:
    """Return the least and the most level of each class, int64[72, 2]."""
    low, high = ((size // PAGE).bit_length() - 1 for size in (p.least_bytes, p.most_bytes))
    bounds = np.full((NZONES, 2), high, np.int64)
    for which in range(NZONES):
        chunk = int(klass[which, dfly_slab_layout.CHUNK])
        for level in range(low, high + 1):
            n = int(klass[level * NZONES + which, dfly_slab_layout.N_MAX])
            if n > 1 and ((PAGE << level) - n * chunk) * VOID_FRACTION <= PAGE << level:
                bounds[which, 0] = level
                break
    return bounds


@kernel
def oversize(st: State, size: Bytes) -> bool:
    """Whether a request goes straight to the map."""
    return size >= st.zone_limit or size & (PAGE - 1) == 0


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Play one step of a malloc."""
    if reg[i, regs.PHASE] >= dfly_zones.NEW_ZONE:
        return _mapped(st, reg, i)
    cpu, size = reg[i, regs.CPU], reg[i, regs.SIZE]
    if size == 0:
        return hand_out(reg, i, dfly_zones.ZERO_LENGTH_PTR, 0)
    first = due(st, cpu, reg[i, regs.FLAGS], reg[i, regs.PHASE])
    if first == dfly_zones.RELEASING:
        return release(st, reg, i, dfly_zones.RELEASING, cpu)
    if first == dfly_zones.DRAINING:
        page = st.cpu[cpu, dfly_zones.FREE_OVER]
        st.cpu[cpu, dfly_zones.FREE_OVER] = st.over[page, dfly_zones.OVER_NEXT]
        return unmap_block(st, reg, i, dfly_zones.DRAINING, page)
    if oversize(st, size):
        return ask_oversize(st, reg, i)
    klass = class_of(st, size)
    which = list_of(st, klass, reg[i, regs.ITEM])
    zone = wide(st.zone_ary[cpu, which])
    if zone != dfly_zones.NIL:
        addr = take(st, zone, cpu, reg[i, regs.OBJECT])
        if st.p.drain and st.zone[zone, dfly_zones.N_FREE] == 0 and st.zone_ary[cpu, which] != dfly_zones.NIL:
            choose(st, reg, i, cpu, which)
        return hand_out(reg, i, addr, st.klass[klass, dfly_slab_layout.CHUNK])
    level = level_for(st, cpu, which)
    zone = pop(st, reg, i, cpu, level)
    if zone == dfly_zones.NIL:
        return ask_wired(reg, i, dfly_zones.NEW_ZONE, st.map_number, PAGE << level, PAGE << level)
    return begin_zone(st, reg, i, zone, level, which)


@kernel
def _mapped(st: State, reg: Registers, i: int) -> int:
    """Go on with what the map has answered to ask_wired."""
    base, nbytes = reg[i, regs.BASE], reg[i, regs.BYTES]
    if base < 0:
        return refused(reg, i, panics.KERNEL_MAP)
    if opens(st, base, nbytes):
        st.task[u.OPENED] = 1
    hold(st, base, nbytes, 1)
    if reg[i, regs.PHASE] != dfly_zones.NEW_ZONE:
        return oversize_mapped(st, reg, i)
    zone, level = base >> PAGE_SHIFT, 0
    while PAGE << level < nbytes:
        level += 1
    enter_pages(st, zone, level, zone + 1)
    return begin_zone(st, reg, i, zone, level, list_of(st, class_of(st, reg[i, regs.SIZE]), reg[i, regs.ITEM]))


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Play one step of a free."""
    if reg[i, regs.PHASE] != 0:  # an oversize block has been unmapped
        reg[i, regs.BARE] = 1
        return DONE
    addr = reg[i, regs.ADDR]
    if addr == dfly_zones.ZERO_LENGTH_PTR:
        return DONE
    cpu, zone = reg[i, regs.CPU], wide(st.zone_of[addr >> PAGE_SHIFT]) - 1
    if zone == dfly_zones.NIL:
        return _free_oversize(st, reg, i)
    owner = wide(st.zone[zone, dfly_zones.OWNER]) - 1
    if owner == cpu:
        put(st, zone, cpu, addr)
        relist(st, zone, cpu)
        return DONE
    reg[i, regs.TARGET] = owner
    reg[i, regs.FLAGS] |= flag.HARD
    return IPI


@kernel
def _free_oversize(st: State, reg: Registers, i: int) -> int:
    """Unmap an oversize block, or put it on FreeOvZones where an interrupt frees it."""
    page = reg[i, regs.ADDR] >> PAGE_SHIFT
    if reg[i, regs.FLAGS] & (flag.SOFT | flag.HARD) == 0:
        reg[i, regs.CALL] = dfly_zones.UNMAP_BLOCK
        return unmap_block(st, reg, i, dfly_zones.OVERSIZE, page)
    dfly_zones.put_off(st, reg[i, regs.CPU], page)
    return DONE


@kernel
def tend(st: State, reg: Registers, i: int) -> int:
    """Evacuate zones, or give wholly free ones back."""
    return tend_step(st, reg, i)


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Take a chunk of the first zone of the class, unless that must be told whose it is, or a zone be chosen."""
    if oversize(st, size) or due(st, cpu, flags, 0):
        return obj.ABSENT, 0
    klass = class_of(st, size)
    which = list_of(st, klass, item)
    zone = wide(st.zone_ary[cpu, which])
    if zone == dfly_zones.NIL or which >= NZONES or (st.p.drain and st.zone[zone, dfly_zones.N_FREE] == 1):
        return obj.ABSENT, 0
    return take(st, zone, cpu, 0), st.klass[klass, dfly_slab_layout.CHUNK]


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Give a chunk back to a zone of the CPU."""
    if addr < 0:
        return False
    zone = wide(st.zone_of[addr >> PAGE_SHIFT]) - 1
    if zone == dfly_zones.NIL or st.zone[zone, dfly_zones.OWNER] != cpu + 1:
        return False
    put(st, zone, cpu, addr)
    relist(st, zone, cpu)
    return True


def census(st: State) -> dict[str, int]:
    """Count what the allocator holds: as `dfly_slab` does; `zone_pages`, of all its zones; what evacuation has done.

    `moved` objects, `refused` moves, `emptied` zones.
    """
    zone_pages = (1 << st.zone[st.zone[:, dfly_zones.OWNER] > 0, u.LEVEL].astype(np.int64)).sum()
    no_size: Any = SimpleNamespace(zone_bytes=0)  # zones have no size of their own: their pages are counted here
    counts = count(st._replace(p=no_size))
    done = zip(("moved", "refused", "emptied"), (u.DONE, u.REFUSED, u.EMPTIED), strict=True)
    return (
        counts
        | {"zone_pages": int(zone_pages), "pages": counts["oversize_pages"] + int(zone_pages)}
        | {name: int(st.task[word]) for name, word in done}
    )
