import pytest
from workload_fakes import kind, load

from kmemexp.errors import ConfigError
from kmemexp.workload.check import check

PHASE = {"name": "a", "seconds": 2.0, "level": 1.0}
CHOICE = {"law": "choice", "bytes": [16, 32], "weights": [1, 1]}


def with_kind(**changes):
    return load({"object": kind(**changes)})


def without(mapping, key):
    return {k: v for k, v in mapping.items() if k != key}


@pytest.mark.parametrize(
    "workload",
    [
        load(),
        load(duration_s=0),
        load({"a": kind(**{"class": "zone"}), "b": kind(group="names")}, phases=[PHASE | {"groups": {"names": 3}}]),
        with_kind(size=CHOICE, nowait=1, soft=0.5, remote=0, start=5),
        load(phases=[PHASE | {"once": True}, PHASE], duration_s=100.0),
    ],
)
def test_good_configs_pass(workload):
    check(workload)


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        (load(source="magic"), "workload.source: must be one of 'synthetic', 'trace', not 'magic'"),
        (without(load(), "scale"), "workload.scale: is missing"),
        (load(speed=2), "workload.speed: unknown key"),
        (load(scale=0), "workload.scale: must be above 0"),
        (load(scale=1e9), "workload.scale: the load has"),
        (load(duration_s=-1), "workload.duration_s: must be a number of at least 0"),
        (load(duration_s=float("inf")), "workload.duration_s: must be a number"),
        (load(duration_s=1e6), "workload.duration_s: repeats the phases more than"),
        (load(duration_s=3, phases=[PHASE | {"once": True}]), "workload.duration_s: longer than the phases"),
        (load(phases=[]), "workload.phases: must be a list"),
        (load(phases=[PHASE, PHASE | {"seconds": 0}]), r"workload.phases\[1\].seconds: must be above 0"),
        (load(phases=[PHASE | {"level": -0.1}]), r"workload.phases\[0\].level"),
        (load(phases=[PHASE | {"groups": {"no": 2}}]), r"workload.phases\[0\].groups.no: no kind has this group"),
        (load(phases=[PHASE | {"once": 1}]), r"workload.phases\[0\].once: must be true or false"),
        (load(phases=[without(PHASE, "name")]), r"workload.phases\[0\].name: is missing"),
        (load(kinds={}) | {"kinds": {}}, "workload.kinds: there are 0"),
        (load(kinds={"object": 5}), "workload.kinds.object: must be a mapping"),
        (with_kind(**{"class": "heap"}), "workload.kinds.object.class: must be one of 'malloc'"),
        (with_kind(rate_hz=-1), "workload.kinds.object.rate_hz: must be a number of at least 0, not -1"),
        (with_kind(rate_hz="many"), "workload.kinds.object.rate_hz"),
        (with_kind(rate_hz=True), "workload.kinds.object.rate_hz"),
        (with_kind(speed=1), "workload.kinds.object.speed: unknown key"),
        (with_kind(nowait=1.1), "workload.kinds.object.nowait: is a share"),
        (with_kind(remote=-0.1), "workload.kinds.object.remote"),
        (with_kind(start=1.5), "workload.kinds.object.start: must be a whole number"),
        (with_kind(limit=-1), "workload.kinds.object.limit"),
        (with_kind(fill=0.5), "workload.kinds.object.fill: is a share of the physical memory"),
        (with_kind(**{"class": "file", "fill": 1.5}), "workload.kinds.object.fill: is a share"),
        (with_kind(**{"class": "file", "growth": 3}), "workload.kinds.object.growth: must be a power of two"),
        (with_kind(**{"class": "anon", "growth": 1024}), "workload.kinds.object.growth: must be a power of two"),
        (with_kind(**{"class": "anon", "shrinker": "x"}), "workload.kinds.object.shrinker: frees objects of"),
        (with_kind(shrinker=3), "workload.kinds.object.shrinker: must be a text"),
        (with_kind(pinned=0.5), "workload.kinds.object.pinned: is the share that no shrinker may free"),
        (with_kind(group=3), "workload.kinds.object.group: must be a word"),
        (with_kind(lifetime={"law": "gamma"}), "workload.kinds.object.lifetime.law: must be one of 'exponential'"),
        (with_kind(lifetime={"mean_s": 1}), "workload.kinds.object.lifetime.law"),
        (with_kind(lifetime={"law": "exponential"}), "workload.kinds.object.lifetime.mean_s: is missing"),
        (with_kind(lifetime={"law": "exponential", "mean_s": 0}), "lifetime.mean_s: must be above 0"),
        (with_kind(lifetime={"law": "permanent", "mean_s": 1}), "lifetime.mean_s: unknown key"),
        (with_kind(size={"law": "fixed", "bytes": 0}), "size.bytes: must be a whole number of at least 1"),
        (with_kind(size={"law": "fixed", "bytes": 2**31}), "size.bytes: must be at most"),
        (with_kind(size={"law": "uniform", "low_bytes": 9, "high_bytes": 8}), "size.low_bytes: 9 is more than"),
        (with_kind(size=CHOICE | {"weights": [1]}), "size.weights: has 1 entries, bytes has 2"),
        (with_kind(size=CHOICE | {"weights": [0, 0]}), "size.weights: at least one must be above 0"),
        (with_kind(size=CHOICE | {"weights": 1}), "size.weights: must be a list"),
        (with_kind(size=CHOICE, **{"class": "zone"}), "size.law: a zone has items of one size"),
    ],
)
def test_mistakes_are_named(workload, message):
    with pytest.raises(ConfigError, match=message):
        check(workload)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"members": []}, "members: must be a list of at least one"),
        ({"members": [{"kind": "other"}]}, r"members\[0\].kind: must be one of 'object', not 'other'"),
        ({"members": [{"kind": "object", "size": 3}]}, r"members\[0\].size: unknown key; there are 'kind', 'count'"),
        ({"members": [{"kind": "object", "count": 0}]}, r"members\[0\].count: must be a whole number of at least 1"),
        ({"members": [{"kind": "object", "born": [0.5, 0.2]}]}, r"members\[0\].born: must rise"),
        ({"members": [{"kind": "object", "dies": [0.5, 2]}]}, r"members\[0\].dies: are shares of a life"),
        ({"members": [{"kind": "object", "waits_s": 1}]}, r"members\[0\].waits_s: must be two numbers"),
        ({"lifetime": {"law": "fill_to", "bytes": 5}}, "lifetime.law: must be one of"),
        ({"rate_hz": -1}, "rate_hz: must be a number of at least 0"),
        ({"remote": 2}, "remote: is a share"),
        ({"start": 2}, "start: unknown key"),
    ],
)
def test_a_bundle_that_cannot_be_is_refused(wrong, says):
    good = {"rate_hz": 1.0, "lifetime": {"law": "permanent"}, "members": [{"kind": "object"}]}
    check(load(bundles={"one": good}))
    with pytest.raises(ConfigError, match=f"workload.bundles.one.{says}"):
        check(load(bundles={"one": good | wrong}))
