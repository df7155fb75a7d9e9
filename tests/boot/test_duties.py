"""What recurs in a lane: the upkeep of allocators, and a policy's trimming and watching."""

from kmemexp.boot.duties import LOOK, TICK, TRIM, WATCH, Duty, duties


def test_a_thread_of_an_allocator_looks_beside_its_ticks() -> None:
    assert duties((0, 5), {}, (7, 0)) == [Duty(TICK, 1, 5), Duty(LOOK, 0, 7)]


def test_an_allocator_without_upkeep_has_no_duty() -> None:
    assert duties((0, 5_000, 0), {}) == [Duty(TICK, 1, 5_000)]


def test_a_policy_trims_and_watches_after_the_ticks_by_its_own_clock() -> None:
    policy = {"trim_s": 0.5, "watch_s": 2.0, "floor_bytes": 4096}
    assert duties((7,), policy) == [Duty(TICK, 0, 7), Duty(TRIM, 0, 500_000_000), Duty(WATCH, 0, 2_000_000_000)]


def test_a_policy_that_does_nothing_by_the_clock_has_no_duties() -> None:
    assert duties((), {"trim_s": 0.0, "watch_s": 0.0}) == []
