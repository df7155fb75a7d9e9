"""How an arena describes its holes."""

import pytest

from kmemexp.jit import entry
from kmemexp.sim.arenas._shared import measuring
from kmemexp.sim.tables import gauge

MIB = 1 << 20


@pytest.mark.parametrize(
    ("start", "end", "stretches"),
    [(0, 0, 0), (0, 4, 2), (1, 5, 1), (1, 8, 3), (0, 1 << 20, 1 << 19), (3, 12, 4), (5, 7, 0)],
)
def test_stretches_of_a_hole_are_aligned_and_whole(start, end, stretches):
    assert entry(measuring.whole)((end - start) * MIB, end * MIB) == stretches
    assert gauge.STRETCH == 2 * MIB
