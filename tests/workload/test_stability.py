"""References and protections as changes of a stream: laws, delays, order, and what is refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import kmemexp
from kmemexp.config.files import conf_dir
from kmemexp.errors import ConfigError
from kmemexp.sim.slots import CLASS_ZONE
from kmemexp.workload import seeds, stability
from kmemexp.workload import stream as form

SECOND = 1_000_000_000
READER = {"name": "reader", "rate_hz": 2.0, "hold_s": 0.5, "sleeps": True, "checks": False}


def node(protection: str = "none", *readers: dict, **more: Any) -> dict:
    form = {"kind": "a", "protection": protection, "hold_ratio": 1.0, "oversample": 1, "grace_s": 0.02,
            "readers": {"a": [READER | r for r in readers or ({},)]}}  # fmt: skip
    return form | more


def stream_of(rows: list[tuple[int, int, int, int]], slots: int) -> form.Stream:
    """A stream of rows (ns, op, kind, slot)."""
    time, op, kind, slot = (np.array(column) for column in zip(*rows, strict=True))
    none, size = np.zeros(len(rows), np.int16), np.where(op == 0, 100, 0)
    columns = (time, op, kind, slot, size, none, none)
    types = (np.int64, np.uint8, np.int16, np.int32, np.int32, np.int16, np.uint8)
    return form.Stream(*(column.astype(t) for column, t in zip(columns, types, strict=True)), slots=slots)


def lives(n: int, life_s: float, rest_s: float = 0.0) -> form.Stream:
    """`n` objects of kind 0, one after another in the same slot, each `life_s` long; then kind 1 for `rest_s`."""
    rows = []
    life = round(life_s * SECOND)
    for i in range(n):
        rows += [(i * life, 0, 0, 0), ((i + 1) * life - 1, 1, 0, 0)]
    end = n * life + round(rest_s * SECOND)
    return stream_of([*rows, (end, 0, 1, 0), (end, 1, 1, 0)], 1)


def kinds(*classes: int) -> form.Kinds:
    n = len(classes)
    sizes = np.full(n, 100, np.int32)
    return form.Kinds(tuple("ab"[:n]), np.array(classes, np.int8), sizes, np.ones(n, np.int32), np.zeros(n, np.int32))


def protect(
    stream: form.Stream, stab: dict, *, reads: bool = True, replica: int = 0, klass: int = form.ZONE
) -> form.Load:
    config = {"stability": stab, "seed": 3, "workload": {"name": "test"}, "objects": {}}
    load = form.Load(kinds(klass, form.ZONE), (stream,))
    return stability.protect(load, config, [replica], reads=reads)


def drawn(stream: form.Stream, stab: dict, replica: int = 0) -> tuple[stability.Objects, stability.References]:
    objects = stability.objects_of(stream, 0)
    return objects, stability.references(objects, stab, seeds.generator(3, seeds.REFERENCES, replica))


# The laws.


@pytest.mark.parametrize(("life_s", "hold_s"), [(0.1, 1.0), (1.0, 1.0), (5.0, 0.2)])
def test_outliving_references_are_poisson_with_the_mean_of_an_infinite_server_queue(
    life_s: float, hold_s: float
) -> None:
    n, rate = 20_000, 3.0
    stream = lives(n, life_s)
    _, found = drawn(stream, node("none", {"rate_hz": rate, "hold_s": hold_s}))
    life = life_s - 1e-9
    mean = rate * hold_s * (1 - np.exp(-life / hold_s))
    per_object = np.bincount(found.owner, minlength=n)
    assert per_object.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / n))
    assert per_object.var() == pytest.approx(mean, rel=0.1)
    total = rate * life * n
    assert found.ended + len(found.owner) == pytest.approx(total, abs=5 * np.sqrt(total))


def test_what_outlives_its_object_is_read_an_exponential_time_later() -> None:
    stream = lives(20_000, 1.0)
    objects, found = drawn(stream, node("none", {"hold_s": 0.3}))
    left = (found.read_ns - objects.gone_ns[found.owner]) / SECOND
    assert left.mean() == pytest.approx(0.3, rel=0.05)
    assert left.std() == pytest.approx(0.3, rel=0.05)
    assert (left > 0).all()


def test_hold_ratio_stretches_and_oversampling_multiplies_without_moving_ratios() -> None:
    stream = lives(5_000, 1.0)
    once, many = (drawn(stream, node(oversample=o))[1] for o in (1, 50))
    assert len(many.owner) == pytest.approx(50 * len(once.owner), rel=0.1)
    assert many.own.mean() == pytest.approx(1 / 50, rel=0.1)
    assert once.own.all()
    short, long = (drawn(stream, node(hold_ratio=r))[1] for r in (0.1, 1.0))
    assert len(short.owner) < len(long.owner) / 5


def test_objects_that_are_never_freed_are_never_stale() -> None:
    stream = stream_of([(0, 0, 0, 0), (10 * SECOND, 0, 1, 1)], 2)
    _, found = drawn(stream, node("none", {"rate_hz": 100.0}))
    assert len(found.owner) == 0
    assert found.ended == pytest.approx(1000, abs=200)


def test_references_do_not_depend_on_the_protection_but_on_the_replica() -> None:
    stream = lives(500, 1.0)
    owners = [drawn(stream, node(p))[1] for p in stability.PROTECTIONS]
    for other in owners[1:]:
        np.testing.assert_array_equal(other.read_ns, owners[0].read_ns)
    assert len(drawn(stream, node(), replica=1)[1].owner) != len(owners[0].owner)


# The protections.


def test_a_grace_period_ends_at_the_second_boundary_after_the_free() -> None:
    stream = stream_of([(0, 0, 0, 0), (25_000_000, 1, 0, 0), (SECOND, 0, 1, 1)], 2)
    out = protect(stream, node("grace", {"rate_hz": 0.0}), reads=False).streams[0]
    assert out.time_ns[out.op == form.OP_FREE].tolist() == [60_000_000]


def test_a_grace_period_waits_for_a_reader_that_does_not_sleep_and_not_for_one_that_does() -> None:
    stream = lives(200, 1.0)
    for sleeps in (True, False):
        stab = node("grace", {"sleeps": sleeps, "hold_s": 2.0})
        objects, found = drawn(stream, stab)
        at = stability.freed_ns(objects, found, stab)
        boundary = (objects.gone_ns // 20_000_000 + 2) * 20_000_000
        last = np.zeros(len(at), np.int64)
        np.maximum.at(last, found.owner, found.read_ns)
        np.testing.assert_array_equal(at, boundary if sleeps else np.maximum(boundary, last))


def test_a_count_of_references_frees_at_the_last_read() -> None:
    stream, stab = lives(200, 1.0), node("refcount")
    objects, found = drawn(stream, stab)
    last = objects.gone_ns.copy()
    np.maximum.at(last, found.owner, found.read_ns)
    np.testing.assert_array_equal(stability.freed_ns(objects, found, stab), last)
    assert (last > objects.gone_ns).any()


def test_only_the_kernels_own_references_delay_a_free() -> None:
    stream, many = lives(200, 1.0), node("refcount", oversample=1000)
    objects, found = drawn(stream, many)
    delayed = stability.freed_ns(objects, found, many) > objects.gone_ns
    assert 0.3 < delayed.mean() < 0.9  # with all thousand sets it would be every one
    assert protect(stream, many).watched[0].watches == 0


def test_frees_after_the_end_are_left_out() -> None:
    stream = lives(50, 0.5)
    out = protect(stream, node("refcount", {"hold_s": 20.0}), reads=False).streams[0]
    assert (out.op == form.OP_FREE).sum() < (stream.op == form.OP_FREE).sum()
    assert out.time_ns[-1] <= stream.time_ns[-1]


@given(
    objects=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60), st.integers(0, 1)), min_size=1, max_size=25),
    protection=st.sampled_from(stability.PROTECTIONS),
    hold_s=st.sampled_from([0.001, 0.02, 1.0]),
    seed=st.integers(0, 5),
)
@settings(max_examples=150)
def test_protected_streams_stay_streams(objects: list, protection: str, hold_s: float, seed: int) -> None:
    rows, busy = [], {}
    events = sorted([(born, 1, i) for i, (born, _, _) in enumerate(objects)]
                    + [(born + life, 0, i) for i, (born, life, _) in enumerate(objects)])  # fmt: skip
    spare = list(range(len(objects)))
    for time, allocates, i in events:
        if allocates:
            busy[i] = spare.pop()
        rows.append((time * 10_000_000, 1 - allocates, objects[i][2], busy[i]))
        if not allocates:
            spare.append(busy[i])
    stream = stream_of(rows, len(objects))
    stab = node(protection, {"hold_s": hold_s, "rate_hz": 20.0}, {"hold_s": 0.1, "sleeps": False})
    load = protect(stream, stab, replica=seed)
    out, watched = load.streams[0], load.watched[0]
    assert (np.diff(out.time_ns) >= 0).all()
    live: dict[int, int] = {}
    watching, ended = {}, set()
    for op, kind, slot, size in zip(out.op, out.kind, out.slot.tolist(), out.size.tolist(), strict=True):
        if op == form.OP_ALLOC:
            assert slot not in live
            live[slot] = kind
        elif op == form.OP_FREE:
            assert live.pop(slot) == kind
        elif op == form.OP_WATCH:
            assert live[slot] == 0
            assert size not in watching
            watching[size] = slot
        else:
            assert slot in watching
            assert slot not in ended
            if size & form.READ_LAST:
                ended.add(slot)
    assert len(watching) == len(ended) == watched.watches
    assert max([*live, 0]) < out.slots
    if protection == "refcount":
        assert not watching
    again = protect(stream, stab, replica=seed).streams[0]
    for a, b in zip(out[:-1], again[:-1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_watch_begins_right_before_its_free() -> None:
    out = protect(lives(300, 0.1), node("grace")).streams[0]
    at = np.flatnonzero(out.op == form.OP_WATCH)
    assert len(at)
    assert (out.op[at + 1] == form.OP_FREE).all()
    np.testing.assert_array_equal(out.slot[at + 1], out.slot[at])


def test_with_a_clock_there_are_delays_and_no_reads() -> None:
    load = protect(lives(300, 0.1), node("grace"), reads=False)
    assert set(load.streams[0].op.tolist()) == {form.OP_ALLOC, form.OP_FREE}
    assert load.watched == ()


def test_without_a_kind_the_load_is_what_it_was() -> None:
    stream = lives(3, 0.1)
    assert protect(stream, {"kind": ""}).streams[0] is stream


def test_what_malloc_serves_in_one_size_becomes_a_zone() -> None:
    load = protect(lives(3, 0.1), node("zone"), klass=form.MALLOC)
    assert load.kinds.klass[0] == CLASS_ZONE
    assert load.kinds.size[0] == 100


# What is refused.


def whole(**changes: Any) -> dict:
    return {"kind": "a", "protection": "none", "hold_ratio": 1.0, "oversample": 1, "grace_s": 0.02,
            "readers": {"a": [READER], "b": []}} | changes  # fmt: skip


def test_the_normal_form_leaves_out_what_does_not_matter() -> None:
    assert stability.node(whole(kind="")) == {"kind": ""}
    assert "grace_s" not in stability.node(whole())
    assert stability.node(whole(protection="grace"))["grace_s"] == 0.02
    assert list(stability.node(whole(readers={"a": [READER], "b": [READER]}))["readers"]) == ["a"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protection": "zones"}, "did you mean zone"),
        ({"kind": "c"}, "there are a"),
        ({"kind": "b"}, "says nothing of it"),
        ({"grace_s": 0.0}, "stability.grace_s=0.0"),
        ({"hold_ratio": -1.0}, "stability.hold_ratio"),
        ({"oversample": 0}, "at least 1"),
        ({"readers": {"a": [{"name": "x"}]}}, "must have name, rate_hz"),
        ({"readers": {"a": [READER | {"rate_hz": -1}]}}, r"readers.a\[0\].rate_hz=-1"),
        ({"readers": {"a": [READER | {"sleeps": 1}]}}, "true or false"),
    ],
)
def test_a_wrong_node_is_refused_by_its_key(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stability.node(whole(**changes))


OBJECTS = {"malloc": "buckets", "zone": "dfly_slab", "mbuf": "mbuf", "kinds": {}}
WORKLOAD = {
    "name": "test",
    "kinds": {"a": {"class": "zone", "size": {"law": "fixed"}}, "b": {"class": "malloc", "size": {"law": "uniform"}},
              "c": {"class": "kva", "size": {"law": "fixed"}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("node", "objects", "workload", "message"),
    [
        (whole(kind="d"), OBJECTS, WORKLOAD, "test has no such kind"),
        (whole(protection="zone"), OBJECTS, WORKLOAD, "more than 3"),
        (whole(kind="b", protection="percpu"), OBJECTS | {"malloc": "dfly_slab"}, WORKLOAD, "comes in many sizes"),
        (whole(kind="c", protection="percpu"), OBJECTS | {"malloc": "dfly_slab"}, WORKLOAD, "is of class kva"),
        (whole(), OBJECTS, WORKLOAD | {"pause_ns": 5}, "closed load"),
    ],
)
def test_a_cell_that_cannot_be_is_refused_before_it_runs(
    node: dict, objects: dict, workload: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        stability.check_cell(node, objects, workload)


def test_a_kind_that_the_load_lacks_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="test has no such kind; it has a, b"):
        protect(lives(3, 0.1), node() | {"kind": "z", "readers": {"z": [READER]}})


def test_the_readers_of_2003_pass_the_check_and_know_the_workloads_kinds() -> None:
    readers = OmegaConf.to_container(OmegaConf.load(conf_dir() / "stability/readers/kernel2003.yaml"))
    kinds_of = OmegaConf.load(conf_dir() / "workload/server2003.yaml").kinds
    for kind in readers:
        stability.node(whole(kind=kind, readers=readers))
    assert len(set(readers) & set(kinds_of)) >= 12


def test_a_sweep_of_protections_is_planned_and_an_impossible_one_refused() -> None:
    (plan,) = kmemexp.plan(["design=mail2003_bare", "stability=none,percpu,grace", "stability.kind=proc,tcpcb",
                            "workload=server2003", "machine=i386_512m"])  # fmt: skip
    assert len(plan.cells) == 6
    with pytest.raises(ConfigError, match="more than 3"):
        kmemexp.plan(["design=freebsd4", "stability=percpu", "stability.kind=proc", "workload=server2003"])
    with pytest.raises(ConfigError, match="did you mean proc"):
        kmemexp.plan(["design=mail2003_bare", "stability=none", "stability.kind=prok", "workload=server2003"])


@pytest.mark.parametrize("protection", stability.PROTECTIONS)
def test_every_protection_has_an_option_that_starts_with_nobody_watched(protection: str) -> None:
    option = OmegaConf.load(conf_dir() / f"stability/{protection}.yaml")
    assert (option.protection, option.kind) == (protection, "")
