"""Indexed binary heap of events: the earliest of n items, each with a key that may change at any time.

An item is a row of the machine's memory whose first three places are KEY, TIE and POS; the heap itself is n places that
name the rows. Items are never added nor taken out; one that has nothing to wait for has the key NEVER.
"""

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Cpu, Ctx, Memory
from kmemexp.sim.engine.tables import glob

NEVER = np.iinfo(np.int64).max

KEY = 0  # time, ns
TIE = 1  # among equal keys, the smaller one comes first
POS = 2  # place of the item in the heap


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
        and key < m[m[m[glob.TIMER_HEAP]] + KEY]
        and (m[glob.CPUS] < 2 or key < m[m[heap + 1] + KEY])
        and (m[glob.CPUS] < 3 or key < m[m[heap + 2] + KEY])
        and m[glob.BUDGET] > 0
        and m[glob.EXIT] == 0
    ):
        m[c + KEY] = key
        m[c + TIE] = tie
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
    while at > 0:
        parent = (at - 1) >> 1
        other = m[heap + parent]
        if m[other + KEY] < key or (m[other + KEY] == key and m[other + TIE] <= tie):
            break
        m[heap + at] = other
        m[other + POS] = at
        at = parent
    while True:
        child = 2 * at + 1
        if child >= n:
            break
        other = m[heap + child]
        if child + 1 < n:
            right = m[heap + child + 1]
            if m[right + KEY] < m[other + KEY] or (
                m[right + KEY] == m[other + KEY] and m[right + TIE] < m[other + TIE]
            ):
                child += 1
                other = right
        if m[other + KEY] > key or (m[other + KEY] == key and m[other + TIE] >= tie):
            break
        m[heap + at] = other
        m[other + POS] = at
        at = child
    m[heap + at] = item
    m[item + POS] = at
