"""The cost table: what grows with the number of CPUs."""

import pytest

from kmemexp.sim.engine import costs
from kmemexp.sim.engine.tables import glob

COST = {"ipi_ns": 100, "ipi_cpu_ns": 7, "shootdown_ns": 1000, "shootdown_cpu_ns": 70, "shootdown_page_ns": 5,
        "shootdown_answer_ns": 3, "switch_ns": 40, "preempt_ns": 4}  # fmt: skip


@pytest.mark.parametrize(("cpus", "more"), [(2, 0), (3, 1), (4, 2), (64, 62), (256, 254)])
def test_a_message_and_a_shootdown_grow_with_each_cpu_beyond_two_by_figures_of_their_own(cpus, more) -> None:
    row = costs.table(COST, cpus)
    assert row[costs.IPI - glob.COST0] == 100 + 7 * more
    assert row[costs.SHOOTDOWN - glob.COST0] == 1000 + 70 * more


def test_one_cpu_has_nobody_to_shoot_down() -> None:
    row = costs.table(COST, 1)
    assert row[costs.SHOOTDOWN - glob.COST0] == row[costs.SHOOTDOWN_PAGE - glob.COST0] == 0
    assert row[costs.SOCKET_CPUS - glob.COST0] == 1


def test_a_dispatch_costs_what_its_kernel_does_for_it() -> None:
    row = costs.table(COST, 2)
    assert [costs.of_dispatch(row, how) for how in ("borrow", "preempt", "switch")] == [0, 4, 40]
