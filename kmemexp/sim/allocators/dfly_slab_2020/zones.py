"""Zones of DragonFly's slab allocator of 2020, and the lists they are on. See allocators/dfly_slab_2020.py."""

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators._shared.dfly_slab_layout import MIN_CHUNK_SHIFT, NZONES, ZALLOC_MAX_ZONE_SIZE
from kmemexp.sim.allocators._shared.slab_order import FULLEST, insert
from kmemexp.sim.allocators.dfly_slab import NIL
from kmemexp.sim.slots import DONE, R_ADDR, R_CPU, R_GRANTED, R_WORK

# Columns of State.klass: the table of zoneindex().
CHUNK = 0  # bytes of a chunk
OFFSET = 1  # where the first chunk begins in the zone
N_MAX = 2  # chunks in a zone

# Columns of State.zone. Chunks are named by the place where they begin in their zone, in units of 8 bytes.
OWNER = 0  # CPU; NIL: no zone at this address
KLASS = 1
N_FREE = 2  # without those freed elsewhere
NEXT = 3  # on ZoneAry or FreeZones
PREV = 4
LOCAL_HEAD = 5  # freed chunks (z_LChunks)
LOCAL_TAIL = 6
REMOTE_HEAD = 7  # chunks freed on other CPUs (z_RChunks)
REMOTE_TAIL = 8
REMOTE = 9  # how many they are
SIGNAL = 10  # 1: whoever frees the first of them must send an IPI (z_RSignal)
IN_FLIGHT = 11  # such IPIs under way (z_RCount)
U_INDEX = 12  # chunk last taken from the never used area
U_END = 13  # chunk at which that area ends
ZONE_COLUMNS = 14
LISTED = (PREV, NEXT, N_FREE)  # what a sorted list goes by: zones are taken from the tail

# Columns of State.cpu.
FREE_ZONES = 0  # newest of the wholly free zones
FREE_ZONES_LAST = 1  # the oldest
FREE_ZONES_COUNT = 2
JUNK_INDEX = 3  # where the next zone's never used area begins
FREE_OVER = 4  # first page of the oldest oversize block that waits to be unmapped (FreeOvZones)
FREE_OVER_LAST = 5  # of the newest


@kernel
def take(st, reg, i, zone, klass):
    """Hand out a chunk of a zone that has one: the one freed last, else one never used."""
    st.zone[zone, N_FREE] -= 1
    if st.zone[zone, N_FREE] == 0:
        if st.zone[zone, REMOTE] > 0:
            reg[i, R_WORK] = _gather(st, zone)
            st.zone[zone, SIGNAL] = 0
            _gained(st, reg, i, zone, klass)
        else:
            st.zone[zone, SIGNAL] = 1
            _unlink(st, zone, reg[i, R_CPU], klass)
    base = zone << st.zone_shift
    reg[i, R_GRANTED] = st.klass[klass, CHUNK]
    unit = np.int64(st.zone[zone, LOCAL_HEAD])
    if unit != NIL:
        st.zone[zone, LOCAL_HEAD] = st.link[zone, unit]
        reg[i, R_ADDR] = base + (unit << MIN_CHUNK_SHIFT)
        return DONE
    index = np.int64(st.zone[zone, U_INDEX]) + 1
    if index == st.klass[klass, N_MAX]:
        index = 0
    st.zone[zone, U_INDEX] = index
    reg[i, R_ADDR] = base + st.klass[klass, OFFSET] + index * st.klass[klass, CHUNK]
    return DONE


@kernel
def put(st, reg, i, zone, unit):
    """Give a chunk back to its zone, on the CPU that owns the zone."""
    cpu, klass = reg[i, R_CPU], np.int64(st.zone[zone, KLASS])
    if st.zone[zone, LOCAL_HEAD] == NIL:
        st.zone[zone, LOCAL_TAIL] = unit
    st.link[zone, unit] = st.zone[zone, LOCAL_HEAD]
    st.zone[zone, LOCAL_HEAD] = unit
    st.zone[zone, N_FREE] += 1
    if st.zone[zone, N_FREE] == 1:
        _push(st, reg, i, zone, klass)
    else:
        _gained(st, reg, i, zone, klass)
    _retire(st, zone, cpu, klass)


@kernel
def put_remote(st, zone, unit):
    """Give a chunk back on another CPU. Returns whether the owner must be told."""
    first = st.zone[zone, REMOTE_HEAD] == NIL
    if first:
        st.zone[zone, REMOTE_TAIL] = unit
    st.link[zone, unit] = st.zone[zone, REMOTE_HEAD]
    st.zone[zone, REMOTE_HEAD] = unit
    st.zone[zone, REMOTE] += 1
    tells = first and st.zone[zone, SIGNAL] != 0
    if tells:
        st.zone[zone, IN_FLIGHT] += 1
    return tells


@kernel
def signalled(st, reg, i, zone):
    """Take over what others have freed, on the owner's CPU: kfree_remote()."""
    cpu = reg[i, R_CPU]
    klass = np.int64(st.zone[zone, KLASS])
    st.zone[zone, IN_FLIGHT] -= 1
    if st.zone[zone, REMOTE] > 0:
        st.zone[zone, SIGNAL] = 0
        listed = st.zone[zone, N_FREE] > 0
        reg[i, R_WORK] = _gather(st, zone)
        if listed:
            _gained(st, reg, i, zone, klass)
        else:
            _push(st, reg, i, zone, klass)
    _retire(st, zone, cpu, klass)
    return DONE


@kernel
def _gather(st, zone):
    """Put the chunks freed elsewhere behind the others: clean_zone_rchunks(). Returns how many; there are some."""
    head = st.zone[zone, REMOTE_HEAD]
    if st.zone[zone, LOCAL_HEAD] == NIL:
        st.zone[zone, LOCAL_HEAD] = head
    else:
        st.link[zone, np.int64(st.zone[zone, LOCAL_TAIL])] = head
    st.zone[zone, LOCAL_TAIL] = st.zone[zone, REMOTE_TAIL]
    chunks = np.int64(st.zone[zone, REMOTE])
    st.zone[zone, N_FREE] += chunks
    st.zone[zone, REMOTE_HEAD] = NIL
    st.zone[zone, REMOTE] = 0
    return chunks


@outlined
def sweep(st, reg, i):
    """Go through the zones of a CPU: slab_cleanup(). The zones and chunks looked at are work."""
    cpu = reg[i, R_CPU]
    for klass in range(NZONES):
        zone = np.int64(st.zone_first[cpu, klass])
        while zone != NIL:
            after = np.int64(st.zone[zone, NEXT])
            reg[i, R_WORK] += 1
            if st.zone[zone, REMOTE] > 0:
                reg[i, R_WORK] += _gather(st, zone)
                _gained(st, reg, i, zone, klass)
            _retire(st, zone, cpu, klass)
            zone = after


@kernel
def _retire(st, zone, cpu, klass):
    """Put a zone on FreeZones if it is wholly free, not the only one on its list, and no IPI is on its way to it."""
    if st.zone[zone, N_FREE] < st.klass[klass, N_MAX] or st.zone[zone, IN_FLIGHT] > 0:
        return
    if st.zone[zone, NEXT] == NIL and st.zone[zone, PREV] == NIL:
        return
    _unlink(st, zone, cpu, klass)
    newest = st.cpu[cpu, FREE_ZONES]
    st.zone[zone, NEXT] = newest
    st.zone[zone, PREV] = NIL
    if newest == NIL:
        st.cpu[cpu, FREE_ZONES_LAST] = zone
    else:
        st.zone[newest, PREV] = zone
    st.cpu[cpu, FREE_ZONES] = zone
    st.cpu[cpu, FREE_ZONES_COUNT] += 1


@kernel
def off_free_zones(st, cpu, zone):
    """Take the newest or the oldest zone off FreeZones."""
    before, after = np.int64(st.zone[zone, PREV]), np.int64(st.zone[zone, NEXT])
    if before == NIL:
        st.cpu[cpu, FREE_ZONES] = after
    else:
        st.zone[before, NEXT] = after
    if after == NIL:
        st.cpu[cpu, FREE_ZONES_LAST] = before
    else:
        st.zone[after, PREV] = before
    st.cpu[cpu, FREE_ZONES_COUNT] -= 1


@kernel
def _push(st, reg, i, zone, klass):
    """Put a zone at the head of a class's list, or where a sorted one wants it."""
    cpu = reg[i, R_CPU]
    if st.p.slab_order:
        _insert(st, reg, i, zone, klass, NIL, np.int64(st.zone_last[cpu, klass]))
        return
    after = np.int64(st.zone_first[cpu, klass])
    st.zone[zone, NEXT] = after
    st.zone[zone, PREV] = NIL
    if after == NIL:
        st.zone_last[cpu, klass] = zone
    else:
        st.zone[after, PREV] = zone
    st.zone_first[cpu, klass] = zone


@kernel
def _gained(st, reg, i, zone, klass):
    """Move a listed zone, which has more free chunks than before, if its list is sorted by that."""
    if st.p.slab_order == FULLEST:
        before, after = np.int64(st.zone[zone, NEXT]), np.int64(st.zone[zone, PREV])
        _unlink(st, zone, reg[i, R_CPU], klass)
        _insert(st, reg, i, zone, klass, before, after)


@kernel
def _insert(st, reg, i, zone, klass, before, after):
    """Put a zone into its class's sorted list, from between two neighbours on."""
    if insert(st.zone, LISTED, st.p.slab_order, zone, before, after, reg, i) == NIL:
        st.zone_last[reg[i, R_CPU], klass] = zone
    if st.zone[zone, PREV] == NIL:
        st.zone_first[reg[i, R_CPU], klass] = zone


@kernel
def _unlink(st, zone, cpu, klass):
    """Take a zone off a class's list."""
    before, after = np.int64(st.zone[zone, PREV]), np.int64(st.zone[zone, NEXT])
    if before == NIL:
        st.zone_first[cpu, klass] = after
    else:
        st.zone[before, NEXT] = after
    if after == NIL:
        st.zone_last[cpu, klass] = before
    else:
        st.zone[after, PREV] = before


@kernel
def begin_zone(st, reg, i, zone, klass):
    """Lay out a new or reused zone for a class, put it on the list and serve the request from it."""
    cpu = reg[i, R_CPU]
    first = st.cpu[cpu, JUNK_INDEX] % st.klass[klass, N_MAX]
    st.cpu[cpu, JUNK_INDEX] = (st.cpu[cpu, JUNK_INDEX] + st.p.slide) & (ZALLOC_MAX_ZONE_SIZE - 1)
    st.zone[zone] = NIL
    st.zone[zone, OWNER] = cpu
    st.zone[zone, KLASS] = klass
    st.zone[zone, N_FREE] = st.klass[klass, N_MAX] - 1
    st.zone[zone, REMOTE] = 0
    st.zone[zone, SIGNAL] = 0
    st.zone[zone, IN_FLIGHT] = 0
    st.zone[zone, U_INDEX] = first
    st.zone[zone, U_END] = first
    _push(st, reg, i, zone, klass)
    reg[i, R_ADDR] = (zone << st.zone_shift) + st.klass[klass, OFFSET] + first * st.klass[klass, CHUNK]
    reg[i, R_GRANTED] = st.klass[klass, CHUNK]
    return DONE
