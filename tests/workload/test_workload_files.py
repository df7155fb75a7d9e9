"""The workloads that ship in conf/workload."""

import copy
import functools
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from workload_fakes import allocs, check_conservation

from kmemexp.workload.build import build, estimate
from kmemexp.workload.check import check
from kmemexp.workload.stream import KERNEL_CLASSES

FOLDER = Path(__file__).parents[2] / "conf" / "workload"
FILES = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


SYNTHETIC = [name for name, path in FILES.items() if "\nsource: trace" not in path.read_text("utf-8")]
"""Told by their text: reading all of them takes seconds, and a test is collected by each worker."""


def read(name):
    """A workload with those that its defaults list builds on."""
    return copy.deepcopy(_read(name))


@functools.cache
def _read(name):
    found = OmegaConf.load(FILES[name])
    entries = found.pop("defaults", ["_self_"])
    parts = [found if entry == "_self_" else OmegaConf.create(_read(entry)) for entry in entries]
    return OmegaConf.to_container(OmegaConf.merge(*parts))


def test_what_is_synthetic_is_told_by_the_text_of_its_file():
    assert [name for name in FILES if read(name)["source"] == "synthetic"] == SYNTHETIC


@pytest.mark.parametrize("name", FILES)
def test_name_is_the_file_s(name):
    assert read(name)["name"] == name


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_loads_are_valid(name):
    check(read(name))


@pytest.mark.parametrize("name", ["berkeley1988", "server2003"])
def test_loads_of_whole_machines_are_moderate(name):
    assert 0.5e6 < estimate(read(name)) < 1.1e6


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_loads_conserve_objects(name):
    workload = read(name)
    pause = workload.pop("pause_ns", None)
    workload["scale"] = 5.0 if pause else 0.05
    (stream,) = build(workload, cpus=2, seed=0, replicas=[0]).streams
    check_conservation(stream)
    assert stream.length == pytest.approx(estimate(workload), rel=0.1 if pause else 0.05)


def test_a_closed_load_has_as_many_operations_for_each_cpu_and_pauses_for_times():
    workload = read("kernel_loop")
    few, many = (build(workload, cpus=n, seed=0, replicas=[0]).streams[0] for n in (2, 8))
    assert many.length == pytest.approx(4 * few.length, rel=0.1)
    assert many.time_ns.mean() == pytest.approx(workload["pause_ns"], rel=0.05)
    assert many.time_ns.min() >= 0


def test_the_server_uses_every_class():
    assert {kind["class"] for kind in read("server2003")["kinds"].values()} == set(KERNEL_CLASSES)


def test_the_server_s_spike_has_256_processes():
    """Bonwick 1994, section 5.2: about 256 processes at once; far fewer before and after."""
    load = build(read("server2003"), cpus=2, seed=0, replicas=[0])
    (stream,) = load.streams
    mine = stream.kind == load.kinds.names.index("proc")
    live = np.cumsum(np.where(allocs(stream)[mine], 1, -1))
    seconds = stream.time_ns[mine] / 1e9
    assert live[(seconds > 240) & (seconds < 300)].max() == pytest.approx(256, rel=0.25)
    assert live[seconds < 240].max() < 128
    assert live[(seconds > 360) & (seconds < 480)].max() < 128


@pytest.mark.slow
def test_the_berkeley_day_has_the_shares_of_its_table():
    """McKusick & Karels 1988: 82.8 % of requests up to 128 bytes, 17.2 % of 1 KiB, 3 778 280 in a day."""
    (stream,) = build(read("berkeley1988") | {"duration_s": 86400.0}, cpus=1, seed=0, replicas=[0]).streams
    size = stream.size[allocs(stream)]
    n = len(size)
    assert n == pytest.approx(3778280, abs=4 * np.sqrt(3778280))
    assert np.mean(size <= 128) == pytest.approx(0.828213, abs=4 * np.sqrt(0.1423 / n))
    assert np.mean(size == 1024) == pytest.approx(0.171711, abs=4 * np.sqrt(0.1422 / n))


def test_the_berkeley_machine_holds_what_its_table_says():
    """Objects in use, at a constant rate; mbufs are tested apart, on a shorter run, because they are so many."""
    kinds = read("berkeley1988")["kinds"]
    expected = {"socket": 37, "pcb": 55, "route": 229, "zombie": 3, "superblock": 24, "device": 13}
    held = held_at_end({name: kinds[name] for name in expected}, seconds=7200.0)
    assert held == pytest.approx(expected, abs=1.0)  # more than four standard errors
    assert held_at_end({"mbuf": kinds["mbuf"]}, seconds=2.0)["mbuf"] == pytest.approx(6, abs=0.5)


def held_at_end(kinds, seconds):
    """Mean number of live objects of each kind at the end, over 1000 replicas at level 1."""
    flat = {"duration_s": seconds, "phases": [{"name": "flat", "seconds": seconds, "level": 1.0}], "kinds": kinds}
    load = build(read("berkeley1988") | flat, cpus=1, seed=0, replicas=range(1000))
    kind = np.concatenate([stream.kind for stream in load.streams])
    change = np.concatenate([np.where(allocs(stream), 1, -1) for stream in load.streams])
    return dict(zip(load.kinds.names, np.bincount(kind, change) / 1000, strict=True))


@pytest.mark.parametrize("name", sorted(set(FILES) - {"trace", *SYNTHETIC}))
def test_trace_loads_are_valid_and_estimated_from_what_ships(name):
    workload = read(name)
    check(workload)
    load = build(workload | {"window_s": 0.5, "copies": 3}, cpus=2, seed=0, replicas=[0])
    check_conservation(load.streams[0])
    (whole,) = build(workload, cpus=4, seed=0, replicas=[0]).streams
    assert whole.length == estimate(workload)
    assert set(np.unique(whole.cpu)) == {0, 1, 2, 3}
