"""The conformance suite passes sound allocators and names what is wrong with others."""

import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import buckets
from kmemexp.sim.tables import regs
from kmemexp.testing import Limits, Map, check_allocator

EXAMPLE = Path(__file__).parents[1] / "experiments" / "own_allocator"


def changed(**functions: Callable) -> types.SimpleNamespace:
    """4.4BSD's buckets without fast slots, and with some functions replaced."""
    kept = {name: value for name, value in vars(buckets).items() if not name.startswith("fast_")}
    return types.SimpleNamespace(**{**kept, **functions})


def never_frees(st, reg, i):
    return s.DONE


def hands_out_twice(st, reg, i):
    answer = buckets.alloc(st, reg, i)
    if answer == s.DONE and reg[i, regs.SIZE] == 1024:
        reg[i, regs.ADDR] &= -2048
    return answer


def goes_beyond(st, reg, i):
    answer = buckets.alloc(st, reg, i)
    if answer == s.DONE:
        reg[i, regs.ADDR] += 8
    return answer


def misaligns(st, reg, i):
    answer = buckets.alloc(st, reg, i)
    if answer == s.DONE:
        reg[i, regs.ADDR] += 4
    return answer


def grants_too_little(st, reg, i):
    answer = buckets.alloc(st, reg, i)
    reg[i, regs.GRANTED] = reg[i, regs.SIZE] - 1
    return answer


calls = 0


def depends_on_the_past(st, reg, i):
    global calls  # noqa: PLW0603 - the flaw that is looked for
    calls += 1
    if reg[i, regs.PHASE] == 0 and calls == 500:
        reg[i, regs.SIZE] += 5000
    return buckets.alloc(st, reg, i)


def does_not_count(st, item, size, cpu, flags):
    addr, granted = buckets.fast_alloc(st, item, size, cpu, flags)
    if addr >= 0:
        st.bucket[4, buckets.ALLOCATIONS] -= 1
    return addr, granted


def grants_more(st, item, size, cpu, flags):
    addr, granted = buckets.fast_alloc(st, item, size, cpu, flags)
    return addr, 2 * granted


def writes_first(st, item, addr, size, cpu, flags):
    st.bucket[4, buckets.FREE] += 1
    return False


def serves_what_takes_two_steps(st, item, addr, size, cpu, flags):
    return buckets.fast_free(st, item, addr, size, cpu, flags) or size > buckets.MAXALLOCSAVE


def forgets_pages(st):
    return {**buckets.census(st), "pages": 0}


@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ({"free": never_frees}, "pages are held after a round"),
        ({"alloc": hands_out_twice}, "overlaps"),
        ({"alloc": goes_beyond}, "not in memory that was taken"),
        ({"alloc": misaligns}, "not aligned"),
        ({"alloc": grants_too_little}, "granted for a request of"),
        ({"alloc": depends_on_the_past}, "other addresses"),
        ({"fast_alloc": does_not_count}, "fast_alloc leaves another state than alloc"),
        ({"fast_alloc": grants_more}, "fast_alloc gives"),
        ({"fast_free": writes_first}, "fast_free has refused and has changed the state"),
        ({"fast_free": serves_what_takes_two_steps}, "does not do in one step"),
        ({"fast_alloc": lambda st: 0}, "fast_alloc takes"),
        ({"census": forgets_pages}, "census: 0 pages"),
        ({"LOCKS": ("mutex",)}, "unknown word 'mutex'"),
        ({"LOCKS": ("spin/own",)}, "lock_count"),
        ({"free": lambda st, reg: 0}, "free takes"),
        ({"SERVES": ("malloc",)}, "SERVES"),
    ],
)
def test_a_flaw_is_named(flaw: dict, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_allocator(changed(**flaw), seeds=[0], operations=800)


def test_an_operation_without_end_is_named() -> None:
    def never_ends(st, reg, i):
        return s.AGAIN

    with pytest.raises(AssertionError, match=r"operation 0 \(alloc .*takes more than 50 steps"):
        check_allocator(changed(alloc=never_ends), seeds=[0], operations=10, limits=Limits(steps=50))


def test_a_step_that_does_not_come_back_ends_the_process_by_name() -> None:
    code = """if True:
        import types
        from kmemexp.sim.allocators import buckets
        from kmemexp.testing import Limits, check_allocator
        def alloc(st, reg, i):
            while True:
                pass
        kept = {name: value for name, value in vars(buckets).items() if not name.startswith("fast_")}
        check_allocator(types.SimpleNamespace(**{**kept, "alloc": alloc}), limits=Limits(seconds=0.5))
    """
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert re.search(r"buckets: alloc of \d+ bytes on CPU \d: a step has taken more than 0.5 s", ran.stderr)


def test_an_allocator_is_held_to_its_reference_model() -> None:
    class Upwards:
        """Never gives anything back."""

        def __init__(self, take: Callable, give: Callable, cpus: int, items: tuple) -> None:
            self.take = take

        def alloc(self, size: int, item: int, cpu: int, flags: int) -> int:
            return self.take(-(-size // 4096) * 4096, 4096)

        def free(self, addr: int, item: int, cpu: int, flags: int) -> None:
            pass

    with pytest.raises(AssertionError, match="reference model"):
        check_allocator("buckets", naive=Upwards, seeds=[0], operations=100)


def test_the_example_passes_with_its_reference_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    import check

    check_allocator(check.ALLOCATOR, naive=check.Reference, seeds=[3])


def test_the_map_of_the_suite_is_first_fit_and_merges() -> None:
    m = Map(100)
    assert [m.take(10, 1), m.take(20, 1), m.take(30, 16)] == [0, 10, 32]
    m.give(10, 20)
    assert m.take(5, 4) == 12
    m.give(12, 5)
    m.give(0, 10)
    m.give(32, 30)
    assert (m.free, m.take(101, 1)) == ([(0, 100)], s.NO_SPACE)
