"""Zones and oversize blocks of DragonFly's slab allocator: what the versions of 2003 and of 2020 have in common.

A State has the fields that `fields` makes, `p` with `zone_bytes`, `release_threshold` and `slide`, `map_number`, and
`cpu`. Zones are numbered by address: zone z lies at z * zone_bytes. Columns beyond those named here are the version's.
"""

from typing import Any

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import demand
from kmemexp.sim.aliases import Array, Registers
from kmemexp.sim.allocators._shared import dfly_slab_layout
from kmemexp.sim.allocators._shared.dfly_slab_layout import class_by_units
from kmemexp.sim.allocators._shared.slab_lists import members
from kmemexp.sim.asking import ask_unmap, ask_wired, hand_out
from kmemexp.sim.caches import Cache, Live, by_slab
from kmemexp.sim.slots import PAGE, PAGE_SHIFT
from kmemexp.sim.tables import flag, regs
from kmemexp.sim.widths import wide

ZERO_LENGTH_PTR = -8  # what malloc(0) returns
NIL = -1  # end of a list

# Columns of State.zone.
OWNER = 0  # CPU + 1; 0: no zone at this address
KLASS = 1
N_FREE = 2  # chunks, without those freed on other CPUs that the owner has not taken over
NEXT = 3  # on ZoneAry or FreeZones
PREV = 4
U_INDEX = 5  # chunk last taken from the never used area
U_END = 6  # chunk at which that area ends
ZONE_COLUMNS = 7

# Columns of State.cpu.
FREE_ZONES = 0  # the wholly free zone that is used next
FREE_ZONES_COUNT = 1
JUNK_INDEX = 2  # where the next zone's never used area begins
FREE_OVER = 3  # first page of the first oversize block that waits to be unmapped (FreeOvZones)
CPU_COLUMNS = 4

# Columns of State.over, in the row of a block's first page.
OVER_PAGES = 0  # pages of the block (kmemusage)
OVER_NEXT = 1  # on FreeOvZones

# regs.CALL: blocks that go straight to the map.
MAP_BLOCK = 3
UNMAP_BLOCK = 4

# regs.PHASE: which map step an operation waits for. Higher ones are the version's own.
RELEASING = 1  # a zone beyond the threshold is being unmapped
DRAINING = 2  # an oversize block of FreeOvZones is being unmapped
NEW_ZONE = 3
OVERSIZE = 4


def fields(zone_bytes: int, kva_bytes: int, klass: Array, zone_columns: int) -> dict[str, Any]:
    """Make the fields of a State without any zone that follow from the size of zones and the table of classes."""
    zones, pages = -(-kva_bytes // zone_bytes), -(-kva_bytes // PAGE)
    return {
        "zone_shift": zone_bytes.bit_length() - 1,
        "zone_limit": min(zone_bytes // 4, dfly_slab_layout.ZALLOC_ZONE_LIMIT),
        "class_of": class_by_units(klass[:, dfly_slab_layout.CHUNK]),
        "klass": klass,
        "zone": demand.zeros((zones, zone_columns), np.int32),
        "over": demand.zeros((pages, 2), np.int32),
    }


@kernel
def class_of(st: Any, size: int) -> int:
    """Class of the chunks for a request of `size` bytes, less than ZoneLimit."""
    return wide(st.class_of[(size + dfly_slab_layout.MIN_CHUNK_SIZE - 1) >> dfly_slab_layout.MIN_CHUNK_SHIFT])


@kernel
def lay_out(st: Any, reg: Registers, i: int, zone: int, klass: int) -> int:
    """Lay out a new or reused zone for a class, and hand out its first chunk. The never used area begins behind it."""
    cpu = reg[i, regs.CPU]
    first = st.cpu[cpu, JUNK_INDEX] % st.klass[klass, dfly_slab_layout.N_MAX]
    st.cpu[cpu, JUNK_INDEX] = (st.cpu[cpu, JUNK_INDEX] + st.p.slide) & (dfly_slab_layout.ZALLOC_MAX_ZONE_SIZE - 1)
    st.zone[zone, OWNER] = cpu + 1
    st.zone[zone, KLASS] = klass
    st.zone[zone, N_FREE] = st.klass[klass, dfly_slab_layout.N_MAX] - 1
    st.zone[zone, U_INDEX] = first
    st.zone[zone, U_END] = first
    return hand_out(reg, i, chunk_at(st, zone, klass, first), st.klass[klass, dfly_slab_layout.CHUNK])


@kernel
def chunk_at(st: Any, zone: int, klass: int, index: int) -> int:
    """Address of a chunk."""
    return (
        (zone << st.zone_shift)
        + st.klass[klass, dfly_slab_layout.OFFSET]
        + index * st.klass[klass, dfly_slab_layout.CHUNK]
    )


@kernel
def fresh_chunk(st: Any, zone: int, klass: int) -> int:
    """Take a chunk of the never used area of a zone that has one. Returns its address."""
    index = wide(st.zone[zone, U_INDEX]) + 1
    if index == st.klass[klass, dfly_slab_layout.N_MAX]:
        index = 0
    st.zone[zone, U_INDEX] = index
    return chunk_at(st, zone, klass, index)


@kernel
def due(st: Any, cpu: int, flags: int, phase: int) -> int:
    """What a malloc() that may sleep gives back to the map first: RELEASING a zone, DRAINING a block, 0: nothing."""
    if flags & flag.NOWAIT:
        return 0
    if phase != DRAINING and st.cpu[cpu, FREE_ZONES_COUNT] > st.p.release_threshold:
        return RELEASING
    return DRAINING if st.cpu[cpu, FREE_OVER] != NIL else 0


@kernel
def unmap_zone(st: Any, reg: Registers, i: int, phase: int, zone: int) -> int:
    """Unmap a zone that is on no list any more."""
    st.zone[zone, OWNER] = 0
    return ask_unmap(reg, i, phase, st.map_number, zone << st.zone_shift, st.p.zone_bytes)


@kernel
def ask_oversize(st: Any, reg: Registers, i: int) -> int:
    """Ask the map for a block of whole pages, in no section so far."""
    reg[i, regs.BARE] = 1
    reg[i, regs.CALL] = MAP_BLOCK
    return ask_wired(reg, i, OVERSIZE, st.map_number, (reg[i, regs.SIZE] + PAGE - 1) & ~(PAGE - 1), PAGE)


@kernel
def oversize_mapped(st: Any, reg: Registers, i: int) -> int:
    """Hand out the block that the map has given."""
    st.over[reg[i, regs.BASE] >> PAGE_SHIFT, OVER_PAGES] = reg[i, regs.BYTES] >> PAGE_SHIFT
    return hand_out(reg, i, reg[i, regs.BASE], reg[i, regs.BYTES])


@kernel
def unmap_oversize(st: Any, reg: Registers, i: int, phase: int, page: int) -> int:
    """Unmap an oversize block and forget its page count."""
    nbytes = wide(st.over[page, OVER_PAGES]) << PAGE_SHIFT
    st.over[page, OVER_PAGES] = 0
    return ask_unmap(reg, i, phase, st.map_number, page << PAGE_SHIFT, nbytes)


@kernel
def put_off(st: Any, cpu: int, page: int) -> None:
    """Put an oversize block on FreeOvZones, to be unmapped later."""
    st.over[page, OVER_NEXT] = st.cpu[cpu, FREE_OVER]
    st.cpu[cpu, FREE_OVER] = page


@kernel
def release_oversize(st: Any, reg: Registers, i: int) -> int:
    """Unmap the first of FreeOvZones."""
    cpu = reg[i, regs.CPU]
    page = st.cpu[cpu, FREE_OVER]
    st.cpu[cpu, FREE_OVER] = st.over[page, OVER_NEXT]
    return unmap_oversize(st, reg, i, DRAINING, page)


def caches(st: Any, live: Live) -> list[Cache]:
    """What each size of chunks holds: zones with a live chunk. Those wholly free, or oversize, are not its."""
    return by_slab(live, st.zone_shift, st.zone[:, OWNER] > 0, "chunk")


def count(st: Any, remote: int | None = None) -> dict[str, int]:
    """Count what a State holds: what `census` of both versions says.

    `remote`: column of State.zone that counts chunks freed on other CPUs and not yet taken over.
    """
    idle = members(st.cpu[:, FREE_ZONES], st.zone[:, NEXT])
    mapped = np.flatnonzero(st.zone[:, OWNER])
    used = st.zone[np.setdiff1d(mapped, idle)].astype(np.int64)
    klass = st.klass[used[:, KLASS]]
    elsewhere = {} if remote is None else {"remote_chunks": used[:, remote].sum()}
    unused = used[:, N_FREE] + (0 if remote is None else used[:, remote])
    oversize = st.over[:, OVER_PAGES].sum()
    queued = st.over[members(st.cpu[:, FREE_OVER], st.over[:, OVER_NEXT]), OVER_PAGES].sum()
    counts = {
        "zones": len(mapped),
        "idle_zones": len(idle),
        "free_chunks": used[:, N_FREE].sum(),
        "fresh_chunks": ((used[:, U_END] - used[:, U_INDEX] - 1) % klass[:, dfly_slab_layout.N_MAX]).sum(),
        **elsewhere,
        "live_bytes": ((klass[:, dfly_slab_layout.N_MAX] - unused) * klass[:, dfly_slab_layout.CHUNK]).sum()
        + (oversize - queued) * PAGE,
        "oversize_pages": oversize,
        "queued_pages": queued,
        "pages": len(mapped) * st.p.zone_bytes // PAGE + oversize,
    }
    return {name: int(count) for name, count in counts.items()}
