"""Limits of malloc types: FreeBSD lets a request wait, DragonFly panics, and what may not wait fails in both."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as h

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import buckets, dfly_slab, dfly_slab_2020, objcache, objcache_2020
from kmemexp.sim.allocators._shared.malloc_types import USED
from kmemexp.sim.tables import flag, panics, regs
from kmemexp.validate.hand import Hand

KVA = 1 << 24
DRAGONFLY = [dfly_slab, dfly_slab_2020, objcache, objcache_2020]
ALL = pytest.mark.parametrize("module", [buckets, *DRAGONFLY])


def hand(module, limit: int, types: int = 2) -> Hand:
    params = module.Params(malloc_types=types, malloc_type_bytes=limit)
    return Hand(module, module.init(params, kva_bytes=KVA, cpus=2, map_number=0, items=(), bases=()), limit=KVA)


def item(number: int) -> int:
    return s.ITEM_TYPE - number


def used(m: Hand) -> list[int]:
    return getattr(m.state, "back", m.state).types[1:, USED].tolist()


@ALL
def test_what_may_not_wait_fails_when_as_much_as_the_limit_is_in_use_already(module):
    """The limit is looked at before: the last request may pass it. Another type, and what has none, are not held."""
    m = hand(module, 100)
    first, second = (m.alloc(64, item=item(1), flags=flag.NOWAIT) for _ in range(2))
    assert used(m) == [128, 0]
    assert m.alloc(64, item=item(1), flags=flag.NOWAIT) == -1
    assert m.reg[0, regs.PANIC] == panics.NONE
    assert m.alloc(64, item=item(2), flags=flag.NOWAIT) >= 0
    assert m.alloc(64, item=s.ITEM_MALLOC, flags=flag.NOWAIT) >= 0
    m.free(first, item=item(1), size=64)
    assert m.alloc(64, item=item(1), flags=flag.NOWAIT) >= 0
    m.free(second, item=item(1), size=64)


def test_in_freebsd_who_may_wait_sleeps_until_the_type_is_below_its_limit():
    m = hand(buckets, 1024)
    held = [m.alloc(1000, item=item(1)), m.alloc(64, item=item(2))]
    state, reg = m.state, np.zeros((2, regs.COLUMNS), np.int64)
    reg[0, regs.ITEM], reg[0, regs.SIZE] = item(1), 10
    assert buckets.alloc(state, reg, 0) == s.SLEEP
    assert reg[0, regs.CHANNEL] == 1
    reg[1, regs.ITEM], reg[1, regs.SIZE], reg[1, regs.ADDR] = item(2), 64, held[1]
    assert buckets.free(state, reg, 1) == s.DONE
    assert reg[1, regs.WAKE] == 0
    reg[1, regs.ITEM], reg[1, regs.SIZE], reg[1, regs.ADDR] = item(1), 1000, held[0]
    assert buckets.free(state, reg, 1) == s.DONE
    assert (reg[1, regs.WAKE], reg[1, regs.WAKES]) == (1 + 1, regs.WAKE_ALL)
    answers = [buckets.alloc(state, reg, 0)]
    assert answers[0] in (s.DONE, s.MAP_ALLOC)


@pytest.mark.parametrize("module", DRAGONFLY)
def test_dragonfly_panics_of_one_that_may_wait(module):
    m = hand(module, 100)
    assert m.alloc(128, item=item(1)) >= 0
    assert m.alloc(128, item=item(1)) == -1
    assert m.reg[0, regs.PANIC] == panics.TYPE


@ALL
@settings(max_examples=30)
@given(h.lists(h.tuples(h.sampled_from([1, 2, 0]), h.integers(1, 70000), h.booleans(), h.integers(0, 1)), max_size=40))
def test_what_is_in_use_is_what_was_granted_and_not_freed(module, program):
    m = hand(module, 1 << 40)
    live: list[tuple[int, int, int, int]] = []
    for number, size, freeing, cpu in program:
        if freeing and live:
            addr, kind, asked, _ = live.pop(number % len(live))
            m.free(addr, item=item(kind) if kind else s.ITEM_MALLOC, size=asked, cpu=cpu)
        else:
            addr = m.alloc(size, item=item(number) if number else s.ITEM_MALLOC, cpu=cpu)
            live.append((addr, number, size, m.granted))
    assert used(m) == [sum(granted for _, kind, _, granted in live if kind == number) for number in (1, 2)]


@ALL
def test_the_fast_path_counts_as_the_steps_do(module):
    m = hand(module, 150)
    addr = m.alloc(64, item=item(1))
    m.free(addr, item=item(1), size=64)
    got, granted = module.fast_alloc(m.state, item(1), 64, 0, 0)
    assert (used(m), granted) == ([64, 0], 64)
    assert got >= 0
    assert module.fast_free(m.state, item(1), got, 64, 0, 0)
    assert used(m) == [0, 0]
    for _ in range(3):
        m.alloc(64, item=item(1), flags=flag.NOWAIT)
    assert module.fast_alloc(m.state, item(1), 64, 0, 0)[0] < 0
    assert used(m) == [192, 0]
