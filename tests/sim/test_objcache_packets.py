"""DragonFly's objcache of mbufs with their clusters: m_getcl() from June 2005 on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as h

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import objcache, objcache_2020
from kmemexp.sim.allocators._shared import objcaches
from kmemexp.sim.network import MCLBYTES, MSIZE, PACKET
from kmemexp.sim.tables import flag
from kmemexp.validate.hand import Hand

KVA = 1 << 24
DATES = [(objcache, 1), (objcache, 3), (objcache_2020, None)]  # June 2005, February 2010, July 2020
EACH = pytest.mark.parametrize(("module", "generation"), DATES)
MBUFS, CLUSTERS, PACKETS = range(3)  # caches


def hand(module, generation, clusters: int, cpus: int = 1) -> Hand:
    given = {} if generation is None else {"generation": generation}
    params = module.Params(nmbufs=2 * clusters, nmbclusters=clusters, **given)
    return Hand(module, module.init(params, kva_bytes=KVA, cpus=cpus, map_number=0, items=(), bases=()), limit=KVA)


def get(m: Hand, **more) -> int:
    return m.alloc(PACKET, item=s.ITEM_PACKET, **more)


def put(m: Hand, addr: int, **more) -> None:
    m.free(addr, item=s.ITEM_PACKET, size=PACKET, **more)


def cluster(m: Hand, addr: int) -> int:
    return int(m.state.mate[addr // MSIZE]) * MSIZE


def left(m: Hand) -> list[int]:
    """Objects that each cache may still make."""
    return m.state.depot[:3, objcaches.UNALLOCATED].tolist()


def idle(m: Hand, z: int) -> int:
    """Objects in magazines of a cache: those of CPUs and of the depot."""
    st = m.state
    full, found = int(st.depot[z, objcaches.FULL]), st.magazine[st.pair[z].ravel(), objcaches.ROUNDS].sum()
    while full >= 0:
        found += st.magazine[full, objcaches.ROUNDS]
        full = int(st.magazine[full, objcaches.NEXT])
    return int(found)


@EACH
def test_a_packet_is_an_mbuf_of_its_own_cache_with_a_cluster_of_theirs(module, generation):
    m = hand(module, generation, 2000)
    before = left(m)
    addr = get(m)
    assert m.granted == PACKET
    assert left(m) == [before[0], before[1] - 1, before[2] - 1]
    assert cluster(m, addr) // MCLBYTES != addr // MCLBYTES
    put(m, addr)
    assert m.answers == [s.DONE]
    assert (get(m), m.answers) == (addr, [s.DONE])
    assert left(m) == [before[0], before[1] - 1, before[2] - 1]


@EACH
def test_an_idle_cluster_is_taken_before_a_new_one(module, generation):
    m = hand(module, generation, 2000)
    plain = m.alloc(MCLBYTES, item=s.ITEM_MBUF)
    m.free(plain, item=s.ITEM_MBUF, size=MCLBYTES)
    assert cluster(m, get(m)) == plain


@EACH
def test_a_destructor_puts_the_cluster_into_the_clusters_magazines(module, generation):
    m = hand(module, generation, 3000)
    room = 2 * int(m.state.depot[PACKETS, objcaches.CAPACITY])
    m.state.depot[PACKETS, objcaches.EMPTY] = objcaches.NIL  # the depot takes none, as in 2005
    held = [get(m) for _ in range(room + 1)]
    for addr in held[:-1]:
        put(m, addr)
    last = cluster(m, held[-1])
    before = left(m)
    put(m, held[-1])
    assert (idle(m, PACKETS), idle(m, CLUSTERS)) == (room, 1)
    assert left(m) == [before[0], before[1], before[2] + 1]
    assert m.alloc(MCLBYTES, item=s.ITEM_MBUF) == last


@EACH
def test_without_a_cluster_the_mbuf_goes_back_and_the_request_fails(module, generation):
    m = hand(module, generation, 3000)
    m.state.depot[CLUSTERS, objcaches.UNALLOCATED] = 1
    assert get(m, flags=flag.NOWAIT) >= 0
    before, live = left(m), module.census(m.state)["live_bytes"]
    assert get(m, flags=flag.NOWAIT) == -1
    assert (left(m), module.census(m.state)["live_bytes"]) == (before, live)
    assert get(m) == -1
    assert s.SLEEP in m.answers


REQUESTS = {MBUFS: (s.ITEM_MBUF, MSIZE), CLUSTERS: (s.ITEM_MBUF, MCLBYTES), PACKETS: (s.ITEM_PACKET, PACKET)}


@EACH
@settings(max_examples=25)
@given(h.lists(h.tuples(h.sampled_from([0, 1, 2, 2]), h.integers(1, 90), h.booleans(), h.integers(0, 1)), max_size=25))
def test_nothing_is_lost_whatever_comes_and_goes(module, generation, program):
    """Objects that a cache has made are live, or idle in its magazines; clusters besides with packets of both sorts."""
    m = hand(module, generation, 150, cpus=2)
    first = left(m)
    live: list[tuple[int, int]] = []
    for kind, count, freeing, cpu in program:
        item, size = REQUESTS[kind]
        for _ in range(count):
            if not freeing:
                addr = m.alloc(size, item=item, cpu=cpu, flags=flag.NOWAIT)
                live += [(addr, kind)] if addr >= 0 else []
            elif live:
                addr, which = live.pop(count * 7 % len(live))
                m.free(addr, item=REQUESTS[which][0], size=REQUESTS[which][1], cpu=cpu)
        made = [was - now for was, now in zip(first, left(m), strict=True)]
        mine = [sum(which == z for _, which in live) + idle(m, z) for z in range(3)]
        assert made == [mine[MBUFS], mine[CLUSTERS] + mine[PACKETS], mine[PACKETS]]
        spans = [(addr, addr + (MCLBYTES if which == CLUSTERS else MSIZE)) for addr, which in live]
        spans += [(cluster(m, addr), cluster(m, addr) + MCLBYTES) for addr, which in live if which == PACKETS]
        spans.sort()
        assert all(spans[k][1] <= spans[k + 1][0] for k in range(len(spans) - 1))
        held = sum(PACKET if which == PACKETS else REQUESTS[which][1] for _, which in live)
        assert module.census(m.state)["live_bytes"] == held
