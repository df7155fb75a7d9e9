"""The Packet zone of both UMAs: mbufs that keep their clusters. Random programs are in the tests of each."""

from itertools import pairwise

import numpy as np
import pytest
import uma_programs as programs
from uma_programs import KVA

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import uma, uma_today
from kmemexp.sim.allocators.uma import slabs as old
from kmemexp.sim.allocators.uma_today import moves as new
from kmemexp.sim.allocators.uma_today import slabs as u
from kmemexp.sim.network import MCLBYTES, MSIZE, PACKET
from kmemexp.sim.tables import flag, regs
from kmemexp.validate.hand import Hand

BUCKET = {uma: 128, uma_today: 254}  # both zones are UMA_ZONE_MAXBUCKET
GENERATION = {uma: {"generation": 3}, uma_today: {}}
BOTH = pytest.mark.parametrize("module", [uma, uma_today])


def hand(module, **params: int) -> Hand:
    return Hand(module, programs.fresh(module, map_number=2, **GENERATION[module], **params), limit=KVA)


def get(m: Hand, **given) -> int:
    return m.alloc(PACKET, item=s.ITEM_PACKET, **given)


def put(m: Hand, addr: int) -> None:
    m.free(addr, item=s.ITEM_PACKET, size=PACKET)


def cluster(m: Hand, addr: int) -> int:
    """Where the cluster of a packet lies."""
    return (int(m.state.ext[addr // MSIZE]) - 2) * MCLBYTES


def clusters(m: Hand) -> int:
    """Mbufs that have a cluster, live or idle."""
    return int((m.state.ext > new.BARE_PACKET).sum())


@BOTH
def test_a_bucket_of_packets_is_one_of_mbufs_that_have_clusters(module):
    m = hand(module)
    first = get(m)
    assert m.granted == PACKET == MSIZE + MCLBYTES
    assert clusters(m) == BUCKET[module]
    steps = len(m.answers)
    second = get(m)
    assert steps > 100
    assert m.answers == [s.DONE]
    places = {(a, a + MSIZE) for a in (first, second)} | {
        (cluster(m, a), cluster(m, a) + MCLBYTES) for a in (first, second)
    }
    spans = sorted(places)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


@BOTH
def test_a_packet_that_lies_idle_keeps_its_cluster(module):
    m = hand(module)
    addr = get(m)
    mine = cluster(m, addr)
    put(m, addr)
    assert (clusters(m), cluster(m, addr)) == (BUCKET[module], mine)


@BOTH
def test_clusters_that_run_out_shorten_the_bucket(module):
    m = hand(module, nmbclusters=100)
    got = [get(m, flags=flag.NOWAIT) for _ in range(101)]
    assert got[100] == -1
    assert -1 not in got[:100]
    assert clusters(m) == 100


@BOTH
def test_idle_packets_count_against_the_limit_of_clusters(module):
    """All clusters lie with packets that nobody uses, and a plain cluster is refused; drained, it is had."""
    m = hand(module, nmbclusters=100)
    for addr in [get(m) for _ in range(100)]:
        put(m, addr)
    assert m.alloc(MCLBYTES, item=s.ITEM_MBUF, flags=flag.NOWAIT) == -1
    assert m.alloc(MSIZE, item=s.ITEM_MBUF) >= 0


def test_a_drain_of_all_takes_packets_apart():
    m = hand(uma_today, reap=2)
    for addr in [get(m) for _ in range(600)]:
        put(m, addr)
    for _ in range(2):
        m.tend(s.TEND_REAP)
    assert clusters(m) == 0
    assert set(uma_today.census(m.state).values()) == {0}


def test_a_reclaim_of_2004_empties_the_lists_of_packets_and_spares_the_cpus_buckets():
    m = hand(uma)
    for addr in [get(m) for _ in range(600)]:
        put(m, addr)
    m.tend(s.TEND_REAP)
    kept = [int(m.state.word[b + old.B_COUNT]) for b in m.state.cache[old.PACKET, 0, [old.ALLOC, old.FREE]]]
    assert clusters(m) == sum(kept) > 0
    assert m.state.zone[old.PACKET, old.Z_READY] == old.NIL


def test_mbufs_of_packets_do_not_count_against_nmbufs():
    """Today a limit is a zone's, not its keg's."""
    m = hand(uma_today, nmbufs=20)
    assert -1 not in [get(m) for _ in range(50)]
    assert -1 not in [m.alloc(MSIZE, item=s.ITEM_MBUF) for _ in range(20)]
    assert m.alloc(MSIZE, item=s.ITEM_MBUF, flags=flag.NOWAIT) == -1


def test_while_somebody_sleeps_for_a_cluster_a_packet_that_is_freed_drains_the_lists():
    m = hand(uma_today, nmbclusters=800)
    held = [get(m) for _ in range(800)]
    for addr in held[:780]:
        put(m, addr)
    assert m.state.dom[new.PACKET, 0, u.D_COUNT] == 2 * 254
    state, reg = m.state, np.zeros((2, regs.COLUMNS), np.int64)
    reg[0, regs.ITEM], reg[0, regs.SIZE], reg[0, regs.LOCK] = s.ITEM_MBUF, MCLBYTES, -1
    while (answer := uma_today.alloc(state, reg, 0)) == s.AGAIN:
        pass
    assert answer == s.SLEEP
    assert reg[0, regs.CHANNEL] == new.CLUSTER
    reg[1, regs.ITEM], reg[1, regs.SIZE], reg[1, regs.ADDR] = s.ITEM_PACKET, PACKET, held[790]
    while (answer := uma_today.free(state, reg, 1)) == s.AGAIN:
        pass
    assert answer == s.DONE
    assert (reg[1, regs.WAKE], reg[1, regs.WAKES]) == (new.CLUSTER + 1, 2 * 254)
    assert state.dom[new.PACKET, 0, u.D_COUNT] == 0
    while (answer := uma_today.alloc(state, reg, 0)) == s.AGAIN:
        pass
    assert answer == s.DONE
    assert state.zone[new.CLUSTER, u.Z_SLEEPERS] == 0


@BOTH
def test_what_may_wait_sleeps_for_a_cluster_and_then_goes_on_with_what_it_has(module):
    """Without anybody to free one, a bucket is as long as there were clusters for it; nothing fails."""
    m = hand(module, nmbclusters=10)
    assert get(m) >= 0
    assert s.SLEEP in m.answers
    assert clusters(m) == 10
