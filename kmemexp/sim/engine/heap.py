"""Indexed binary heap of events: the earliest of n items, each with a key that may change at any time.

An item is a row of the machine's memory whose first three places are KEY, TIE and POS; the heap itself has n rows of
KEY, TIE and the item, so that who looks for the earliest of many reads what lies together. Items are never added nor
taken out; one that has nothing to wait for has the key NEVER.
"""

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Cpu, Ctx, Memory
from kmemexp.sim.engine.tables import glob

NEVER = np.iinfo(np.int64).max

KEY = 0  # time, ns
TIE = 1  # among equal keys, the smaller one comes first
POS = 2  # of an item: the number of its row in the heap
ITEM = 2  # of a row of the heap
COLUMNS = 3


@kernel
def due(m: Memory, c: Cpu, key: int, tie: int) -> None:
    """Set when the context on CPU `c` goes on."""
    _place(m, m[glob.CPU_HEAP], m[glob.CPUS], c, key, tie)


@kernel
def alarm(m: Memory, x: Ctx, key: int, tie: int) -> None:
    """Set the timer of context `x`."""
    _place(m, m[glob.TIMER_HEAP], m[glob.CONTEXTS], x, key, tie)


@kernel
def passed(m: Memory, c: Cpu, key: int, tie: int) -> bool:
    """`due` for the CPU whose turn it is. True: nothing happens before that, so it is that time now.

    What comes next in the loop is left out then; the order of all events stays as it is.
    """
    heap = m[glob.CPU_HEAP]
    if (
        m[c + POS] == 0
        and key <= m[glob.HORIZON]
        and key < m[m[glob.TIMER_HEAP] + KEY]
        and (m[glob.CPUS] < 2 or key < m[heap + COLUMNS + KEY])
        and (m[glob.CPUS] < 3 or key < m[heap + 2 * COLUMNS + KEY])
        and m[glob.BUDGET] > 0
        and m[glob.EXIT] == 0
    ):
        m[c + KEY] = m[heap + KEY] = key
        m[c + TIE] = m[heap + TIE] = tie
        m[glob.NOW] = key
        m[glob.BUDGET] -= 1
        return True
    due(m, c, key, tie)
    return False


@kernel
def _place(m: Memory, heap: int, n: int, item: int, key: int, tie: int) -> None:
    """Give an item a new key and tie, and its place in the heap."""
    m[item + KEY] = key
    m[item + TIE] = tie
    at = m[item + POS]
    row = heap + at * COLUMNS
    while at > 0:
        parent = (at - 1) >> 1
        over = heap + parent * COLUMNS
        if m[over + KEY] < key or (m[over + KEY] == key and m[over + TIE] <= tie):
            break
        _move(m, over, row, at)
        at, row = parent, over
    while True:
        child = 2 * at + 1
        if child >= n:
            break
        under = heap + child * COLUMNS
        if child + 1 < n:
            right = under + COLUMNS
            if m[right + KEY] < m[under + KEY] or (
                m[right + KEY] == m[under + KEY] and m[right + TIE] < m[under + TIE]
            ):
                child += 1
                under = right
        if m[under + KEY] > key or (m[under + KEY] == key and m[under + TIE] >= tie):
            break
        _move(m, under, row, at)
        at, row = child, under
    m[row + KEY] = key
    m[row + TIE] = tie
    m[row + ITEM] = item
    m[item + POS] = at


@kernel
def _move(m: Memory, source: int, row: int, at: int) -> None:
    """Move a row of the heap to row number `at`."""
    m[row + KEY] = m[source + KEY]
    m[row + TIE] = m[source + TIE]
    item = m[source + ITEM]
    m[row + ITEM] = item
    m[item + POS] = at
