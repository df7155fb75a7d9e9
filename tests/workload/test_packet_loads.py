"""Packets: an mbuf with its cluster in one request, or in two where a design has nothing for both."""

import numpy as np
import pytest

from kmemexp.errors import ConfigError
from kmemexp.sim import items
from kmemexp.sim.network import MCLBYTES, MSIZE, PACKET
from kmemexp.workload import packets
from kmemexp.workload.build import build
from kmemexp.workload.check import check
from kmemexp.workload.stream import MBUF, OP_ALLOC

LIFE = {"law": "exponential", "mean_s": 0.5}
KINDS = {
    "packet": {"class": "mbuf", "packet": True, "size": {"law": "fixed", "bytes": PACKET}, "rate_hz": 50.0,
               "lifetime": LIFE, "remote": 0.3, "nowait": 0.5},
    "small": {"class": "malloc", "size": {"law": "fixed", "bytes": 100}, "rate_hz": 50.0, "lifetime": LIFE},
}  # fmt: skip


def workload(**packet) -> dict:
    kinds = {**KINDS, "packet": KINDS["packet"] | packet}
    phases = [{"name": "all", "seconds": 5.0, "level": 1.0}]
    return {"name": "t", "source": "synthetic", "duration_s": 0.0, "scale": 1.0, "kinds": kinds, "phases": phases}


def load(**more):
    return build(workload() | more, cpus=3, seed=1, replicas=(0, 1))


def test_what_a_design_has_for_both_stays_one_request():
    before = load()
    assert packets.served(before, lambda kind: True, closed=False) is before
    assert before.kinds.traits_of(0).flags == items.PACKET
    assert packets.are_packets(before.kinds).tolist() == [True, False]


def test_elsewhere_a_packet_is_an_mbuf_and_right_behind_it_a_cluster():
    before = load()
    after = packets.served(before, lambda kind: False, closed=False)
    assert after.kinds.names == ("packet", "small", "packet_cluster")
    assert after.kinds.klass[[0, 2]].tolist() == [MBUF, MBUF]
    assert after.kinds.size[[0, 2]].tolist() == [MSIZE, MCLBYTES]
    assert not packets.are_packets(after.kinds).any()
    for old, new in zip(before.streams, after.streams, strict=True):
        assert new.length == old.length + int((old.kind == 0).sum())
        first = np.flatnonzero(new.kind == 0)
        for name in ("time_ns", "op", "cpu", "flags"):
            assert (getattr(new, name)[first] == getattr(new, name)[first + 1]).all()
        assert (new.kind[first + 1] == 2).all()
        assert (new.slot[first + 1] == new.slot[first] + old.slots).all()
        allocs = new.op[first] == OP_ALLOC
        assert set(new.size[first[allocs]]) == {MSIZE}
        assert set(new.size[first[allocs] + 1]) == {MCLBYTES}
        rest = new.rows(new.kind == 1)
        for ours, theirs in zip(rest.arrays, old.rows(old.kind == 1).arrays, strict=True):
            assert (ours == theirs).all()


def test_in_a_closed_load_there_is_no_pause_between_the_two():
    closed = load(pause_ns=1000.0)
    (after, *_) = packets.served(closed, lambda kind: False, closed=True).streams
    assert not after.time_ns[after.kind == 2].any()
    assert after.time_ns.sum() == closed.streams[0].time_ns.sum()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"class": "malloc"}, "workload.kinds.packet.class: packets are of class mbuf"),
        ({"size": {"law": "fixed", "bytes": 2048}}, "must be fixed, of 2304 bytes"),
        ({"size": {"law": "uniform", "low_bytes": 1, "high_bytes": 9}}, "must be fixed, of 2304 bytes"),
        ({"packet": 1}, "workload.kinds.packet.packet: must be true or false"),
    ],
)
def test_what_cannot_be_a_packet_is_refused(wrong, says):
    with pytest.raises(ConfigError, match=says):
        check(workload(**wrong))
