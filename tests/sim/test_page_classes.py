"""Who may have a page, by kernel: the engine beside models of each kernel written apart, and worked examples."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as h

from kmemexp.sim import sizing
from kmemexp.sim.engine import contexts as cx
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine import memory
from kmemexp.sim.engine.tables import ctx, glob
from kmemexp.sim.tables import flag

GIB = 1 << 30
NORMAL, SYSTEM, INTERRUPT = "normal", "system", "interrupt"
WAIT, NOWAIT = 0, flag.NOWAIT
USE_RESERVE, INTWAIT = flag.RESERVE, flag.RESERVE | flag.INTERRUPT
AT = glob.COLUMNS  # the context that asks; behind it the one that it preempts
plain = {name: getattr(getattr(memory, name), "py_func", getattr(memory, name)) for name in ("class_of", "take_pages")}


class Exclusive:
    """FreeBSD 4, DragonFly of 2003: kmem_malloc(), vm_page_alloc()."""

    def __init__(self, free: int, cache: int, reserved: int, least: int) -> None:
        self.free, self.cache, self.reserved, self.least = free, cache, reserved, least

    def asks(self, flags: int, preempts: bool) -> set[str]:
        if flags & flag.INTERRUPT or (flags & NOWAIT and not flags & USE_RESERVE):
            return {INTERRUPT}
        return {SYSTEM}

    def has(self, klass: set[str]) -> bool:
        return (
            self.free > self.reserved
            or (SYSTEM in klass and self.cache == 0 and self.free > self.least)
            or (INTERRUPT in klass and self.free > 0)
        )

    def cached(self, klass: set[str]) -> bool:
        return INTERRUPT not in klass

    def one(self, klass: set[str]) -> bool:
        while not self.has(klass):
            if not self.cached(klass) or self.cache == 0:
                return False
            self.cache, self.free = self.cache - 1, self.free + 1
        self.free -= 1
        return True


class Bits(Exclusive):
    """DragonFly, June 2005: kmem_slab_alloc(), VM_ALLOC_* as bits."""

    nowait = frozenset({SYSTEM, INTERRUPT})

    def asks(self, flags: int, preempts: bool) -> set[str]:
        found = {SYSTEM if preempts else NORMAL} if not flags & NOWAIT else set()
        if flags & NOWAIT and not flags & (USE_RESERVE | flag.INTERRUPT):
            found |= self.nowait
        found |= {SYSTEM} if flags & USE_RESERVE else set()
        return found | ({INTERRUPT} if flags & flag.INTERRUPT else set())

    def cached(self, klass: set[str]) -> bool:
        return NORMAL in klass


class Floor(Bits):
    """DragonFly, July 2020."""

    nowait = frozenset({SYSTEM})

    def has(self, klass: set[str]) -> bool:
        return self.free == self.reserved or super().has(klass)


class Count(Exclusive):
    """FreeBSD since 2018: malloc2vm_flags(), _vm_domain_allocate()."""

    def asks(self, flags: int, preempts: bool) -> set[str]:
        return {INTERRUPT} if flags & NOWAIT and flags & USE_RESERVE else {SYSTEM}

    def one(self, klass: set[str]) -> bool:
        limit = 0 if INTERRUPT in klass else self.least if SYSTEM in klass else self.reserved
        if self.free < limit + 1:
            return False
        self.free -= 1
        return True


TWINS = dict(zip(mc.PAGE_RULES, (Exclusive, Bits, Floor, Count), strict=True))


def machine(rule: str, free: int, cache: int, reserved: int, least: int, preempts: bool = False) -> np.ndarray:
    m = np.zeros(AT + 2 * ctx.COLUMNS, np.int64)
    m[glob.DAEMON] = m[glob.SLEEPERS] = -1
    m[[glob.LIMITED, glob.PAGE_RULE, glob.FREE, glob.CACHE]] = 1, mc.PAGE_RULES.index(rule), free, cache
    m[[glob.RESERVED, glob.INTERRUPT_MIN]] = reserved, least
    m[AT + ctx.UNDER] = AT + ctx.COLUMNS if preempts else -1
    m[AT + ctx.COLUMNS + ctx.STATE] = cx.PREEMPTED
    return m


def take(m: np.ndarray, flags: int, n: int = 1) -> int:
    return plain["take_pages"](m, n, plain["class_of"](m, AT, flags))


REQUESTS = h.tuples(
    h.sampled_from([WAIT, NOWAIT, USE_RESERVE, NOWAIT | USE_RESERVE, INTWAIT, NOWAIT | INTWAIT]), h.integers(1, 9)
)


@given(
    h.sampled_from(mc.PAGE_RULES),
    h.tuples(h.integers(0, 60), h.integers(0, 20), h.integers(8, 20), h.integers(0, 8)),
    h.booleans(),
    h.lists(REQUESTS, min_size=1, max_size=12),
)
def test_pages_go_as_in_the_twin(rule, pages, preempts, requests) -> None:
    free, cache, reserved, least = pages
    cache = 0 if rule == "count" else cache
    m, twin = machine(rule, free, cache, reserved, least, preempts), TWINS[rule](free, cache, reserved, least)
    for flags, n in requests:
        klass = twin.asks(flags, preempts)
        got = sum(1 for _ in itertools.takewhile(lambda _: twin.one(klass), range(n)))  # noqa: B023
        assert take(m, flags, n) == got
        assert (m[glob.FREE], m[glob.CACHE]) == (twin.free, twin.cache)


def of_kernel(kernel: str, ram: int, free: int, cache: int = 0) -> np.ndarray:
    rules = sizing.KERNELS[kernel]
    reserves = rules.page_reserves(ram)
    return machine(rules.page_rule, free, cache, reserves.reserved, reserves.interrupt_free_min)


def left(m: np.ndarray, flags: int) -> int:
    """Free pages that are left when a request that goes on asking gets no more."""
    take(m, flags, 1 << 20)
    return int(m[glob.FREE])


@pytest.mark.parametrize("kernel", ["freebsd4", "dragonfly_2003", "freebsd5", "freebsd_mbuma"])
def test_in_2003_who_may_not_wait_has_the_last_page(kernel) -> None:
    reserved = sizing.page_reserves(GIB // 2, kernel).reserved
    assert reserved == 252
    assert left(of_kernel(kernel, GIB // 2, 300), NOWAIT) == 0
    assert left(of_kernel(kernel, GIB // 2, 300), NOWAIT | USE_RESERVE) == 2
    assert left(of_kernel(kernel, GIB // 2, 300), WAIT) == 2
    clean = of_kernel(kernel, GIB // 2, 252, cache=5)  # as long as there are clean pages these go first
    assert [take(clean, WAIT) for _ in range(5)] == [1] * 5
    assert (clean[glob.FREE], clean[glob.CACHE]) == (252, 0)
    assert left(clean, WAIT) == 2


@pytest.mark.parametrize("kernel", ["dragonfly_2005", "dragonfly_2010"])
def test_in_2005_who_may_wait_waits_where_no_page_is_clean(kernel) -> None:
    m = of_kernel(kernel, GIB // 2, 252, cache=3)
    assert take(m, WAIT, 9) == 3  # clean ones only
    assert (m[glob.FREE], m[glob.CACHE]) == (252, 0)
    assert take(m, WAIT) == 0
    assert left(m, USE_RESERVE) == 2  # M_SYSWAIT
    assert left(m, NOWAIT) == 0


def test_in_2020_who_may_not_wait_leaves_pages_to_interrupts() -> None:
    assert left(of_kernel("dragonfly_2020", 4 * GIB, 5000), NOWAIT) == 670
    assert left(of_kernel("dragonfly_2020", 4 * GIB, 5000), WAIT) == 2660 - 1
    assert left(of_kernel("dragonfly_2020", 4 * GIB, 5000), INTWAIT) == 0


def test_today_a_user_fault_waits_long_before_malloc_does() -> None:
    m = of_kernel("freebsd_15", 4 * GIB, 1431)
    assert plain["take_pages"](m, 1, memory.NORMAL) == 0
    m[glob.FREE] = 1432
    assert plain["take_pages"](m, 1, memory.NORMAL) == 1
    assert left(m, NOWAIT) == 2
    m[glob.FREE] = 1431
    assert left(m, WAIT) == 2
    assert left(m, NOWAIT | USE_RESERVE) == 0
