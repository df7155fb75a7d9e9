"""Texts of locks, and what spl levels cover."""

import pytest

from kmemexp.errors import ConfigError
from kmemexp.parts.lock_spec import CLASSES, LATE, SOFT_CLASSES, SPL, lock_row, mask_of, raised_by
from kmemexp.sim.engine.tables import lock


def bits(mask: int) -> set[str]:
    return {name for i, name in enumerate(CLASSES) if mask >> i & 1}


@pytest.mark.parametrize("kind", lock.LOCK_KINDS)
def test_a_new_lock_has_its_kind_and_neither_owner_nor_waiters(kind: str) -> None:
    row = lock_row(kind, 3)
    assert row[lock.KIND] == lock.LOCK_KINDS.index(kind)
    assert row[[lock.OWNER, lock.HEAD, lock.TAIL, lock.LAST, lock.NEXT]].tolist() == [-1] * 5
    assert row[lock.CLASS] == 3
    assert len(row) == lock.COLUMNS


def test_words_add_up() -> None:
    row = lock_row("splbio+spin+critical+inherit+ceiling=30", 0)
    columns = [lock.KIND, lock.CRIT, lock.INHERIT, lock.CEILING, lock.MASK]
    assert row[columns].tolist() == [lock.SPIN, 1, 1, 30, mask_of(SPL["splbio"])]


def test_a_section_alone_is_no_lock_and_none_is_nothing() -> None:
    assert lock_row("splimp+splnet", 0)[lock.MASK] == mask_of({*SPL["splimp"], *SPL["splnet"]})
    assert lock_row("none", 0)[[lock.KIND, lock.MASK, lock.CRIT]].tolist() == [lock.SECTION, 0, 0]


def test_the_big_lock_closes_no_section_and_lends_no_priority() -> None:
    """Its short way (sim.engine.biglock) relies on that."""
    row = lock_row("big", 0)
    assert row[[lock.MASK, lock.CRIT, lock.INHERIT, lock.CEILING]].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("spec", ["mutex", "spin+spltape", ""])
def test_an_unknown_word_is_named_with_what_there_is(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown word .*there are section, spin, .*splhigh.*ceiling=N"):
        lock_row(spec, 0)


def test_every_level_but_those_of_the_clocks_blocks_the_late_soft_interrupts() -> None:
    for level, classes in SPL.items():
        assert set(classes) <= set(CLASSES)
        if level not in ("splsoftclock", "splstatclock"):
            assert set(LATE) <= set(classes), level
    assert set(SPL["splhigh"]) == set(CLASSES)


def test_a_handler_masks_its_own_class_and_all_soft_ones_a_soft_one_only_its_level() -> None:
    assert bits(raised_by("net")) == {"net", *SOFT_CLASSES}
    assert bits(raised_by("softnet")) == {"softnet", *LATE}
    assert raised_by("") == 0
