"""Every allocator and arena found by name keeps the promises of `sim/slots.py` on the real driver."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_cell import LOAD, cell

from kmemexp.boot.machine import Machine, boot
from kmemexp.parts import contract, finding
from kmemexp.sim import allocators, arenas, slots
from kmemexp.sim.tables import gauge, obj, tally
from kmemexp.testing import check_allocator
from kmemexp.workload import build, stream

ALLOCATORS = [*finding.parts("allocators"), "absent"]
MAPS_OWN = 1 << 20  # bytes that an arena may keep for its own entries
ARENAS = finding.parts("arenas")
BESIDE = {
    "fast_fits": "sequential", "lazy_buddy": "sequential", "uma_today": "vmem", "illumos_kmem": "vmem_illumos",
    "slab_by_need": "soft_submaps",
}  # fmt: skip
"""Arenas of allocators with which a built-in design has them, so that they are compiled once for both; else vm_map."""
SHARED = {
    "slab_by_need": {"mbuf": "mbuf"},
    "objcache": {"zone": "zalloc"}, "objcache_2020": {"zone": "zalloc"},
    "percpu_freelist": {"malloc": "dfly_slab"}, "mb_alloc": {"malloc": "uma", "zone": "uma"},
}  # fmt: skip
"""Who serves the rest in a built-in design, for the same reason; check_allocator asks for what is not served here."""


@pytest.mark.parametrize("name", ALLOCATORS)
def test_an_allocator_has_every_name_that_a_design_needs(name: str) -> None:
    module = importlib.import_module(f"{allocators.__name__}.{name}")
    assert list(contract.problems(module, "allocators")) == []


@pytest.mark.parametrize("name", ARENAS)
def test_an_arena_has_every_name_that_a_design_needs(name: str) -> None:
    module = importlib.import_module(f"{arenas.__name__}.{name}")
    assert list(contract.problems(module, "arenas")) == []


@pytest.mark.parametrize("name", [n for n in ALLOCATORS if n != "absent"])
def test_an_allocator_passes_the_conformance_suite(name: str) -> None:
    check_allocator(name, seeds=(0, 1))  # the twins of its kernels are those that its own tests compile


def test_allocators_pass_the_conformance_suite_as_plain_python() -> None:
    names = ("buckets", "uma")
    code = f"from kmemexp.testing import check_allocator as c; [c(n, seeds=(0,), operations=500) for n in {names}]"
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", [n for n in ALLOCATORS if n != "absent"])
def test_an_allocator_keeps_its_chunks_apart_and_loses_nothing(name: str) -> None:
    serves = importlib.import_module(f"{allocators.__name__}.{name}").SERVES
    others = {slots.CLASS_MALLOC: "buckets", slots.CLASS_ZONE: "zalloc", slots.CLASS_MBUF: "mbuf"}
    malloc, zone, mbuf = (name if c in serves else other for c, other in others.items())
    config = cell("unified", "buckets", "kmapentzone", kva_mib=512)
    config["objects"] = {"malloc": malloc, "zone": zone, "mbuf": mbuf, "kinds": {}, "params": {}} | SHARED.get(name, {})
    config["maps"]["arena"] = BESIDE.get(name, "vm_map")
    load = build.build(LOAD, cpus=3, seed=5, replicas=[0])
    ops = load.streams[0]
    held = []
    for _ in range(2):
        machine = boot(config, load.kinds, ops.slots)
        counters, objects = machine.world.counters, machine.world.objects
        for end in np.linspace(0, ops.length, 4).astype(int)[1:]:
            machine.replay(machine.world, *stream.columns(ops), counters[tally.OPS], end)
            live = objects[objects[:, obj.ADDR] >= 0]
            live = live[np.argsort(live[:, obj.ADDR])]
            assert (live[:-1, obj.ADDR] + live[:-1, obj.SIZE] <= live[1:, obj.ADDR]).all()
        assert counters[tally.FAILURES] == 0
        _free_all(machine, ops)
        assert counters[tally.REQUESTED] == counters[tally.GRANTED] == 0
        assert counters[tally.DIRECT] == 0
        held.append((counters[tally.HELD], counters[tally.HELD_PEAK]))
        # The same load once more needs hardly more memory at its peak: nothing was lost on the way.
        machine.replay(machine.world, *stream.columns(ops), 0, ops.length)
        assert counters[tally.FAILURES] == 0
        assert counters[tally.HELD_PEAK] <= held[0][1] * 1.1
    assert held[0] == held[1]


@pytest.mark.parametrize(
    ("name", "layout"),
    [(n, k) for n in ARENAS for k in ("unified" if n == "linux_mm" else "split", "direct")],
)
def test_an_arena_keeps_what_it_hands_out_apart_and_takes_all_of_it_back(name: str, layout: str) -> None:
    config = cell(layout, "buckets", "kmapentzone", kva_mib=512)
    config["maps"] |= {"arena": name, "submaps": [] if layout == "direct" else config["maps"]["submaps"]}
    load = build.build(LOAD, cpus=3, seed=5, replicas=[0])
    ops = load.streams[0]
    machine = boot(config, load.kinds, ops.slots)
    free = [_measured(machine, m)[gauge.FREE] for m in machine.maps]
    for _ in range(2):
        machine.replay(machine.world, *stream.columns(ops), 0, ops.length // 2)
        live = machine.world.objects[machine.world.objects[:, obj.ADDR] >= 0]
        live = live[np.argsort(live[:, obj.ADDR])]
        assert (live[:-1, obj.ADDR] + live[:-1, obj.SIZE] <= live[1:, obj.ADDR]).all()
        machine.replay(machine.world, *stream.columns(ops), ops.length // 2, ops.length)
        assert machine.world.counters[tally.FAILURES] == 0
        _free_all(machine, ops)
        shares = np.zeros(64)
        for m, before in zip(machine.maps, free, strict=True):
            totals = _measured(machine, m, shares)
            assert before - totals[gauge.FREE] <= machine.world.counters[tally.HELD] + MAPS_OWN
            assert totals[gauge.LARGEST] <= totals[gauge.FREE] == totals[gauge.HIST : gauge.CLAIMS].sum()
            assert ((shares >= 0) & (shares <= 1 + 1e-9)).all()


def _measured(machine: Machine, m: int, shares: np.ndarray | None = None) -> np.ndarray:
    totals = np.zeros((1, gauge.COLUMNS), np.int64)
    shares = np.zeros(0) if shares is None else shares
    machine.observe(machine.world.arena, np.array([[m, len(shares), 0]]), totals, shares)
    return totals[0]


def _free_all(machine: Machine, ops: stream.Stream) -> None:
    """Free what the stream has left alive."""
    kind_of = np.zeros(ops.slots, np.int16)
    allocs = ops.op == stream.OP_ALLOC
    kind_of[ops.slot[allocs]] = ops.kind[allocs]  # the last allocation in a slot is the one that lives
    slot = np.flatnonzero(machine.world.objects[:, obj.ADDR] != obj.ABSENT).astype(np.int32)
    n = len(slot)
    columns = (np.ones(n, np.uint8), kind_of[slot], slot, np.zeros(n, np.int32), np.zeros(n, np.int16))
    machine.replay(machine.world, *columns, np.zeros(n, np.uint8), 0, n)


def test_allocators_name_chunks_far_beyond_what_31_bits_can() -> None:
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    program = [sys.executable, str(Path(__file__).with_name("far.py"))]
    run = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
