"""The sweep of what every design would hold of a recording."""

from pathlib import Path

import pytest

from kmemexp.errors import InputError
from kmemexp.planning.plan import plan_from

ROOT = Path(__file__).parents[2]


def test_a_recording_is_planned_under_many_designs_and_two_streams():
    (plan,) = plan_from(["+sweep=what_if", "workload.path=filetree"])
    assert plan.baseline == {"design": "linux_6_18"}
    assert set(plan.cells["workload"]) == {"filetree"}
    assert {"linux_6_12", "linux_7_1", "illumos", "freebsd4", "dragonfly_2020"} < set(plan.cells["design"])
    assert plan.cells["stream_key"].nunique() == 2  # designs are given the same objects


def test_without_a_recording_of_ones_own_a_shipped_one_is_asked_about():
    (plan,) = plan_from(["+sweep=what_if"])
    assert set(plan.cells["workload"]) == {"filetree"}


def test_a_load_of_its_own_needs_a_recording():
    with pytest.raises(InputError, match=r"workload\.path: names the recording"):
        plan_from(["workload=trace"])


def test_all_designs_that_the_machine_can_run_are_asked() -> None:
    (plan,) = plan_from(["+sweep=what_if"])
    others = {"freebsd15", "illumos_amd64"}  # amd64 only
    assert set(plan.cells["design"]) == {path.stem for path in (ROOT / "conf" / "design").glob("*.yaml")} - others
