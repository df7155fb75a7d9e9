"""Fields of regs.PHASE do not touch each other."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as h

from kmemexp.sim import slots as s
from kmemexp.sim.allocators._shared.packed_phase import FIELD_BITS, PHASE_MASK, field, go_to, set_field
from kmemexp.sim.tables import regs


@settings(deadline=None)
@given(h.lists(h.tuples(h.integers(0, 3), h.integers(0, PHASE_MASK)), max_size=20))
def test_each_field_keeps_what_was_written_last(program):
    reg, written = np.zeros((1, regs.COLUMNS), np.int64), [0] * 4
    reg[0, regs.PHASE] = flag = 1 << 4 * FIELD_BITS
    for number, n in program:
        written[number] = n
        if number == 0:
            assert go_to(reg, 0, n, 7) == s.AGAIN
            assert reg[0, regs.LOCK] == 7
        else:
            set_field(reg, 0, number * FIELD_BITS, n)
        assert [field(reg, 0, k * FIELD_BITS) for k in range(4)] == written
        assert reg[0, regs.PHASE] & flag
