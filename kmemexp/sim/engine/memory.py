"""Physical pages: reserves, classes of request, waiting for memory, the page daemon.

FreeBSD 4 / DragonFly sys/vm/{vm_page,vm_pageout}.c, 2003: pages are counted, not named. A request takes free pages
down to `reserved`; SYSTEM goes on to the interrupt reserve once no clean page is left, INTERRUPT to the last page;
whoever is not an interrupt may turn clean (cache) pages into free ones. Who gets nothing wakes the daemon, and sleeps
(VM_WAIT) or fails. The daemon frees pages in clusters until the target is reached, and wakes all sleepers as soon as
there are more than `minimum`. Left out: which page is taken, the queues' ages, swap space, zeroing.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.engine.contexts import MEMORY, PAGER, X_LINK, X_SINCE, X_STAGE, X_VICTIM, X_WAIT, block, log, wake
from kmemexp.sim.engine.locks import drop
from kmemexp.sim.engine.machine import (
    G_CACHE,
    G_CLUSTER,
    G_DAEMON,
    G_FREE,
    G_INTERRUPT_MIN,
    G_LEAST_FREE,
    G_LIMITED,
    G_MINIMUM,
    G_NOW,
    G_RESERVED,
    G_SLEEPERS,
    G_TARGET,
    G_USER,
    LOG_MEMORY,
    N_DAEMON_PAGES,
    N_SLEPT,
)
from kmemexp.sim.engine.waitgraph import check, found, stalled
from kmemexp.sim.slots import F_INTERRUPT, F_NOWAIT, F_RESERVE

NORMAL, SYSTEM, INTERRUPT = 0, 1, 2


@kernel
def class_of(flags):
    """Class of a request by its flags: M_NOWAIT alone uses the interrupt reserve (2003), all else is SYSTEM."""
    if flags & F_INTERRUPT or (flags & F_NOWAIT and not flags & F_RESERVE):
        return INTERRUPT
    return SYSTEM


@outlined
def take_pages(m, n, klass):
    """Take up to `n` pages; returns how many there were: vm_page_alloc()."""
    if not m[G_LIMITED]:
        return n
    got = 0
    while got < n:
        if (
            m[G_FREE] > m[G_RESERVED]
            or (klass == SYSTEM and m[G_CACHE] == 0 and m[G_FREE] > m[G_INTERRUPT_MIN])
            or (klass == INTERRUPT and m[G_FREE] > 0)
        ):
            m[G_FREE] -= 1
            got += 1
        elif klass != INTERRUPT and m[G_CACHE] > 0:
            m[G_CACHE] -= 1
            m[G_FREE] += 1
        else:
            break
    m[G_LEAST_FREE] = min(m[G_LEAST_FREE], m[G_FREE])
    if got < n or m[G_FREE] + m[G_CACHE] < m[G_MINIMUM]:
        rouse(m)
    return got


@outlined
def give_pages(m, n):
    """Free `n` pages and wake who waits for memory, once there is more than the minimum."""
    if not m[G_LIMITED]:
        return
    m[G_FREE] += n
    if m[G_SLEEPERS] >= 0 and m[G_FREE] + m[G_CACHE] > m[G_MINIMUM]:
        x = m[G_SLEEPERS]
        m[G_SLEEPERS] = -1
        while x >= 0:
            after = m[x + X_LINK]
            wake(m, x)
            x = after


@outlined
def rouse(m):
    """Wake the page daemon."""
    d = m[G_DAEMON]
    if d >= 0 and m[d + X_WAIT] == PAGER:
        wake(m, d)


@outlined
def wait_for_memory(m, x, stage):
    """Let `x` sleep until memory comes (VM_WAIT); it goes on in `stage`. Somebody must be able to bring some."""
    m[x + X_STAGE] = stage
    m[N_SLEPT] += 1
    last = m[G_SLEEPERS]
    m[x + X_LINK] = -1
    if last < 0:
        m[G_SLEEPERS] = x
    else:
        while m[last + X_LINK] >= 0:
            last = m[last + X_LINK]
        m[last + X_LINK] = x
    m[x + X_WAIT] = MEMORY
    m[x + X_SINCE] = m[G_NOW]
    log(m, LOG_MEMORY, x, 0, 0)
    drop(m, x)
    block(m, x)
    rouse(m)
    broken = check(m, x)
    if not broken and m[x + X_STAGE] >= 0 and stalled(m):
        broken = found(m, x)
    if broken:
        _wake_one(m, x)
        m[x + X_VICTIM] = 1


@outlined
def _wake_one(m, x):
    """Take `x` out of the sleepers."""
    if m[G_SLEEPERS] == x:
        m[G_SLEEPERS] = m[x + X_LINK]
    else:
        at = m[G_SLEEPERS]
        while m[at + X_LINK] != x:
            at = m[at + X_LINK]
        m[at + X_LINK] = m[x + X_LINK]
    wake(m, x)


@outlined
def daemon_rests(m, x):
    """Let the daemon sleep if there is nothing to do; False: it has work."""
    wanting = m[G_SLEEPERS] >= 0 or m[G_FREE] + m[G_CACHE] < m[G_TARGET]
    if wanting and m[G_USER] > 0:
        return False
    m[x + X_WAIT] = PAGER
    m[x + X_SINCE] = m[G_NOW]
    block(m, x)
    return True


@outlined
def reclaim(m):
    """Turn a cluster of user pages into free ones."""
    n = min(m[G_CLUSTER], m[G_USER])
    m[G_USER] -= n
    m[N_DAEMON_PAGES] += n
    give_pages(m, n)
