"""Parts from outside that were written for version 0.1 go on working: results folders keep such texts."""

import pytest

from kmemexp.sim import slots
from kmemexp.sim.tables import flag, gauge, panics, regs


def test_registers_flags_panics_and_measures_are_found_in_their_tables() -> None:
    assert (slots.R_SIZE, slots.R_COUNT, slots.F_NOWAIT) == (regs.SIZE, regs.COLUMNS, flag.NOWAIT)
    assert (slots.P_ENTRIES, slots.M_LARGEST, slots.M_COUNT) == (panics.ENTRIES, gauge.LARGEST, gauge.COLUMNS)


def test_classes_and_reasons_of_upkeep_are_found() -> None:
    assert (slots.C_MALLOC, slots.C_MBUF, slots.T_REAP) == (slots.CLASS_MALLOC, slots.CLASS_MBUF, slots.TEND_REAP)
    assert slots.LOCK_SHIFT == regs.LOCK_SHIFT


@pytest.mark.parametrize("name", ["R_NONSENSE", "Q_SIZE", "nonsense", "C_"])
def test_other_names_are_not_there(name: str) -> None:
    with pytest.raises(AttributeError):
        getattr(slots, name)
