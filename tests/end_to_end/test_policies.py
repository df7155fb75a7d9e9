"""Pro-active policies: each says what it is for, changes the machine it is laid on, and nothing else."""

import json
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kmemexp import api
from kmemexp.boot.design import allocator_names, reapers
from kmemexp.boot.tasks import with_upkeep
from kmemexp.config.files import conf_dir
from kmemexp.errors import ConfigError
from kmemexp.lane import simulate_lanes
from kmemexp.metrics import INDEX
from kmemexp.sim import slots as s

FILES = {path.stem: OmegaConf.load(path) for path in sorted(Path(conf_dir() / "policy").glob("*.yaml"))}
DESIGNS = ("mail2003_bare", "illumos")
SMALL = (
    "workload=server2003", "workload.scale=0.05", "sample.points=4", "sample.snapshots=0", "machine.kva_bytes=256MiB",
)  # fmt: skip


@cache
def cell(*overrides: str) -> dict:
    (plan,) = api.plan([*SMALL, *overrides])
    return json.loads(plan.cells["config"].iloc[0])


def same_machine(config: dict) -> str:
    """Everything about a cell but the policy's name and the parts that it is for."""
    policy = {k: v for k, v in config["policy"].items() if k not in ("name", "parts")}
    return json.dumps(config | {"policy": policy}, sort_keys=True)


@pytest.mark.parametrize("policy", [name for name in FILES if name != "none"])
def test_a_policy_changes_some_design_and_is_refused_where_it_would_change_none(policy):
    changed = 0
    for design in DESIGNS:
        plain = cell(f"design={design}")
        arena = FILES[policy].get("maps", {}).get("arena", plain["maps"]["arena"])
        given = {place: name for place, name in FILES[policy].get("objects", {}).items() if isinstance(name, str)}
        if {arena, *allocator_names(plain["objects"] | given)}.isdisjoint(FILES[policy].policy.parts):
            with pytest.raises(ConfigError, match=f"policy={policy}: does nothing for design={design}"):
                cell(f"design={design}", f"policy={policy}")
        else:
            config = cell(f"design={design}", f"policy={policy}")
            assert config["policy"]["name"] == policy
            assert same_machine(config) != same_machine(plain)
            changed += 1
    assert changed


def test_a_policy_may_set_what_the_design_sets_already():
    plain, both = (cell("design=proactive", *asked)["maps"] for asked in ([], ["policy=aligned_apart"]))
    assert (plain["arena"], plain["params"]) == ("soft_submaps", {"soft_submaps": {"near": 1, "zones_percent": 15}})
    assert (both["arena"], both["params"]) == ("two_ended", {"two_ended": {"apart": 1}})


def test_parameters_that_are_none_are_refused():
    for key in ("objects.params.dfly_slab", "maps.params.vm_map"):
        with pytest.raises(ConfigError, match=f"{key}=3: must name parameters"):
            cell("design=mail2003_bare", f"{key}=3")


def test_a_floor_needs_a_watch_and_a_watch_a_floor():
    for lonely in ("policy.floor_bytes=1MiB", "policy.watch_s=2"):
        with pytest.raises(ConfigError, match="set both"):
            cell("design=mail2003_bare", lonely)


def map_operations(*policy: str, cost: str = "none") -> float:
    """Map operations of UMA: what it gives back because it was asked to, it must take again."""
    config = cell("design=freebsd5_uma_unified", f"cost={cost}", "workload.duration_s=100", *policy)
    return float(simulate_lanes(config, [0])[0].metrics[INDEX["map_operations_count"]])


@pytest.mark.parametrize("cost", ["none", "opteron2003"])
def test_a_policy_makes_allocators_give_back_on_either_machine(cost):
    plain = map_operations(cost=cost)
    assert map_operations("policy=trim", "policy.trim_s=1", cost=cost) > 2 * plain
    assert map_operations("policy=run_floor", "policy.floor_bytes=4KiB", cost=cost) == plain, "no run is that short"
    assert map_operations("policy=run_floor", "policy.floor_bytes=4GiB", cost=cost) > 2 * plain, "all are"


def test_the_timed_machine_gets_a_task_for_each_duty():
    config = cell("design=freebsd5_uma_unified", "policy=run_floor", "policy.trim_s=3", "cost=opteron2003")
    tasks = with_upkeep({}, config)
    programs = [task["program"] for name, task in tasks.items() if name.startswith("policy_")]
    reaps = [{"tend": (place, s.TEND_REAP)} for place, gives in enumerate(reapers(config)) if gives]
    assert reaps
    assert programs == [
        [{"sleep": 3_000_000_000}, *reaps],
        [{"sleep": 2_000_000_000}, {"watch": None}, *reaps],
    ]


def test_an_allocator_that_reaps_only_if_asked_is_left_alone_otherwise():
    assert reapers(cell("design=mail2003_bare")) == [False, False]
    assert reapers(cell("design=mail2003_bare", "policy=trim")) == [True, False]


@pytest.mark.parametrize("policy", ["clairvoyant", "offline_longest"])
def test_nothing_is_foreseen_with_a_clock(policy):
    with pytest.raises(ConfigError, match=rf"policy={policy}: rehearses .* with a clock \(cost=opteron2003\)"):
        cell("design=mail2003_bare", f"policy={policy}", "cost=opteron2003")
