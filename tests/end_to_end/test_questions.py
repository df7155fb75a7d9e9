"""Questions that people ask, with loads of their own (`--config-dir`), and the answers that are right."""

import json
from pathlib import Path

import pytest

from kmemexp.lane import simulate_lanes
from kmemexp.metrics import NAMES
from kmemexp.planning.plan import plan_from

GIB, MIB = 1 << 30, 1 << 20


@pytest.fixture
def questions(shared_traces: Path) -> str:
    folder = shared_traces.parent / "cases" / "questions"
    if not folder.is_dir():
        pytest.skip("the questions are not there")
    return str(folder)


def answer(folder: str, *overrides: str) -> dict[str, float]:
    (plan,) = plan_from(overrides, folder)
    (lane,) = simulate_lanes(json.loads(plan.cells["config"].iloc[0]), [0])
    return dict(zip(NAMES, lane.metrics.tolist(), strict=True))


@pytest.mark.parametrize("ram", [2, 4, 8, 64])
def test_q1_a_machine_of_64_bits_has_any_amount_of_ram(questions: str, ram: int) -> None:
    machine = [f"machine.ram_bytes={ram}GiB", f"machine.kva_bytes={2 * ram}GiB"]
    value = answer(questions, "design=linux_slub", "workload=memcg", *machine)
    assert value["alloc_failures_count"] == 0
    assert value["malloc_largest_run_min_bytes"] > ram * GIB - 64 * MIB


def test_q1_so_may_its_kva_be_for_dragonflys_slab(questions: str) -> None:
    value = answer(questions, "design=dragonfly_slab", "workload=memcg", "machine.kva_bytes=64GiB")
    assert value["alloc_failures_count"] == 0
    assert value["kernel_map_largest_run_min_bytes"] > 63 * GIB


def test_q2_more_clusters_have_room_in_mb_map(questions: str) -> None:
    usual, more = (
        answer(questions, "design=freebsd4", "workload=clusters", *given)
        for given in ([], ["objects.params.mbuf.nmbclusters=8192"])
    )
    assert more["alloc_failures_count"] < usual["alloc_failures_count"] / 20
    assert more["mb_map_free_min_bytes"] > usual["mb_map_free_min_bytes"]


def test_q3_kmem_map_is_as_large_as_the_tunable_says(questions: str) -> None:
    asked = ["machine=i386_2g", "design=freebsd4", "workload=arc"]
    usual = answer(questions, *asked)
    roomy = answer(questions, *asked, "machine.tunables.vm_kmem_size_bytes=400MiB")
    assert usual["panics_count"] > 0
    assert roomy["panics_count"] == roomy["alloc_failures_count"] == 0
    assert roomy["held_peak_bytes"] < 400 * MIB


def test_q4_the_vmalloc_area_has_figures_of_its_own(questions: str) -> None:
    machine = ["machine.ram_bytes=768MiB", "machine.kva_bytes=1021MiB"]
    value = answer(questions, "design=linux_slub", "workload=vmalloc", *machine)
    assert value["failed_fragmented_count"] == value["alloc_failures_count"] > 0
    assert value["kernel_map_largest_run_min_bytes"] < MIB  # the largest module
    assert value["kernel_map_external_frag_mean_ratio"] > 0.5
