"""mb_alloc, FreeBSD 5's network buffers: sys/kern/subr_mbuf.c (Bosko Milekic; early 2001, and April 2003, 025b4be1).

Mbufs (256 bytes) and clusters (2 KiB) live in buckets, a few pages each, whose free ones are a stack. Each CPU has a
container, a list of buckets with free buffers, of each sort, and there is a general one. An allocation takes from the
first bucket of its CPU's container, else gets the first bucket of the general one for it, else a new bucket from
mb_map, the highest buffer first. A free goes back to its bucket, under the mutex of the CPU that owns this, or of the
general container. Where that leaves a CPU with more free buffers than its high mark, a bucket becomes the general
container's: the buffer's own if it had none free, else the first one. Buckets are never given back. Once a request that
may wait has found mb_map full, the map is not asked for that sort again; such a request then takes a buffer of any
CPU's container, marks those that are empty (their next free makes a bucket general), tries the general one, and sleeps
for up to `mbuf_wait` ticks until a buffer comes back to that.

Requests become an mbuf, a cluster or a chain of clusters as in `mbuf.py`. A CPU gets the buckets that each has at boot
with its first allocation, since an allocator cannot ask the map before. Each sort has a submap of its own in the
kernel, which its limit stands for; here buckets of both lie in one map. A step that needs both the CPU's mutex and the
general one takes the general one alone, and any free step begins under the mutex of the CPU that runs it: that of
another owner costs a step more.

Left out: protocols' drain routines; the low marks, which no code uses; bucket headers and reference counts, which are
malloc(9)'s; the mbuf that heads each cluster; that the version of 2001 loses a general bucket of which a waiting
request has taken the last buffer.
"""

from collections.abc import Sequence

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, Registers
from kmemexp.sim.allocators._shared.mbufs import CLUSTER, MBUF, MSHIFT, NIL, add_piece, sort_of
from kmemexp.sim.allocators.mb_alloc import containers
from kmemexp.sim.allocators.mb_alloc.containers import enter, leave, new_bucket, pop, put
from kmemexp.sim.allocators.mb_alloc.state import Params, State
from kmemexp.sim.asking import ask_kept, go_on, in_kmem_object, let_go, out_of_entries, sleep_on
from kmemexp.sim.caches import Cache, Live, rows
from kmemexp.sim.items import Item
from kmemexp.sim.map_calls import KMEM_MALLOC_5
from kmemexp.sim.network import MCLBYTES, MSIZE
from kmemexp.sim.slots import AGAIN, CLASS_MBUF, DONE, FAILED, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import flag, obj, regs
from kmemexp.sim.widths import wide

SERVES = (CLASS_MBUF,)
LOCKS = ("adaptive+inherit/cpu", "adaptive+inherit")  # mbuf_pcpu, for both sorts; mbuf_gen
CALLS = (KMEM_MALLOC_5,)  # no lock is held while the map works
GENERAL_LOCK = 1 << regs.LOCK_SHIFT

BUCKET_PAGES = ((1, 1), (2, 4))  # by version and sort
BOOT_BUCKETS = ((4, 16), (2, 8))  # NMB_MBUF_INIT, NMB_CLUST_INIT

# regs.PHASE.
TAKE = 1  # under the CPU's lock: go on with a chain
REFILL = 2  # under the general lock: a bucket of the general container
MAPPED = 3
BOOTED = 4  # a bucket of those at boot; regs.Y: its sort
STEAL = 5  # under the lock of CPU regs.Y
LAST_CHANCE = 6  # under the general lock: one buffer of the general container
FREEING = 7  # under the lock of regs.Y: go on with a chain at regs.X
SLEPT = 8  # under the general lock: as LAST_CHANCE

MBUF_WAIT_NS = 640_000_000  # mbuf_wait: 64 ticks of 10 ms


def limits(maxusers: int) -> tuple[int, int]:
    """Mbufs and clusters that the kernel of 2001 to 2003 allows by itself (nmbufs, nmbclusters)."""
    nmbclusters = 1024 + 64 * maxusers
    return 2 * nmbclusters, nmbclusters


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Return empty containers; `items` and `bases` do not matter.

    Raises ValueError beyond 8 TiB of KVA, or for another version than 0 or 1.
    """
    demand.check_kva(kva_bytes)
    if params.version not in (0, 1):
        raise ValueError(f"version is {params.version}; it must be 0 (2001) or 1 (2003)")
    sort = np.zeros((2, containers.SORT_COLUMNS), np.int64)
    sort[:, containers.SIZE] = MSIZE, MCLBYTES
    sort[:, containers.PAGES] = BUCKET_PAGES[params.version]
    sort[:, containers.EACH] = sort[:, containers.PAGES] * PAGE // sort[:, containers.SIZE]
    sort[:, containers.LIMIT] = params.nmbufs or kva_bytes, params.nmbclusters or kva_bytes
    sort[:, containers.HIGH] = params.mbuf_hiwm, params.clust_hiwm
    sort[:, containers.BOOT] = BOOT_BUCKETS[params.version]
    box = np.zeros((cpus + 1, 2, containers.BOX_COLUMNS), np.int64)
    box[:, :, containers.HEAD] = NIL
    pieces = kva_bytes >> MSHIFT
    bucket = demand.zeros((-(-kva_bytes // PAGE), containers.BUCKET_COLUMNS), demand.names(pieces))
    link = demand.empty(pieces, demand.names(pieces))  # a link is written before it is read
    return State(params, map_number, cpus, sort, box, np.zeros(cpus, np.int64), bucket, link)


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Play one step: mb_alloc(). regs.GRANTED counts what the chain holds so far, regs.X is its last buffer."""
    if reg[i, regs.PHASE] > TAKE:
        return _go_on(st, reg, i)
    if reg[i, regs.PHASE] == 0:
        reg[i, regs.GRANTED] = 0
        if _boots(st, reg[i, regs.CPU]):
            return _boot(st, reg, i)
    return _take(st, reg, i)


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Play one step: m_freem(), from the first buffer of a chain on. regs.X is the next, regs.Y whose lock is held."""
    if reg[i, regs.PHASE] == 0:
        reg[i, regs.X] = reg[i, regs.ADDR] >> MSHIFT
        reg[i, regs.Y] = reg[i, regs.CPU]
    return _free_chain(st, reg, i)


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Take a buffer of the CPU's container, if the CPU has what it begins with."""
    k = sort_of(size)
    if _boots(st, cpu) or size > st.sort[k, containers.SIZE] or st.box[cpu, k, containers.HEAD] == NIL:
        return obj.ABSENT, 0
    piece = pop(st, cpu, k)
    st.link[piece] = NIL
    return piece << MSHIFT, st.sort[k, containers.SIZE]


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Put a buffer, not a chain, back into its bucket in the CPU's container."""
    piece = addr >> MSHIFT
    b = wide(st.bucket[piece >> containers.PAGE_PIECES_SHIFT, containers.FIRST])
    k = wide(st.bucket[b, containers.SORT])
    if st.link[piece] != NIL or st.bucket[b, containers.OWNER] != cpu or _crowded(st, cpu, k):
        return False
    put(st, cpu, k, b, piece, False)
    return True


@kernel
def _boots(st: State, cpu: int) -> bool:
    """Whether a CPU has yet to get buckets that it begins with."""
    return st.booted[cpu] < st.sort[MBUF, containers.BOOT] + st.sort[CLUSTER, containers.BOOT]


@kernel
def _crowded(st: State, owner: int, k: int) -> bool:
    """Whether a buffer that is freed makes a bucket of its owner general."""
    return owner != st.general and (
        st.box[owner, k, containers.COUNT] >= st.sort[k, containers.HIGH] or st.box[owner, k, containers.STARVED] > 0
    )


@kernel
def _take(st: State, reg: Registers, i: int) -> int:
    """Take buffers of the CPU's container, under its lock."""
    k = sort_of(reg[i, regs.SIZE])
    cpu = reg[i, regs.CPU]
    while st.box[cpu, k, containers.HEAD] != NIL:
        if add_piece(reg, i, st.link, pop(st, cpu, k), st.sort[k, containers.SIZE]):
            return DONE
    return go_on(reg, i, REFILL, GENERAL_LOCK)


@outlined
def _go_on(st: State, reg: Registers, i: int) -> int:
    """Play a step of an allocation that its CPU's container could not serve."""
    phase, cpu = reg[i, regs.PHASE], reg[i, regs.CPU]
    k = sort_of(reg[i, regs.SIZE])
    if phase == BOOTED:
        return _booted(st, reg, i)
    if phase == STEAL:
        return _steal(st, reg, i, k)
    if phase == FREEING:
        return FAILED if _free_chain(st, reg, i) == DONE else AGAIN
    if phase == MAPPED:
        if reg[i, regs.BASE] < 0:
            st.sort[k, containers.ASKED] -= st.sort[k, containers.EACH]
            return _refused(st, reg, i, k)
        new_bucket(st, reg, i, k)
        return _take(st, reg, i)
    if phase == LAST_CHANCE or phase == SLEPT:
        if st.box[st.general, k, containers.HEAD] == NIL:
            if phase == SLEPT or reg[i, regs.FLAGS] & flag.NOWAIT:
                return _give_up(st, reg, i)
            return sleep_on(reg, i, SLEPT, GENERAL_LOCK, k, MBUF_WAIT_NS)
        return _got(st, reg, i, k, pop(st, st.general, k))
    if st.box[cpu, k, containers.HEAD] != NIL:  # freed meanwhile
        return go_on(reg, i, TAKE, cpu)
    if st.box[st.general, k, containers.HEAD] == NIL:
        return _ask_map(st, reg, i, k)
    enter(st, cpu, k, leave(st, st.general, k))
    return _got(st, reg, i, k, pop(st, cpu, k))


@kernel
def _got(st: State, reg: Registers, i: int, k: int, piece: int) -> int:
    """Go on with a chain, if that is what the buffer is for, under the CPU's own lock again."""
    whole = add_piece(reg, i, st.link, piece, st.sort[k, containers.SIZE])
    return DONE if whole else go_on(reg, i, TAKE, reg[i, regs.CPU])


@kernel
def _ask_map(st: State, reg: Registers, i: int, k: int) -> int:
    if st.sort[k, containers.FULL]:
        return _starve(st, reg, i)
    if st.sort[k, containers.ASKED] + st.sort[k, containers.EACH] > st.sort[k, containers.LIMIT]:
        return _refused(st, reg, i, k)
    st.sort[k, containers.ASKED] += st.sort[k, containers.EACH]
    return in_kmem_object(reg, i, ask_kept(reg, i, MAPPED, st.map, st.sort[k, containers.PAGES] << PAGE_SHIFT, PAGE))


@kernel
def _refused(st: State, reg: Registers, i: int, k: int) -> int:
    """There is no room for another bucket."""
    if reg[i, regs.PHASE] == MAPPED and out_of_entries(reg, i):
        return _give_up(st, reg, i)
    if reg[i, regs.FLAGS] & flag.NOWAIT == 0:
        st.sort[k, containers.FULL] = 1
    return _starve(st, reg, i)


@kernel
def _starve(st: State, reg: Registers, i: int) -> int:
    """Look into every container if the request may wait: mb_alloc_wait()."""
    if reg[i, regs.FLAGS] & flag.NOWAIT:
        return _give_up(st, reg, i)
    reg[i, regs.Y] = 0
    return go_on(reg, i, STEAL, 0)


@kernel
def _steal(st: State, reg: Registers, i: int, k: int) -> int:
    """Take a buffer of CPU regs.Y's container; its bucket stays there."""
    c = reg[i, regs.Y]
    if st.box[c, k, containers.HEAD] != NIL:
        return _got(st, reg, i, k, pop(st, c, k))
    st.box[c, k, containers.STARVED] += 1
    reg[i, regs.Y] = c + 1
    if c + 1 < st.general:
        return go_on(reg, i, STEAL, c + 1)
    return go_on(reg, i, LAST_CHANCE, GENERAL_LOCK)


@kernel
def _give_up(st: State, reg: Registers, i: int) -> int:
    """Fail, and free what the chain has got already."""
    if reg[i, regs.GRANTED] == 0:
        return FAILED
    reg[i, regs.X] = reg[i, regs.ADDR] >> MSHIFT
    return _hold(
        st,
        reg,
        i,
        wide(st.bucket[st.bucket[reg[i, regs.X] >> containers.PAGE_PIECES_SHIFT, containers.FIRST], containers.OWNER]),
    )


@kernel
def _hold(st: State, reg: Registers, i: int, c: int) -> int:
    """Go on freeing under the lock of container `c`."""
    reg[i, regs.Y] = c
    return go_on(reg, i, FREEING, GENERAL_LOCK if c == st.general else c)


@kernel
def _boot(st: State, reg: Registers, i: int) -> int:
    """Ask for the next of the buckets that a CPU begins with; where there is no room for it, it has no more."""
    cpu = reg[i, regs.CPU]
    k = MBUF if st.booted[cpu] < st.sort[MBUF, containers.BOOT] else CLUSTER
    if st.sort[k, containers.ASKED] + st.sort[k, containers.EACH] > st.sort[k, containers.LIMIT]:
        return _booted_all(st, reg, i)
    st.booted[cpu] += 1
    st.sort[k, containers.ASKED] += st.sort[k, containers.EACH]
    reg[i, regs.Y] = k
    return in_kmem_object(reg, i, ask_kept(reg, i, BOOTED, st.map, st.sort[k, containers.PAGES] << PAGE_SHIFT, PAGE))


@kernel
def _booted(st: State, reg: Registers, i: int) -> int:
    k = reg[i, regs.Y]
    if reg[i, regs.BASE] < 0:  # the kernel would not have come up
        st.sort[k, containers.ASKED] -= st.sort[k, containers.EACH]
        return _booted_all(st, reg, i)
    new_bucket(st, reg, i, k)
    if _boots(st, reg[i, regs.CPU]):
        return _boot(st, reg, i)
    return _take(st, reg, i)


@kernel
def _booted_all(st: State, reg: Registers, i: int) -> int:
    st.booted[reg[i, regs.CPU]] = st.sort[MBUF, containers.BOOT] + st.sort[CLUSTER, containers.BOOT]
    return _take(st, reg, i)


@kernel
def _free_chain(st: State, reg: Registers, i: int) -> int:
    """Free buffers as far as the lock that is held allows: mb_free()."""
    held = reg[i, regs.Y]
    while reg[i, regs.X] != NIL:
        piece = reg[i, regs.X]
        b = wide(st.bucket[piece >> containers.PAGE_PIECES_SHIFT, containers.FIRST])
        k, owner = wide(st.bucket[b, containers.SORT]), wide(st.bucket[b, containers.OWNER])
        crowded = _crowded(st, owner, k)
        needed = st.general if crowded else owner
        if needed != held:
            return _hold(st, reg, i, needed)
        reg[i, regs.X] = st.link[piece]
        put(st, owner, k, b, piece, crowded)
        if needed == st.general:
            let_go(reg, i, k, 1)
    return DONE


def caches(st: State, live: Live) -> list[Cache]:
    """What mbufs and clusters hold; a slab is a bucket."""
    pages = st.sort[:, containers.TOTAL] * st.sort[:, containers.SIZE] >> PAGE_SHIFT
    sizes, slabs = st.sort[:, containers.SIZE], pages // st.sort[:, containers.PAGES]
    return rows(("mbuf", "mbuf_cluster"), [()] * 2, sizes, slabs, pages)


def census(st: State) -> dict[str, int]:
    """Count pages held; mbufs and clusters made, free, and of these general; whether the map is full for a sort."""
    total, free_pieces = st.sort[:, containers.TOTAL], st.box[:, :, containers.COUNT].sum(axis=0)
    counts = {"pages": (total * st.sort[:, containers.SIZE]).sum() >> PAGE_SHIFT}
    for k, name in ((MBUF, "mbufs"), (CLUSTER, "clusters")):
        counts[name] = total[k]
        counts[f"free_{name}"] = free_pieces[k]
        counts[f"general_{name}"] = st.box[st.general, k, containers.COUNT]
        counts[f"{name}_full"] = st.sort[k, containers.FULL]
    return {name: int(count) for name, count in counts.items()}
