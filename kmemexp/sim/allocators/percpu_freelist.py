"""Per-CPU freelists for type-stable items: what Dillon's mail "Getting rid of kmem_map" (24 August 2003) proposes.

Few kinds of items need memory that never becomes anything else, the mail says; for these "simple per-CPU freelists"
would do in place of zalloc(). Nobody shipped that, so there is no source: this is the plainest allocator that fits the
words. Each kind of item has a last-in first-out list on each CPU. An empty list takes whole pages from the map, cuts
them up and hands out the highest item, then the others downwards, as zget() does. A free goes to the list of the CPU
that frees. Nothing is ever given back, nor used for another kind.

With Params.limit a CPU keeps about that many: a free onto a list that holds so many first moves half of the list, what
was freed last, to a list that the CPUs share, and an empty list takes a batch of half the limit from there before it
asks the map. DragonFly's zalloc() of 2020 has such lists. Without them a CPU that only frees keeps everything.

Item.limit is ignored: no KVA is set aside for items that interrupts allocate, since in the mail's kernel interrupts are
threads and may wait for kernel_map. Left out: taking items from other CPUs' lists when the map has no room.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, Cube, Registers, Table, Words
from kmemexp.sim.asking import ask_kept, go_on, hand_out, out_of_entries
from kmemexp.sim.caches import Cache, Live, by_zone
from kmemexp.sim.items import Item
from kmemexp.sim.map_calls import KMEM_ALLOC
from kmemexp.sim.slots import CLASS_ZONE, DONE, FAILED, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import obj, regs
from kmemexp.sim.widths import wide

SERVES = (CLASS_ZONE,)
LOCKS = ("critical", "critical+spin/item")  # a CPU's list; the shared one
CALLS = (KMEM_ALLOC,)  # as zget(); it may block on kernel_map, and the section is left for it
SHARED_LOCK = 1 << regs.LOCK_SHIFT

ROUNDING = 32  # of sizes, as in zalloc()
ROUNDING_SHIFT = 5
END = -1

# Columns of State.zone.
SIZE = 0  # bytes of an item, rounded
GROWTH = 1  # pages to grow by
PAGES = 2  # pages held
TOTAL = 3  # items made
COLUMNS = 4

# Columns of State.list. The shared list of an item is behind those of the CPUs.
HEAD = 0  # first free item, in units of 32 bytes
COUNT = 1

# regs.PHASE.
FROM_SHARED = 1  # under the item's lock: a batch of the shared list
MAPPED = 2
TO_SHARED = 3  # under the item's lock: half of the CPU's list


class Params(NamedTuple):
    """What a sweep may change."""

    limit: int = 0  # items on a CPU's list from which on half of it goes to the shared one; 0: there is none


class State(NamedTuple):
    """The items' lists and their links."""

    p: Params
    map: int
    shared: int  # place of the shared lists in `list`: the number of CPUs
    zone: Table  # int64[items, COLUMNS]
    list: Cube  # int64[items, cpus + 1, 2]
    link: Words  # int32[kva_bytes / 32], next free item, at the place of each free item


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Return empty lists; `bases` does not matter. A growth that holds no item is raised until it does.

    Raises ValueError beyond 8 TiB of KVA, or for a negative limit.
    """
    demand.check_kva(kva_bytes)
    if params.limit < 0:
        raise ValueError(f"limit is {params.limit}; it must be 0 (no shared list) or more")
    zone = np.zeros((max(len(items), 1), COLUMNS), np.int64)
    for row, item in zip(zone, items, strict=False):
        row[SIZE] = (item.size + ROUNDING - 1) & -ROUNDING
        row[GROWTH] = max(item.growth, 1, -(-row[SIZE] // PAGE))
    lists = np.zeros((len(zone), cpus + 1, 2), np.int64)
    lists[:, :, HEAD] = END
    units = kva_bytes >> ROUNDING_SHIFT
    link = demand.empty(units, demand.names(units))  # a link is written before it is read
    return State(params, map_number, cpus, zone, lists, link)


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Play one step of an allocation."""
    z, cpu = reg[i, regs.ITEM], reg[i, regs.CPU]
    if reg[i, regs.PHASE] == MAPPED:
        return _mapped(st, reg, i, z, cpu)
    if st.list[z, cpu, HEAD] != END:
        return _hand_out(st, reg, i, z, cpu)
    if st.p.limit and reg[i, regs.PHASE] != FROM_SHARED:
        return _lock(reg, i, FROM_SHARED, z)
    count = min(st.list[z, st.shared, COUNT], max(st.p.limit >> 1, 1))
    if count == 0:
        return ask_kept(reg, i, MAPPED, st.map, st.zone[z, GROWTH] << PAGE_SHIFT, PAGE)
    _move(st, z, st.shared, cpu, count)
    reg[i, regs.WORK] = count
    return _hand_out(st, reg, i, z, cpu)


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Play one step of a free."""
    z, cpu = reg[i, regs.ITEM], reg[i, regs.CPU]
    count = st.list[z, cpu, COUNT]
    if st.p.limit and count >= st.p.limit:
        if reg[i, regs.PHASE] != TO_SHARED:
            return _lock(reg, i, TO_SHARED, z)
        half = max(count >> 1, 1)
        _move(st, z, cpu, st.shared, half)
        reg[i, regs.WORK] = half
    _push(st, z, cpu, reg[i, regs.ADDR] >> ROUNDING_SHIFT)
    return DONE


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Pop from the CPU's list."""
    return (obj.ABSENT, 0) if st.list[item, cpu, HEAD] == END else (_pop(st, item, cpu), st.zone[item, SIZE])


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Push on the CPU's list, unless that has enough."""
    if st.p.limit and st.list[item, cpu, COUNT] >= st.p.limit:
        return False
    _push(st, item, cpu, addr >> ROUNDING_SHIFT)
    return True


@kernel
def _push(st: State, z: int, which: int, item: int) -> None:
    st.link[item] = st.list[z, which, HEAD]
    st.list[z, which, HEAD] = item
    st.list[z, which, COUNT] += 1


@kernel
def _pop(st: State, z: int, cpu: int) -> Address:
    """Take the first item of a CPU's list, which is not empty."""
    item = st.list[z, cpu, HEAD]
    st.list[z, cpu, HEAD] = st.link[item]
    st.list[z, cpu, COUNT] -= 1
    return item << ROUNDING_SHIFT


@kernel
def _hand_out(st: State, reg: Registers, i: int, z: int, cpu: int) -> int:
    return hand_out(reg, i, _pop(st, z, cpu), st.zone[z, SIZE])


@kernel
def _lock(reg: Registers, i: int, phase: int, z: int) -> int:
    """Go on in `phase` under the lock of item `z`."""
    return go_on(reg, i, phase, SHARED_LOCK | z)


@outlined
def _move(st: State, z: int, source: int, target: int, count: int) -> None:
    """Put the first `count` items of a list before those of another, in the order that they have."""
    first = st.list[z, source, HEAD]
    last = first
    for _ in range(count - 1):
        last = wide(st.link[last])
    st.list[z, source, HEAD] = st.link[last]
    st.list[z, source, COUNT] -= count
    st.link[last] = st.list[z, target, HEAD]
    st.list[z, target, HEAD] = first
    st.list[z, target, COUNT] += count


@outlined
def _mapped(st: State, reg: Registers, i: int, z: int, cpu: int) -> int:
    """Cut new pages up. Without any, what has been freed meanwhile will do."""
    base = reg[i, regs.BASE]
    if base < 0:
        nothing = out_of_entries(reg, i) or st.list[z, cpu, HEAD] == END
        return FAILED if nothing else _hand_out(st, reg, i, z, cpu)
    size = st.zone[z, SIZE]
    items = (st.zone[z, GROWTH] << PAGE_SHIFT) // size
    for k in range(items):
        _push(st, z, cpu, (base + k * size) >> ROUNDING_SHIFT)
    st.zone[z, PAGES] += st.zone[z, GROWTH]
    st.zone[z, TOTAL] += items
    reg[i, regs.WORK] = items - 1
    return _hand_out(st, reg, i, z, cpu)


def caches(st: State, live: Live) -> list[Cache]:
    """What each zone holds; a growth counts as a slab."""
    zone = st.zone
    return by_zone(zone[:, SIZE], zone[:, PAGES] // np.maximum(zone[:, GROWTH], 1), zone[:, PAGES])


def census(st: State) -> dict[str, int]:
    """Count, over all items: pages held, items made, free, of these shared; bytes of free items, and of no item."""
    zone, free_items = st.zone, st.list[:, :, COUNT]
    counts = {
        "pages": zone[:, PAGES].sum(),
        "items": zone[:, TOTAL].sum(),
        "free_items": free_items.sum(),
        "shared_items": free_items[:, st.shared].sum(),
        "free_bytes": (free_items.sum(axis=1) * zone[:, SIZE]).sum(),
        "tail_bytes": (zone[:, PAGES] * PAGE - zone[:, TOTAL] * zone[:, SIZE]).sum(),
    }
    return {name: int(count) for name, count in counts.items()}
