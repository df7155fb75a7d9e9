"""Limits of malloc types (ks_limit): kern_malloc.c of FreeBSD 4, kern_slaballoc.c of DragonFly.

malloc() looks whether its type has less than ks_limit in use, as it is, so that the last request may pass it; what was
granted counts (ks_memuse). At the limit FreeBSD lets a request wait until the type is below it again, DragonFly panics
("malloc limit exceeded": the loop there had only led to deadlocks); one that may not wait fails in both.

A kind of a load whose role names its type asks with regs.ITEM = ITEM_TYPE - number of the type; of other kinds, which
stand for many types, nothing is counted. A State has `types`, int64[types + 1, 2].
"""

from typing import Any

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Array, Bytes, Registers
from kmemexp.sim.asking import let_go, sleep_on
from kmemexp.sim.slots import DONE, FAILED, ITEM_TYPE
from kmemexp.sim.tables import flag, panics, regs

USED = 0  # bytes (ks_memuse)
LIMIT = 1  # bytes (ks_limit)
NO_LIMIT = 1 << 62


def table(count: int, limit: Bytes) -> Array:
    """State.types of `count` types, of which nothing is in use; a limit of 0: there is none."""
    types = np.zeros((count + 1, 2), np.int64)
    types[:, LIMIT] = limit or NO_LIMIT
    return types


@kernel
def at_limit(st: Any, item: int) -> bool:
    """Whether a request is of a type that has as much in use as it may."""
    return item < ITEM_TYPE and st.types[ITEM_TYPE - item, USED] >= st.types[ITEM_TYPE - item, LIMIT]


@kernel
def wait(reg: Registers, i: int, phase: int) -> int:
    """What malloc() of FreeBSD does at the limit: sleep, then look again in `phase`; or fail, if it may not."""
    if reg[i, regs.FLAGS] & flag.NOWAIT:
        return FAILED
    return sleep_on(reg, i, phase, -1, ITEM_TYPE - reg[i, regs.ITEM], 0)


@kernel
def die(reg: Registers, i: int) -> int:
    """What malloc() of DragonFly does at the limit: panic, or fail, if it may not wait."""
    if not reg[i, regs.FLAGS] & flag.NOWAIT:
        reg[i, regs.PANIC] = panics.TYPE
    return FAILED


@kernel
def took(st: Any, reg: Registers, i: int, answer: int) -> int:
    """Count what an allocation has got. Returns its answer."""
    if answer == DONE and reg[i, regs.ITEM] < ITEM_TYPE:
        st.types[ITEM_TYPE - reg[i, regs.ITEM], USED] += reg[i, regs.GRANTED]
    return answer


@kernel
def took_fast(st: Any, item: int, granted: Bytes) -> None:
    """Count what an allocation has got on its fast path; nothing: 0."""
    if item < ITEM_TYPE:
        st.types[ITEM_TYPE - item, USED] += granted


@kernel
def gave(st: Any, reg: Registers, i: int, answer: int, granted: Bytes) -> int:
    """Count what a free has given back; below the limit who sleeps there looks again. Returns the free's answer."""
    item = reg[i, regs.ITEM]
    if answer == DONE and item < ITEM_TYPE:
        was_at_limit = at_limit(st, item)
        st.types[ITEM_TYPE - item, USED] -= granted
        if was_at_limit and not at_limit(st, item):
            let_go(reg, i, ITEM_TYPE - item, regs.WAKE_ALL)
    return answer
