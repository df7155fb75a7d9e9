import numpy as np
import pytest

from kmemexp.jit import entry
from kmemexp.lane import fragmentation as frag
from kmemexp.sim import slots as s
from kmemexp.sim.replay import wholly_free
from kmemexp.sim.tables import gauge


def test_johnstone_and_wilsons_measures_of_the_worked_example():
    found = frag.johnstone_wilson([10, 20, 30, 20, 10], [12, 24, 33, 40, 40])
    assert found == pytest.approx((0.9, 0.1, 1.0, 1 / 3))


def test_the_first_of_the_measures_is_no_ratio_of_means():
    live, heap = np.array([10, 20, 30, 20, 10]), np.array([12, 24, 33, 40, 40])
    assert heap.sum() / live.sum() - 1 == pytest.approx(0.655556, abs=1e-6)
    assert frag.johnstone_wilson(live, heap).mean != pytest.approx(0.655556, abs=1e-3)


def test_a_heap_without_live_data_has_no_excess():
    assert np.isnan(frag.johnstone_wilson([0, 0], [4096, 4096])).all()


def free_blocks(counts):
    """Totals of a map whose holes are blocks of 2**order pages: {order: count}."""
    totals = np.zeros((1, gauge.COLUMNS), np.int64)
    for order, count in counts.items():
        totals[0, gauge.HIST + order] = count * s.PAGE << order
        totals[0, gauge.LARGEST] = max(totals[0, gauge.LARGEST], s.PAGE << order)
    totals[0, gauge.FREE] = totals[0, gauge.HIST : gauge.CLAIMS].sum()
    totals[0, gauge.HOLES] = sum(counts.values())
    return totals


# Linux mm/vmstat.c in thousandths, rounded by its integer divisions.
VMSTAT = [
    ({0: 100}, 2, 740, 1000), ({0: 100}, 4, 928, 1000), ({0: 100}, 9, 989, 1000),
    ({0: 4, 1: 2, 3: 1}, 2, -1000, 500), ({0: 4, 1: 2, 3: 1}, 4, 715, 1000), ({0: 4, 1: 2, 3: 1}, 9, 853, 1000),
    ({0: 1000, 1: 500, 2: 250}, 2, -1000, 666), ({0: 1000, 1: 500, 2: 250}, 4, 893, 1000),
    ({0: 1000, 1: 500, 2: 250}, 9, 997, 1000),
    ({3: 64}, 2, -1000, 0), ({3: 64}, 4, 485, 1000), ({3: 64}, 9, 969, 1000),
    ({0: 10, 9: 2}, 2, -1000, 9), ({0: 10, 9: 2}, 4, -1000, 9), ({0: 10, 9: 2}, 9, -1000, 9),
]  # fmt: skip


@pytest.mark.parametrize(("blocks", "order", "index", "unusable"), VMSTAT)
def test_linux_indices_of_the_same_free_blocks(blocks, order, index, unusable):
    totals, nbytes = free_blocks(blocks), s.PAGE << order
    assert 1000 * frag.index_of(nbytes, totals) == pytest.approx(index, abs=2)
    assert 1000 * frag.unusable_ratio(nbytes, totals[0]) == pytest.approx(unusable, abs=1)


def test_a_map_without_a_hole_is_exhausted_not_fragmented():
    totals = np.zeros((2, gauge.COLUMNS), np.int64)
    assert frag.index_of(4096, totals) == 0
    assert frag.unusable_ratio(4096, totals).tolist() == [0, 0]


def test_unusable_ratio_wants_a_power_of_two_of_pages():
    with pytest.raises(ValueError, match="12288"):
        frag.unusable_ratio(12288, np.zeros(gauge.COLUMNS, np.int64))


def test_whole_stretches_are_aligned_and_wholly_free():
    shares = np.zeros(20)
    shares[5] = 0.25
    free = entry(wholly_free)
    assert free(shares, 4) == 4  # pages 4 to 7 are not
    assert free(shares, 8) == 1  # the last four make no stretch
    assert free(shares[:3], 4) == 0
    assert free(shares, 0) == 0  # nothing is counted


def test_stretches_that_no_guarantee_needs():
    """Samples without a promise, with one that other free stretches keep, and with one that takes some of 5."""
    totals = np.zeros((3, 1, gauge.COLUMNS), np.int64)
    totals[1:, 0, gauge.PROMISED] = 8 << 20
    totals[:, 0, gauge.KEPT] = [0, 40 << 20, 17 << 20]
    assert frag.open_stretches(np.array([5.0, 5.0, 5.0]), totals, 4 << 20).tolist() == [5, 5, 2]
