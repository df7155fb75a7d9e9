"""Network buffers of FreeBSD 4: `sys/kern/uipc_mbuf.c`, `sys/sys/mbuf.h` (RELENG_4, 2000 to 2003).

Two last-in first-out lists, of mbufs (256 bytes) and clusters (2 KiB). An empty one takes a page from mb_map, which is
16 mbufs (m_mballoc()) or 2 clusters (m_clalloc()), pushed ascending, so that the highest comes first. Pages stay for
ever. Once mb_map has been found full it is never asked again, and requests live on what is freed; nothing panics. One
that may wait and finds nothing sleeps once, for up to `mbuf_wait` ticks, until somebody frees one of its sort, and then
takes what there is (m_mballoc_wait(), m_clalloc_wait()). For mbufs, not for clusters, a page is asked for as by a
request that may not wait first, then by one that may.

A request up to 256 bytes is an mbuf, up to 2 KiB a cluster. A kernel makes a chain for a longer one (m_getm()): so do
we, of clusters, linked through m_next; the first is its address, and a free gives the whole chain back (m_freem()).

Left out: the mbuf that heads every cluster (where a workload has it, it is an operation of its own) and reference
counts; the page of each sort that mbinit() takes at boot; draining the protocols (m_reclaim()) before a request sleeps;
a second sleep of a request for a chain.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, Registers, Table, Words
from kmemexp.sim.allocators._shared.mbufs import CLUSTER, MBUF, MSHIFT, NIL, add_piece, sort_of
from kmemexp.sim.asking import ask_kept, in_kmem_object, let_go, out_of_entries, sleep_on
from kmemexp.sim.caches import Cache, Live, rows
from kmemexp.sim.items import Item
from kmemexp.sim.map_calls import KMEM_MALLOC
from kmemexp.sim.network import MCLBYTES, MSIZE
from kmemexp.sim.slots import CLASS_MBUF, DONE, FAILED, NO_PAGES, NO_SPACE, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import flag, obj, regs

SERVES = (CLASS_MBUF,)
LOCKS = ("splimp",)
CALLS = (f"keep {KMEM_MALLOC}",)  # splimp() is kept through it

# Columns of State.pool, whose rows are MBUF and CLUSTER.
HEAD = 0  # first free piece (mmbfree, mclfree), in units of 256 bytes; NIL: none
FREE = 1  # pieces on the list
TOTAL = 2  # pieces made (m_mbufs, m_clusters)
SIZE = 3  # bytes of a piece
LIMIT = 4  # pieces from which on no page is asked for (nmbufs, nmbclusters)

BEGIN = 0  # phases of an allocation
MAPPED = 1
TRIED = 2  # the map has been asked as if the request could not wait
SLEPT = 3

MBUF_WAIT_NS = 320_000_000  # mbuf_wait: 32 ticks of 10 ms


class Params(NamedTuple):
    """What a sweep may change. FreeBSD 4 limits each sort so that it leaves the other's share of mb_map alone."""

    nmbufs: int = 0  # mbufs beyond which no page is taken for more; 0: mb_map's own size decides
    nmbclusters: int = 0  # the same for clusters


class State(NamedTuple):
    """The two lists and their links; `pages` is kva_bytes / 4096."""

    p: Params
    map: int  # number of mb_map
    full: Words  # int64[1], mb_map_full
    pool: Table  # int64[2, 5], rows MBUF, CLUSTER
    sort: Words  # int8[pages], row of the pool that a page was cut up for
    link: Words  # int32[kva_bytes / 256], of a free piece: the next free; of a live cluster: the next in its chain


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Empty lists. `cpus`, `items` and `bases` are not used. Raises ValueError beyond 8 TiB of KVA."""
    demand.check_kva(kva_bytes)
    pool = np.zeros((2, 5), np.int64)
    pool[:, HEAD] = NIL
    pool[:, SIZE] = MSIZE, MCLBYTES
    pool[:, LIMIT] = params.nmbufs or kva_bytes, params.nmbclusters or kva_bytes
    sort = demand.zeros(kva_bytes >> PAGE_SHIFT, np.int8)
    pieces = kva_bytes >> MSHIFT
    link = demand.empty(pieces, demand.names(pieces))  # a link is written before it is read
    return State(params, map_number, np.zeros(1, np.int64), pool, sort, link)


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Take an mbuf, a cluster or a chain. regs.GRANTED counts what the chain holds so far, regs.X is its last piece."""
    k, phase = sort_of(reg[i, regs.SIZE]), reg[i, regs.PHASE]
    if phase == TRIED:
        reg[i, regs.FLAGS] &= ~flag.NOWAIT
    if phase == BEGIN:
        reg[i, regs.GRANTED] = 0
    elif phase == SLEPT:
        reg[i, regs.FLAGS] |= flag.NOWAIT
    elif reg[i, regs.BASE] >= 0:
        _carve(st, k, reg[i, regs.BASE])
        reg[i, regs.WORK] = PAGE // st.pool[k, SIZE] - 1
    elif phase == TRIED and reg[i, regs.BASE] == NO_PAGES:
        return _ask(st, reg, i, MAPPED)
    else:
        return _refused(st, reg, i, k)
    while True:
        if st.pool[k, HEAD] == NIL:
            return _ask_map(st, reg, i, k)
        if add_piece(reg, i, st.link, _pop(st, k), st.pool[k, SIZE]):
            return DONE


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Push every piece of the chain, the first one first: m_freem()."""
    _free_chain(st, reg, i)
    return DONE


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Take an mbuf or a cluster from its list."""
    k = sort_of(size)
    if st.pool[k, HEAD] == NIL or size > st.pool[k, SIZE]:
        return obj.ABSENT, 0
    piece = _pop(st, k)
    st.link[piece] = NIL
    return piece << MSHIFT, st.pool[k, SIZE]


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Push every piece of the chain."""
    _push_chain(st, addr)
    return True


@kernel
def _pop(st: State, k: int) -> int:
    """Take the first piece of a list, which is not empty."""
    piece = st.pool[k, HEAD]
    st.pool[k, HEAD] = st.link[piece]
    st.pool[k, FREE] -= 1
    return piece


@kernel
def _free_chain(st: State, reg: Registers, i: int) -> None:
    """Free the chain at regs.ADDR. Each piece lets a sleeper of its sort go on: MMBWAKEUP(), MCLWAKEUP()."""
    k = st.sort[reg[i, regs.ADDR] >> PAGE_SHIFT]
    let_go(reg, i, k, _push_chain(st, reg[i, regs.ADDR]))


@kernel
def _push_chain(st: State, addr: Address) -> int:
    """Push every piece of a chain; returns how many."""
    n = 0
    k = st.sort[addr >> PAGE_SHIFT]
    piece = addr >> MSHIFT
    while piece != NIL:
        after = st.link[piece]
        st.link[piece] = st.pool[k, HEAD]
        st.pool[k, HEAD] = piece
        st.pool[k, FREE] += 1
        piece = after
        n += 1
    return n


@kernel
def _ask_map(st: State, reg: Registers, i: int, k: int) -> int:
    if st.full[0] or st.pool[k, TOTAL] >= st.pool[k, LIMIT]:
        return _starve(st, reg, i, k)
    if k == MBUF and reg[i, regs.FLAGS] & flag.NOWAIT == 0:
        reg[i, regs.FLAGS] |= flag.NOWAIT
        return _ask(st, reg, i, TRIED)
    return _ask(st, reg, i, MAPPED)


@kernel
def _ask(st: State, reg: Registers, i: int, phase: int) -> int:
    return in_kmem_object(reg, i, ask_kept(reg, i, phase, st.map, PAGE, PAGE))


@kernel
def _refused(st: State, reg: Registers, i: int, k: int) -> int:
    if out_of_entries(reg, i):
        return _give_up(st, reg, i)
    if reg[i, regs.BASE] == NO_SPACE:
        st.full[0] = 1
    return _starve(st, reg, i, k)


@kernel
def _starve(st: State, reg: Registers, i: int, k: int) -> int:
    """Sleep for a piece, once, or fail."""
    if reg[i, regs.FLAGS] & flag.NOWAIT:
        return _give_up(st, reg, i)
    return sleep_on(reg, i, SLEPT, -1, k, MBUF_WAIT_NS)


@kernel
def _give_up(st: State, reg: Registers, i: int) -> int:
    """Free what the chain has got already."""
    if reg[i, regs.GRANTED] > 0:
        _free_chain(st, reg, i)
    return FAILED


@kernel
def _carve(st: State, k: int, base: Address) -> None:
    size = st.pool[k, SIZE]
    st.sort[base >> PAGE_SHIFT] = k
    for addr in range(base, base + PAGE, size):
        st.link[addr >> MSHIFT] = st.pool[k, HEAD]
        st.pool[k, HEAD] = addr >> MSHIFT
    st.pool[k, FREE] += PAGE // size
    st.pool[k, TOTAL] += PAGE // size


def caches(st: State, live: Live) -> list[Cache]:
    """What mbufs and clusters hold; a slab is a page."""
    pages = st.pool[:, TOTAL] * st.pool[:, SIZE] >> PAGE_SHIFT
    return rows(("mbuf", "mbuf_cluster"), [()] * 2, st.pool[:, SIZE], pages, pages)


def census(st: State) -> dict[str, int]:
    """Pages held, mbufs and clusters made and free, whether mb_map was found full (0 or 1)."""
    total, free_pieces = st.pool[:, TOTAL], st.pool[:, FREE]
    counts = {
        "pages": (total * st.pool[:, SIZE]).sum() >> PAGE_SHIFT,
        "mbufs": total[MBUF],
        "free_mbufs": free_pieces[MBUF],
        "clusters": total[CLUSTER],
        "free_clusters": free_pieces[CLUSTER],
        "map_full": st.full[0],
    }
    return {name: int(count) for name, count in counts.items()}
