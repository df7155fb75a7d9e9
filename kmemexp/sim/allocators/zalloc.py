"""The zone allocator of FreeBSD 4: `sys/vm/vm_zone.c` (John Dyson 1997; RELENG_4, June 2003).

A zone holds items of one size, rounded up to 32 bytes, on a last-in first-out list. zalloc() pops while more than
`zfreemin` items are free (about a page's worth) and otherwise lets zget() grow the zone by its quantum of pages: an
ordinary zone takes them from a map; an interrupt zone (limit > 0) wires them, page by page, into KVA that was set aside
at boot, so that it touches no map. An item of an interrupt zone may begin in the room that the previous page left.
Nothing is ever given back: memory is type-stable. A zone that cannot grow hands out what it has left, then NULL.

While kernel_map is locked by anybody, an ordinary zone grows in kmem_map, where there is one.

Left out: zones made by zbootinit(), whose size is not rounded and whose first items are static; ZONE_PANICFAIL;
zdestroy() of FreeBSD 5. One growth must not be interleaved with another of the same interrupt zone: the kernel holds
the zone at splhigh meanwhile.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, Registers, Table, Words
from kmemexp.sim.asking import ask_kept, hand_out, in_kmem_object, out_of_entries
from kmemexp.sim.caches import Cache, Live, by_zone
from kmemexp.sim.items import Item
from kmemexp.sim.map_calls import KMEM_ALLOC, KMEM_FREE, KMEM_MALLOC
from kmemexp.sim.slots import CLASS_ZONE, DONE, FAILED, PAGE, PAGE_SHIFT, WIRE
from kmemexp.sim.tables import flag, obj, regs

SERVES = (CLASS_ZONE,)
LOCKS = ("splhigh+spin/item",)  # zalloci(), and all calls on a multiprocessor: splhigh and the zone's simple_lock
# zget() gives the zone's lock up before it asks a map; kernel_map has no spl level, kmem_map is entered at splvm. An
# interrupt zone's pages are wired under that lock, without any map. DragonFly held the zone's token through zget().
CALLS = (KMEM_ALLOC, KMEM_FREE, "hold space pages enter", KMEM_MALLOC, f"hold {KMEM_ALLOC}")
IN_KMEM_MAP = 3
HELD = 4

ZONE_ROUNDING = 32
ROUNDING_SHIFT = 5

# Columns of State.zone (struct vm_zone); the fast path uses the first four.
HEAD = 0  # first free item (zitems), in units of 32 bytes; END: none
FREE = 1  # items on the list (zfreecnt)
FREEMIN = 2  # zget() is called at this many free items or fewer (zfreemin)
SIZE = 3  # bytes of an item, rounded (zsize)
GROWTH = 4  # pages to grow by (zalloc)
BASE = 5  # KVA of an interrupt zone (zkva); -1: an ordinary zone
PAGEMAX = 6  # pages of that KVA (zpagemax)
PAGES = 7  # pages held (zpagecount)
TOTAL = 8  # items made (ztotal)
COLUMNS = 9

END = -1
BEGIN = 0  # phases of an allocation
MAPPED = 1
WIRED = 2


class Params(NamedTuple):
    """What a sweep may change."""

    freemin: int = -1  # free items at which every zone grows; -1: the kernel's rule, one page's worth, at least 1
    kmem_map: int = 0  # map to grow in while the usual one is locked; 0: none
    held: int = 0  # 1: a zone grows under its lock (DragonFly's token, 2003)


class State(NamedTuple):
    """The zones and their links."""

    p: Params
    map: int  # number of the map in which ordinary zones grow
    zone: Table  # int64[zones, COLUMNS]
    link: Words  # int32[kva_bytes / 32], next free item, at the place of each free item


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Make one empty zone per item (zinit()), with limit > 0 in the KVA at `bases[z]`. `cpus` is not used.

    A growth that would not hold one item is raised until it does: zget() could never make one.
    Raises ValueError beyond 8 TiB of KVA.
    """
    demand.check_kva(kva_bytes)
    zone = np.zeros((max(len(items), 1), COLUMNS), np.int64)
    zone[:, HEAD] = END
    for row, item, base in zip(zone[: len(items)], items, bases, strict=True):
        size = (item.size + ZONE_ROUNDING - 1) & -ZONE_ROUNDING
        row[SIZE] = size
        row[FREEMIN] = params.freemin if params.freemin >= 0 else max(PAGE // size, 1)
        row[GROWTH] = max(item.growth, 1, -(-size // PAGE))
        row[BASE] = base if item.limit else -1
        row[PAGEMAX] = -(-size * item.limit // PAGE)
    units = kva_bytes >> ROUNDING_SHIFT
    link = demand.empty(units, demand.names(units))  # a link is written before it is read
    return State(params, map_number, zone, link)


def kva_reserved(item: Item) -> int:
    """Bytes of KVA that boot sets aside for an item: whole pages for an interrupt zone, 0 for an ordinary one."""
    size = (item.size + ZONE_ROUNDING - 1) & -ZONE_ROUNDING
    return -(-size * item.limit // PAGE) * PAGE


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Pop while more than zfreemin items are free, else grow: zalloc()."""
    z = reg[i, regs.ITEM]
    if reg[i, regs.PHASE] == BEGIN and st.zone[z, FREE] > st.zone[z, FREEMIN]:
        return _hand_out(st, reg, i, z)
    if st.zone[z, BASE] < 0:
        return _grow_in_map(st, reg, i, z)
    return _grow_in_place(st, reg, i, z)


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Push the item: zfree()."""
    z = reg[i, regs.ITEM]
    _push(st, z, reg[i, regs.ADDR])
    return DONE


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Pop while more than zfreemin items are free."""
    if st.zone[item, FREE] <= st.zone[item, FREEMIN]:
        return obj.ABSENT, 0
    return _pop(st, item), st.zone[item, SIZE]


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Push the item."""
    _push(st, item, addr)
    return True


@kernel
def _push(st: State, z: int, addr: Address) -> None:
    item = addr >> ROUNDING_SHIFT
    st.link[item] = st.zone[z, HEAD]
    st.zone[z, HEAD] = item
    st.zone[z, FREE] += 1


@kernel
def _pop(st: State, z: int) -> Address:
    """Take the first item of a zone's list, which is not empty."""
    item = st.zone[z, HEAD]
    st.zone[z, HEAD] = st.link[item]
    st.zone[z, FREE] -= 1
    return item << ROUNDING_SHIFT


@kernel
def _hand_out(st: State, reg: Registers, i: int, z: int) -> int:
    return hand_out(reg, i, _pop(st, z), st.zone[z, SIZE])


@kernel
def _grow_in_map(st: State, reg: Registers, i: int, z: int) -> int:
    """Take a growth of pages from the map: zget() of an ordinary zone."""
    nbytes = st.zone[z, GROWTH] << PAGE_SHIFT
    if reg[i, regs.PHASE] == BEGIN:
        home = st.map
        if st.p.held:
            reg[i, regs.CALL] = HELD
        reg[i, regs.FLAGS] &= ~flag.NOWAIT  # zget() knows of none: kmem_alloc() waits, and so does its kmem_malloc()
        if st.p.kmem_map and reg[i, regs.LOCKED]:
            home = st.p.kmem_map
            reg[i, regs.CALL] = IN_KMEM_MAP
        answer = ask_kept(reg, i, MAPPED, home, nbytes, PAGE)
        return answer if home == st.map else in_kmem_object(reg, i, answer)
    if out_of_entries(reg, i):
        return FAILED
    if reg[i, regs.BASE] < 0:
        return _take(st, reg, i, z, 0, 0)
    st.zone[z, PAGES] += st.zone[z, GROWTH]
    return _take(st, reg, i, z, reg[i, regs.BASE], nbytes // st.zone[z, SIZE])


@kernel
def _grow_in_place(st: State, reg: Registers, i: int, z: int) -> int:
    """Wire the next pages of the zone's own KVA: zget() of an interrupt zone. regs.X counts its pages."""
    base = st.zone[z, BASE]
    refused = False
    if reg[i, regs.PHASE] == BEGIN:
        reg[i, regs.X] = 0
    elif reg[i, regs.BASE] < 0:
        refused = True
    else:
        st.zone[z, PAGES] += 1
        reg[i, regs.X] += 1
    pages = st.zone[z, PAGES]
    if not refused and reg[i, regs.X] < st.zone[z, GROWTH] and pages < st.zone[z, PAGEMAX]:
        reg[i, regs.PHASE] = WIRED
        reg[i, regs.BASE] = base + (pages << PAGE_SHIFT)
        reg[i, regs.BYTES] = PAGE
        return WIRE
    begin = (pages - reg[i, regs.X]) << PAGE_SHIFT
    begin -= begin % st.zone[z, SIZE]
    items = ((pages << PAGE_SHIFT) - begin) // st.zone[z, SIZE]
    return _take(st, reg, i, z, base + begin, items)


@kernel
def _take(st: State, reg: Registers, i: int, z: int, addr: Address, items: int) -> int:
    """Hand out the highest of the new items and push the rest ascending; without new ones, pop what is left."""
    if items == 0:
        return _hand_out(st, reg, i, z) if st.zone[z, FREE] > 0 else FAILED
    size = st.zone[z, SIZE]
    for _ in range(items - 1):
        st.link[addr >> ROUNDING_SHIFT] = st.zone[z, HEAD]
        st.zone[z, HEAD] = addr >> ROUNDING_SHIFT
        addr += size
    reg[i, regs.WORK] = items - 1
    st.zone[z, FREE] += items - 1
    st.zone[z, TOTAL] += items
    return hand_out(reg, i, addr, size)


def caches(st: State, live: Live) -> list[Cache]:
    """What each zone holds; a growth counts as a slab."""
    zone = st.zone
    return by_zone(zone[:, SIZE], zone[:, PAGES] // np.maximum(zone[:, GROWTH], 1), zone[:, PAGES])


def census(st: State) -> dict[str, int]:
    """Pages held, items made and free, bytes of free items, and bytes of held pages that no item covers, all zones."""
    zone = st.zone
    counts = {
        "pages": zone[:, PAGES].sum(),
        "items": zone[:, TOTAL].sum(),
        "free_items": zone[:, FREE].sum(),
        "free_bytes": (zone[:, FREE] * zone[:, SIZE]).sum(),
        "tail_bytes": (zone[:, PAGES] * PAGE - zone[:, TOTAL] * zone[:, SIZE]).sum(),
    }
    return {name: int(count) for name, count in counts.items()}
