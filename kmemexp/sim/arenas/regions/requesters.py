"""Who asks for a range, to which class that belongs, and what is learned of how long its ranges live.

A requester's lifetime is estimated on the clock of the map, which is the number of pages entered into it. What it frees
goes into an exponentially weighted mean of the logarithm; what it has not freed yet counts by the mean age of its live
pages, where that is longer: else a requester whose first frees are quick would look short-lived whatever it keeps.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import MapNo, Registers
from kmemexp.sim.arenas._shared.powers import log2
from kmemexp.sim.arenas.regions import placing
from kmemexp.sim.arenas.regions.state import BY_LIFETIME, BY_USE, TOGETHER, State
from kmemexp.sim.probes import SERVER_MAP
from kmemexp.sim.slots import (
    ATTR_NOFREE,
    ATTR_PAGEABLE,
    ATTR_SINGLE,
    ATTR_SORT,
    ITEM_MALLOC,
    PAGE_SHIFT,
    WHO_COUNT,
    WHO_SHIFT,
)
from kmemexp.sim.tables import regs

# Columns of State.who; a row per map and requester.
ENTERED = 0  # ranges
FREED = 1  # ranges, or parts of them that were freed at once
MEAN = 2  # of the logarithm of lifetimes, where FREED > 0
LIVE = 3  # pages
BORN = 4  # sum of the clock at the birth of the live pages
WHO_COLUMNS = 5

LOG_BITS = 12  # fixed point of a logarithm
WEIGHT_SHIFT = 3  # ASSUMPTION: a lifetime has a weight of 1/8 in the mean, as TCP's round trip times have (RFC 6298, 2)

# Numbers of requesters: what an allocator serves, by server, then what a map serves itself.
PER_SERVER = WHO_COUNT // 4
MBUFS = 63
ZONES = 64  # below: malloc, by size class
SIZES = 64  # size classes for each sort of a range that a map serves itself


@kernel
def map_attr(reg: Registers, i: int, attr: int, server: int) -> int:
    """The attribute with the requester above WHO_SHIFT.

    That is a zone, all mbufs, or a power-of-two class: of the size asked of malloc; of the pages, by sort of range,
    where the map itself is asked. Zones of one allocator beyond its 960th share numbers.
    """
    if server == SERVER_MAP:
        who = (attr & ATTR_SORT) * SIZES + log2(max(reg[i, regs.BYTES] >> PAGE_SHIFT, 1))
    elif reg[i, regs.ITEM] >= 0:
        who = ZONES + reg[i, regs.ITEM] % (PER_SERVER - ZONES)
    elif reg[i, regs.ITEM] == ITEM_MALLOC:
        who = min(log2(max(reg[i, regs.SIZE], 1)), MBUFS - 1)
    else:
        who = MBUFS
    return (attr & (ATTR_SORT | ATTR_NOFREE)) | (server * PER_SERVER + who) << WHO_SHIFT


@kernel
def class_of(st: State, map_no: MapNo, attr: int) -> int:
    """Class of a request: SHORT is what is thought to be short-lived. A submap (ATTR_SINGLE) lives for ever."""
    sort = attr & ATTR_SORT
    if st.p.segregate == TOGETHER or sort == ATTR_SINGLE:
        return placing.LONG
    if st.p.segregate == BY_LIFETIME:
        return learned(st, map_no, attr)
    if attr & ATTR_NOFREE:
        return placing.LONG
    return placing.WIRED if st.p.segregate == BY_USE and sort != ATTR_PAGEABLE else placing.SHORT


@outlined
def learned(st: State, map_no: MapNo, attr: int) -> int:
    """SHORT or LONG by what is known of the requester."""
    who = row_of(map_no, attr >> WHO_SHIFT)
    if st.who[who, FREED] == 0 and st.who[who, ENTERED] >= st.p.patience:
        return placing.LONG
    if st.who[who, FREED] > 0 and st.who[who, MEAN] >= st.maps[map_no, placing.LIMIT]:
        return placing.LONG
    live = st.who[who, LIVE]
    if (
        live > 0
        and logarithm(st.maps[map_no, placing.CLOCK] - st.who[who, BORN] // live) >= st.maps[map_no, placing.LIMIT]
    ):
        return placing.LONG
    return placing.SHORT


@kernel
def row_of(map_no: MapNo, who: int) -> int:
    """Row of a requester of map `map_no`."""
    return map_no * WHO_COUNT + (who & (WHO_COUNT - 1))


@kernel
def logarithm(pages: int) -> int:
    """Logarithm to base 2 of pages >= 1 in fixed point; straight between two powers, so the same on every machine."""
    k = log2(pages)
    return (k << LOG_BITS) + ((pages << LOG_BITS) >> k) - (1 << LOG_BITS)


@outlined
def enter(st: State, map_no: MapNo, attr: int, page: int, pages: int) -> None:
    """Mark a range with its birth and requester, and let the clock go on."""
    clock, who = st.maps[map_no, placing.CLOCK], (attr >> WHO_SHIFT) & (WHO_COUNT - 1)
    for k in range(page, page + pages):
        st.stamp[k] = clock * WHO_COUNT + who
    st.maps[map_no, placing.CLOCK] = clock + pages
    if st.p.segregate == BY_LIFETIME:
        who_ = row_of(map_no, who)
        st.who[who_, ENTERED] += 1
        st.who[who_, LIVE] += pages
        st.who[who_, BORN] += pages * clock


@outlined
def leave(st: State, map_no: MapNo, page: int, end: int) -> None:
    """Mark a range as free; what was entered at once and is freed at once is one lifetime."""
    while page < end:
        stamp, first = st.stamp[page], page
        while page < end and st.stamp[page] == stamp:
            st.stamp[page] = -map_no
            page += 1
        if st.p.segregate == BY_LIFETIME:
            who, born = row_of(map_no, stamp), stamp // WHO_COUNT
            st.who[who, LIVE] -= page - first
            st.who[who, BORN] -= (page - first) * born
            lived = logarithm(st.maps[map_no, placing.CLOCK] - born)
            if st.who[who, FREED] == 0:
                st.who[who, MEAN] = lived
            else:
                st.who[who, MEAN] += (lived - st.who[who, MEAN]) >> WEIGHT_SHIFT
            st.who[who, FREED] += 1
