"""mb_alloc, FreeBSD 5's network buffers: sys/kern/subr_mbuf.c (Bosko Milekic; early 2001, and April 2003, 025b4be1).

Mbufs (256 bytes) and clusters (2 KiB) live in buckets, a few pages each, whose free ones are a stack. Each CPU has a
container, a list of buckets with free buffers, of each sort, and there is a general one. An allocation takes from the
first bucket of its CPU's container, else gets the first bucket of the general one for it, else a new bucket from
mb_map, the highest buffer first. A free goes back to its bucket, under the mutex of the CPU that owns this, or of the
general container. Where that leaves a CPU with more free buffers than its high mark, a bucket becomes the general
container's: the buffer's own if it had none free, else the first one. Buckets are never given back. Once a request that
may wait has found mb_map full, the map is not asked for that sort again; such a request then takes a buffer of any
CPU's container, marks those that are empty (their next free makes a bucket general), and tries the general one.

Requests become an mbuf, a cluster or a chain of clusters as in `mbuf.py`. A CPU gets the buckets that each has at boot
with its first allocation, since an allocator cannot ask the map before. Each sort has a submap of its own in the
kernel, which its limit stands for; here buckets of both lie in one map. A step that needs both the CPU's mutex and the
general one takes the general one alone, and any free step begins under the mutex of the CPU that runs it: that of
another owner costs a step more.

Left out: the timed wait of 64 ticks, for which the request fails at once; protocols' drain routines; the low marks,
which no code uses; bucket headers and reference counts, which are malloc(9)'s; the mbuf that heads each cluster; that
the version of 2001 loses a general bucket of which a waiting request has taken the last buffer.
"""

from collections.abc import Sequence

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators._shared.mbufs import CLUSTER, MBUF, MSHIFT, NIL, add_piece, sort_of
from kmemexp.sim.allocators.mb_alloc.containers import (
    ASKED,
    BOOT,
    BOX_COLUMNS,
    BUCKET_COLUMNS,
    COUNT,
    EACH,
    FIRST,
    FULL,
    HEAD,
    HIGH,
    LIMIT,
    OWNER,
    PAGE_PIECES_SHIFT,
    PAGES,
    SIZE,
    SORT,
    SORT_COLUMNS,
    STARVED,
    TOTAL,
    enter,
    leave,
    new_bucket,
    pop,
    put,
)
from kmemexp.sim.allocators.mb_alloc.state import Params, State
from kmemexp.sim.asking import ask_kept, go_on, out_of_entries
from kmemexp.sim.items import Item
from kmemexp.sim.sizing import MCLBYTES, MSIZE
from kmemexp.sim.slots import (
    AGAIN,
    C_MBUF,
    DONE,
    F_NOWAIT,
    FAILED,
    LOCK_SHIFT,
    PAGE,
    PAGE_SHIFT,
    R_ADDR,
    R_BASE,
    R_CPU,
    R_FLAGS,
    R_GRANTED,
    R_PHASE,
    R_X,
    R_Y,
)
from kmemexp.sim.widths import wide

SERVES = (C_MBUF,)
LOCKS = ("adaptive/cpu", "adaptive")  # mbuf_pcpu, for both sorts; mbuf_gen
KEEPS = False  # no lock is held while the map works
GENERAL_LOCK = 1 << LOCK_SHIFT

BUCKET_PAGES = ((1, 1), (2, 4))  # by version and sort
BOOT_BUCKETS = ((4, 16), (2, 8))  # NMB_MBUF_INIT, NMB_CLUST_INIT

# R_PHASE.
TAKE = 1  # under the CPU's lock: go on with a chain
REFILL = 2  # under the general lock: a bucket of the general container
MAPPED = 3
BOOTED = 4  # a bucket of those at boot; R_Y: its sort
STEAL = 5  # under the lock of CPU R_Y
LAST_CHANCE = 6  # under the general lock: one buffer of the general container
FREEING = 7  # under the lock of R_Y: go on with a chain at R_X


def limits(maxusers: int) -> tuple[int, int]:
    """Mbufs and clusters that the kernel of 2001 to 2003 allows by itself (nmbufs, nmbclusters)."""
    nmbclusters = 1024 + 64 * maxusers
    return 2 * nmbclusters, nmbclusters


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Return empty containers; `items` and `bases` do not matter.

    Raises ValueError beyond 512 GiB of KVA, or for another version than 0 or 1.
    """
    if kva_bytes >> MSHIFT > 1 << 31:
        raise ValueError(f"kva_bytes = {kva_bytes}: mbufs are counted in 31 bits (512 GiB)")
    if params.version not in (0, 1):
        raise ValueError(f"version is {params.version}; it must be 0 (2001) or 1 (2003)")
    sort = np.zeros((2, SORT_COLUMNS), np.int64)
    sort[:, SIZE] = MSIZE, MCLBYTES
    sort[:, PAGES] = BUCKET_PAGES[params.version]
    sort[:, EACH] = sort[:, PAGES] * PAGE // sort[:, SIZE]
    sort[:, LIMIT] = params.nmbufs or kva_bytes, params.nmbclusters or kva_bytes
    sort[:, HIGH] = params.mbuf_hiwm, params.clust_hiwm
    sort[:, BOOT] = BOOT_BUCKETS[params.version]
    box = np.zeros((cpus + 1, 2, BOX_COLUMNS), np.int64)
    box[:, :, HEAD] = NIL
    bucket = np.zeros((-(-kva_bytes // PAGE), BUCKET_COLUMNS), np.int32)
    link = np.empty(kva_bytes >> MSHIFT, np.int32)  # a link is written before it is read
    return State(params, map_number, cpus, sort, box, np.zeros(cpus, np.int64), bucket, link)


@kernel
def alloc(st, reg, i):
    """Play one step: mb_alloc(). R_GRANTED counts what the chain holds so far, R_X is its last buffer."""
    if reg[i, R_PHASE] > TAKE:
        return _go_on(st, reg, i)
    if reg[i, R_PHASE] == 0:
        reg[i, R_GRANTED] = 0
        if st.booted[reg[i, R_CPU]] < st.sort[MBUF, BOOT] + st.sort[CLUSTER, BOOT]:
            return _boot(st, reg, i)
    return _take(st, reg, i)


@kernel
def free(st, reg, i):
    """Play one step: m_freem(), the first buffer of a chain first. R_X is the next one, R_Y whose lock is held."""
    if reg[i, R_PHASE] == 0:
        reg[i, R_X] = reg[i, R_ADDR] >> MSHIFT
        reg[i, R_Y] = reg[i, R_CPU]
    return _free_chain(st, reg, i)


@kernel
def _take(st, reg, i):
    """Take buffers of the CPU's container, under its lock."""
    k = sort_of(reg, i)
    cpu = reg[i, R_CPU]
    while st.box[cpu, k, HEAD] != NIL:
        if add_piece(st.link, reg, i, pop(st, cpu, k), st.sort[k, SIZE]):
            return DONE
    return go_on(reg, i, REFILL, GENERAL_LOCK)


@outlined
def _go_on(st, reg, i):
    """Play a step of an allocation that its CPU's container could not serve."""
    phase, cpu = reg[i, R_PHASE], reg[i, R_CPU]
    k = sort_of(reg, i)
    if phase == BOOTED:
        return _booted(st, reg, i)
    if phase == STEAL:
        return _steal(st, reg, i, k)
    if phase == FREEING:
        return FAILED if _free_chain(st, reg, i) == DONE else AGAIN
    if phase == MAPPED:
        if reg[i, R_BASE] < 0:
            st.sort[k, ASKED] -= st.sort[k, EACH]
            return _refused(st, reg, i, k)
        new_bucket(st, reg, i, k)
        return _take(st, reg, i)
    if phase == LAST_CHANCE:
        if st.box[st.general, k, HEAD] == NIL:
            return _give_up(st, reg, i)
        return _got(st, reg, i, k, pop(st, st.general, k))
    if st.box[cpu, k, HEAD] != NIL:  # freed meanwhile
        return go_on(reg, i, TAKE, cpu)
    if st.box[st.general, k, HEAD] == NIL:
        return _ask_map(st, reg, i, k)
    enter(st, cpu, k, leave(st, st.general, k))
    return _got(st, reg, i, k, pop(st, cpu, k))


@kernel
def _got(st, reg, i, k, piece):
    """Go on with a chain, if that is what the buffer is for, under the CPU's own lock again."""
    whole = add_piece(st.link, reg, i, piece, st.sort[k, SIZE])
    return DONE if whole else go_on(reg, i, TAKE, reg[i, R_CPU])


@kernel
def _ask_map(st, reg, i, k):
    if st.sort[k, FULL]:
        return _starve(st, reg, i)
    if st.sort[k, ASKED] + st.sort[k, EACH] > st.sort[k, LIMIT]:
        return _refused(st, reg, i, k)
    st.sort[k, ASKED] += st.sort[k, EACH]
    return ask_kept(reg, i, MAPPED, st.map, st.sort[k, PAGES] << PAGE_SHIFT, PAGE)


@kernel
def _refused(st, reg, i, k):
    """There is no room for another bucket."""
    if reg[i, R_PHASE] == MAPPED and out_of_entries(reg, i):
        return _give_up(st, reg, i)
    if reg[i, R_FLAGS] & F_NOWAIT == 0:
        st.sort[k, FULL] = 1
    return _starve(st, reg, i)


@kernel
def _starve(st, reg, i):
    """Look into every container if the request may wait: mb_alloc_wait()."""
    if reg[i, R_FLAGS] & F_NOWAIT:
        return _give_up(st, reg, i)
    reg[i, R_Y] = 0
    return go_on(reg, i, STEAL, 0)


@kernel
def _steal(st, reg, i, k):
    """Take a buffer of CPU R_Y's container; its bucket stays there."""
    c = reg[i, R_Y]
    if st.box[c, k, HEAD] != NIL:
        return _got(st, reg, i, k, pop(st, c, k))
    st.box[c, k, STARVED] += 1
    reg[i, R_Y] = c + 1
    if c + 1 < st.general:
        return go_on(reg, i, STEAL, c + 1)
    return go_on(reg, i, LAST_CHANCE, GENERAL_LOCK)


@kernel
def _give_up(st, reg, i):
    """Fail, and free what the chain has got already."""
    if reg[i, R_GRANTED] == 0:
        return FAILED
    reg[i, R_X] = reg[i, R_ADDR] >> MSHIFT
    return _hold(st, reg, i, wide(st.bucket[st.bucket[reg[i, R_X] >> PAGE_PIECES_SHIFT, FIRST], OWNER]))


@kernel
def _hold(st, reg, i, c):
    """Go on freeing under the lock of container `c`."""
    reg[i, R_Y] = c
    return go_on(reg, i, FREEING, GENERAL_LOCK if c == st.general else c)


@kernel
def _boot(st, reg, i):
    """Ask for the next of the buckets that a CPU begins with; where there is no room for it, it has no more."""
    cpu = reg[i, R_CPU]
    k = MBUF if st.booted[cpu] < st.sort[MBUF, BOOT] else CLUSTER
    if st.sort[k, ASKED] + st.sort[k, EACH] > st.sort[k, LIMIT]:
        return _booted_all(st, reg, i)
    st.booted[cpu] += 1
    st.sort[k, ASKED] += st.sort[k, EACH]
    reg[i, R_Y] = k
    return ask_kept(reg, i, BOOTED, st.map, st.sort[k, PAGES] << PAGE_SHIFT, PAGE)


@kernel
def _booted(st, reg, i):
    k = reg[i, R_Y]
    if reg[i, R_BASE] < 0:  # the kernel would not have come up
        st.sort[k, ASKED] -= st.sort[k, EACH]
        return _booted_all(st, reg, i)
    new_bucket(st, reg, i, k)
    if st.booted[reg[i, R_CPU]] < st.sort[MBUF, BOOT] + st.sort[CLUSTER, BOOT]:
        return _boot(st, reg, i)
    return _take(st, reg, i)


@kernel
def _booted_all(st, reg, i):
    st.booted[reg[i, R_CPU]] = st.sort[MBUF, BOOT] + st.sort[CLUSTER, BOOT]
    return _take(st, reg, i)


@kernel
def _free_chain(st, reg, i):
    """Free buffers as far as the lock that is held allows: mb_free()."""
    held = reg[i, R_Y]
    while reg[i, R_X] != NIL:
        piece = reg[i, R_X]
        b = wide(st.bucket[piece >> PAGE_PIECES_SHIFT, FIRST])
        k, owner = wide(st.bucket[b, SORT]), wide(st.bucket[b, OWNER])
        crowded = owner != st.general and (st.box[owner, k, COUNT] >= st.sort[k, HIGH] or st.box[owner, k, STARVED] > 0)
        needed = st.general if crowded else owner
        if needed != held:
            return _hold(st, reg, i, needed)
        reg[i, R_X] = st.link[piece]
        put(st, owner, k, b, piece, crowded)
    return DONE


def census(st: State) -> dict[str, int]:
    """Count pages held; mbufs and clusters made, free, and of these general; whether the map is full for a sort."""
    total, free_pieces = st.sort[:, TOTAL], st.box[:, :, COUNT].sum(axis=0)
    counts = {"pages": (total * st.sort[:, SIZE]).sum() >> PAGE_SHIFT}
    for k, name in ((MBUF, "mbufs"), (CLUSTER, "clusters")):
        counts[name] = total[k]
        counts[f"free_{name}"] = free_pieces[k]
        counts[f"general_{name}"] = st.box[st.general, k, COUNT]
        counts[f"{name}_full"] = st.sort[k, FULL]
    return {name: int(count) for name, count in counts.items()}
