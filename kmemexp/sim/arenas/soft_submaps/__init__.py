"""Soft submaps: guarantees on one map in place of submaps that are carved out of it. A study: no kernel has it.

The mail of 24 August 2003 gives kmem_map back to kernel_map; here the submaps of one purpose follow (buffer_map,
pager_map, exec_map, pipe_map, mb_map). What was carved out at boot becomes a *guarantee*: so many slots (aligned
stretches of `slot_bytes`, MAXPHYS) that the consumer can have at any time, wherever they are. Invariant: there are
always as many free slots as are guaranteed and not taken. So

- a consumer takes whole slots, and packs its requests into those that it has; a request within the guarantee never
  fails for want of space, and nothing has to be won back for it first;
- requests without a guarantee (malloc, zones, KVA) go anywhere, as long as they leave enough free slots; then the
  allocators are asked to give back what they can spare (`maps.reclaim`), and then the request is refused.

What is gained is contiguity: an idle guarantee is no range that cuts the map in two, and holes between what malloc
holds can keep it, while whole superpages serve anybody. Bytes are not gained: guarantees that may all be called upon
at once cannot be lent for good. `lend_percent` lends a share of the idle ones nevertheless (a consumer may then be
refused), `limit_percent` lets consumers grow beyond their guarantee, at the expense of those that have none.

What is asked for with the map locked (PV ENTRY, SWAPMETA) keeps KVA of its own, for it could not wait for that lock.
With `zones_percent` only so much of it does; the rest is a guarantee too. Such a zone must then always have a slot in
hand before the map is locked, as operations have reserved their map entries since 27 August 2003, and it is grown by
who finds it low with nothing locked. No load here maps user pages, so nobody asks for the rest.

A guarantee is of bytes in requests of one size up to a slot: as many as the carved-out map would hold
(`CROOKED`: of exec_map those of ARG_MAX and a page, kern_exec.c, of which a slot holds one). Requests of several sizes
can fragment slots as they can fragment a submap, but not at the same instants: where pager_map's, of 16 to 128 KiB,
are pushed to 427 refusals, guarantees alone refuse 448; a limit of 105 % of the guarantee is enough to refuse fewer.
Requests larger than a slot are placed as they come. General requests take the low end of the smallest hole where they
fit (`_shared.hole_index`), slots the high end of the smallest hole that has one, so that they come and go together at
the top of the map. With `near` they take its low end where the high one would open a superpage and the low one does
not. A request that would break a slot too many tries `looks` holes for one that breaks none.

All consumers share one map, so they share its lock (`SOFT`). Left out: memory for the tables; sleeping for a hole.
"""

import numpy as np

from kmemexp.jit import entry, kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, MapNo, Shares, Words
from kmemexp.sim.arenas._shared import hole_index, hole_list
from kmemexp.sim.arenas._shared.hole_index import NONE, START, holes
from kmemexp.sim.arenas._shared.hole_list import used
from kmemexp.sim.arenas._shared.powers import round_up
from kmemexp.sim.arenas.soft_submaps.pieces import count, give_piece, have, take_piece, take_run
from kmemexp.sim.arenas.soft_submaps.placing import give, pages_of, place
from kmemexp.sim.arenas.soft_submaps.state import (
    CARVED,
    FREE_PAGES,
    FREE_SLOTS,
    GUARANTEE,
    LIMIT,
    MOST_PAGES,
    OWNER,
    PROMISED,
    QUOTA_COLUMNS,
    RUN,
    RUN_PAGES,
    SLOT_COLUMNS,
    SLOTS,
    USED_PAGES,
    WHOLE,
    ZONES,
    Params,
    State,
)
from kmemexp.sim.checks import insist
from kmemexp.sim.map_calls import KMEM_ALLOC, KMEM_FREE
from kmemexp.sim.maps import BUFFER, CLEAN, EXEC, KERNEL, KMEM, MB, PAGER, PIPE
from kmemexp.sim.slots import NO_SPACE, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import gauge

__all__ = ["Params", "State", "holes", "used"]

CALLS = (KMEM_ALLOC, KMEM_FREE)
SOFT = (CLEAN, BUFFER, PAGER, EXEC, PIPE, MB)  # maps that are guarantees on kernel_map here
SOFT_ZONES = ("PV ENTRY", "SWAPMETA")  # whose KVA may be a guarantee as well (Params.zones_percent)
I386_SUPERPAGE = 4 << 20
WITHIN = {BUFFER: CLEAN, PAGER: CLEAN}  # whose guarantee is a part of another's
CROOKED = {EXEC: 17}  # pages of the requests, where they are no power of two


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), one hole; the others empty until `add_map`. ValueError: impossible parameters."""
    params = params._replace(superpage_bytes=params.superpage_bytes or I386_SUPERPAGE)
    pages = params.slot_bytes >> PAGE_SHIFT
    if params.slot_bytes & (params.slot_bytes - 1) or not 1 < pages <= MOST_PAGES:
        raise ValueError(f"slot_bytes is {params.slot_bytes}; it must be a power of two from 8 KiB to 128 KiB")
    if params.limit_percent < WHOLE or params.lend_percent > WHOLE or params.looks < 1:
        raise ValueError(
            f"limit_percent, lend_percent, looks are {params.limit_percent}, {params.lend_percent}, {params.looks}; "
            "they must be 100 or more, 100 or less, 1 or more"
        )
    if not (0 <= params.near <= 1 and 0 < params.zones_percent <= WHOLE):
        raise ValueError(
            f"near, zones_percent are {params.near}, {params.zones_percent}; they must be 0 or 1, and 1 to 100"
        )
    if params.superpage_bytes % params.slot_bytes:
        raise ValueError(f"superpage_bytes is {params.superpage_bytes}; it must be a multiple of slot_bytes")
    st = State(
        params,
        **hole_index.fields(kva_bytes, maps),
        quota=np.zeros((maps, QUOTA_COLUMNS), np.int64),
        slot=demand.zeros((kva_bytes // params.slot_bytes + 1, SLOT_COLUMNS)),
        head=np.zeros((maps, MOST_PAGES + 1), np.int64),
        total=np.array([kva_bytes // params.slot_bytes, 0, 0], np.int64),
        slot_shift=params.slot_bytes.bit_length() - 1,
    )
    hole_index.add_map(st, KERNEL, 0, kva_bytes)
    return st


def add_map(st: State, map_no: int, base: int, nbytes: int) -> None:
    """Turn the range [base, base + nbytes), which its parent has allocated, into a guarantee of map `map_no`.

    A map that is not soft gets the range itself. ValueError: there is less than what is guaranteed.
    """
    if not divides(st, map_no):
        hole_index.add_map(st, map_no, base, nbytes)
        return
    parent = WITHIN.get(map_no, KERNEL)
    parent = parent if st.quota[parent, CARVED] else KERNEL
    entry(map_free)(st, parent, base, nbytes, 0)
    if parent != KERNEL:
        _guarantee(st, parent, int(st.quota[parent, CARVED]) - nbytes)
    _guarantee(st, map_no, nbytes)
    _covered(st)


def set_aside(st: State, name: str, nbytes: int) -> int:
    """Promise a part of what boot sets aside under a name. Returns the bytes that are to be a range of their own.

    ValueError: there is less than what is guaranteed.
    """
    if name not in SOFT_ZONES:
        return nbytes
    own = -(-nbytes * st.p.zones_percent // (WHOLE * PAGE)) * PAGE
    slots = -(-(nbytes - own) // st.p.slot_bytes)
    st.total[[PROMISED, ZONES]] += slots
    _covered(st)
    return own


def _covered(st: State) -> None:
    """Raise ValueError where more is promised than there is."""
    if st.total[FREE_SLOTS] < st.total[PROMISED]:
        short = int(st.total[PROMISED] - st.total[FREE_SLOTS]) << st.slot_shift
        raise ValueError(f"the guarantees of soft submaps are {short >> 10} KiB more than there is in free slots")


def divides(st: State, map_no: int) -> bool:
    """Whether a map is no range of its own but a guarantee. mb_map inside kmem_map stays as it was."""
    return map_no in SOFT and not (map_no == MB and st.maps[KMEM, hole_list.TOP] > 0)


def _guarantee(st: State, map_no: int, nbytes: int) -> None:
    pages = st.p.slot_bytes // PAGE
    ask = CROOKED.get(map_no, pages)
    requests = nbytes // PAGE // ask
    slots = max(-(-nbytes // st.p.slot_bytes), -(-requests // max(pages // ask, 1)) * (-(-ask // pages)))
    st.total[PROMISED] += slots - st.quota[map_no, GUARANTEE]
    st.quota[map_no, [GUARANTEE, LIMIT, CARVED]] = slots, slots * st.p.limit_percent // WHOLE, nbytes


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Take `nbytes` of map `map_no` at a multiple of `align` (bytes). Returns the address or NO_SPACE."""
    align = max(align, 1)
    if st.quota[map_no, GUARANTEE] > 0:
        if nbytes > st.p.slot_bytes:
            return take_run(st, map_no, nbytes, align)
        return take_piece(st, map_no, nbytes >> PAGE_SHIFT, align)
    if map_no != KERNEL:
        h = hole_index.best(st, map_no, nbytes, align)
        if h == NONE:
            return NO_SPACE
        addr = round_up(st.hole[h, START], align)
        hole_index.cut(st, map_no, h, addr, nbytes)
        return addr
    spare = st.total[FREE_SLOTS] - st.total[PROMISED] * (WHOLE - st.p.lend_percent) // WHOLE
    return place(st, nbytes, align, spare)


@kernel
def map_free(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """Give [addr, addr + nbytes) back to map `map_no`: any range that is allocated. Returns 0."""
    if st.quota[map_no, GUARANTEE] > 0:
        s = addr >> st.slot_shift
        if st.slot[s, OWNER] == map_no:
            give_piece(st, map_no, s, (addr >> PAGE_SHIFT) & (pages_of(st) - 1), nbytes >> PAGE_SHIFT)
        else:
            count(st, map_no, 0, -(nbytes >> PAGE_SHIFT))
            give(st, addr, nbytes)
    elif map_no == KERNEL:
        give(st, addr, nbytes)
    else:
        hole_index.give(st, map_no, addr, nbytes)
    return 0


@outlined
def map_measure(st: State, map_no: MapNo, out: Words) -> None:
    """Write the state of map `map_no` into `out` (int64[M_COUNT]). A soft submap has nothing of its own."""
    hole_index.map_measure(st, map_no, out)
    if map_no == KERNEL:
        out[gauge.PROMISED] = st.total[PROMISED] << st.slot_shift
        out[gauge.KEPT] = st.total[FREE_SLOTS] << st.slot_shift


@outlined
def map_paint(st: State, map_no: MapNo, bins: Shares) -> None:
    """Write the occupied share of each of len(bins) equal stretches of map `map_no` (float64, 0 … 1)."""
    hole_index.map_paint(st, map_no, bins)


@kernel
def map_walked(st: State, map_no: MapNo) -> int:
    """Nodes of the index that searches have passed; a soft submap's are kernel_map's."""
    return st.maps[KERNEL if st.quota[map_no, GUARANTEE] > 0 else map_no, hole_list.WALKED]


@kernel
def map_free_bytes(st: State, map_no: MapNo) -> int:
    """Bytes that map `map_no` may still have: of kernel_map what is not promised, of a soft submap what it is due."""
    if st.quota[map_no, GUARANTEE] > 0:
        due = (st.quota[map_no, LIMIT] - have(st, map_no)) * st.p.slot_bytes
        return due + ((st.quota[map_no, SLOTS] * pages_of(st) - st.quota[map_no, USED_PAGES]) << PAGE_SHIFT)
    free = st.maps[map_no, hole_list.FREE]
    return max(free - (st.total[PROMISED] << st.slot_shift), 0) if map_no == KERNEL else free


def census(st: State) -> dict[str, int]:
    """Totals over all maps, and of the consumers."""
    counts = hole_list.census(st)  # type: ignore[arg-type]  # it has the same `maps`
    counts |= {"free_slots": int(st.total[FREE_SLOTS]), "promised_slots": int(st.total[PROMISED])}
    return counts | {"slots": int(st.quota[:, SLOTS].sum()), "slot_pages": int(st.quota[:, USED_PAGES].sum())}


def check(st: State, map_no: int) -> None:
    """Assert what must hold of map `map_no` (slow, for tests)."""
    hole_index.check(st, map_no)
    nbytes, pages = st.p.slot_bytes, st.p.slot_bytes // PAGE
    if map_no == KERNEL:
        whole = sum(max(end // nbytes - -(-start // nbytes), 0) for start, end in holes(st, KERNEL))
        insist(whole == st.total[FREE_SLOTS], "free slots miscounted")
        owned = st.quota[:, SLOTS] - -st.quota[:, RUN_PAGES] // pages
        due = int(np.maximum(st.quota[:, GUARANTEE] - owned, 0).sum() + st.total[ZONES])
        insist(due == st.total[PROMISED], "promises miscounted")
        insist(st.p.lend_percent > 0 or whole >= due, "more is promised than there is")
        return
    mine = np.flatnonzero(st.slot[:, OWNER] == map_no)
    insist(len(mine) == st.quota[map_no, SLOTS], "slots miscounted")
    for free, run in st.slot[mine][:, [FREE_PAGES, RUN]].tolist():
        insist(free != (1 << pages) - 1, "an empty slot that was kept")
        insist(max(map(len, f"{free:b}".split("0"))) == run, "a slot on a wrong list")
