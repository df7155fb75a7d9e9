"""Physical pages: reserves, classes of request, waiting for memory, the page daemon.

FreeBSD 4 / DragonFly sys/vm/{vm_page,vm_pageout}.c, 2003: pages are counted, not named. A request takes free pages
down to `reserved`; SYSTEM goes on to the interrupt reserve once no clean page is left, INTERRUPT to the last page;
what is not an interrupt may turn clean (cache) pages into free ones. A context that gets nothing wakes the daemon, and
sleeps (VM_WAIT) or fails. The daemon frees pages in clusters until the target is reached, and wakes all sleepers as
soon as there are more than `minimum`. Left out: which page is taken, the queues' ages, swap space, zeroing.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Memory
from kmemexp.sim.engine.contexts import MEMORY, PAGER, block, wake
from kmemexp.sim.engine.log import log
from kmemexp.sim.engine.machine import LOG_MEMORY
from kmemexp.sim.engine.ownership import drop
from kmemexp.sim.engine.tables import ctx, glob, seen
from kmemexp.sim.engine.waitgraph import check, found, stalled
from kmemexp.sim.tables import flag

NORMAL, SYSTEM, INTERRUPT = 0, 1, 2


@kernel
def class_of(flags: int) -> int:
    """Class of a request by its flags: M_NOWAIT alone uses the interrupt reserve (2003), all else is SYSTEM."""
    if flags & flag.INTERRUPT or (flags & flag.NOWAIT and not flags & flag.RESERVE):
        return INTERRUPT
    return SYSTEM


@outlined
def take_pages(m: Memory, n: int, klass: int) -> int:
    """Take up to `n` pages; returns how many there were: vm_page_alloc()."""
    if not m[glob.LIMITED]:
        return n
    got = 0
    while got < n:
        if (
            m[glob.FREE] > m[glob.RESERVED]
            or (klass == SYSTEM and m[glob.CACHE] == 0 and m[glob.FREE] > m[glob.INTERRUPT_MIN])
            or (klass == INTERRUPT and m[glob.FREE] > 0)
        ):
            m[glob.FREE] -= 1
            got += 1
        elif klass != INTERRUPT and m[glob.CACHE] > 0:
            m[glob.CACHE] -= 1
            m[glob.FREE] += 1
        else:
            break
    m[glob.LEAST_FREE] = min(m[glob.LEAST_FREE], m[glob.FREE])
    if got < n or m[glob.FREE] + m[glob.CACHE] < m[glob.MINIMUM]:
        rouse(m)
    return got


@outlined
def give_pages(m: Memory, n: int) -> None:
    """Free `n` pages and wake who waits for memory, once there is more than the minimum."""
    if not m[glob.LIMITED]:
        return
    m[glob.FREE] += n
    if m[glob.SLEEPERS] >= 0 and m[glob.FREE] + m[glob.CACHE] > m[glob.MINIMUM]:
        x = m[glob.SLEEPERS]
        m[glob.SLEEPERS] = -1
        while x >= 0:
            after = m[x + ctx.LINK]
            wake(m, x)
            x = after


@outlined
def rouse(m: Memory) -> None:
    """Wake the page daemon."""
    d = m[glob.DAEMON]
    if d >= 0 and m[d + ctx.WAIT] == PAGER:
        wake(m, d)


@outlined
def wait_for_memory(m: Memory, x: Ctx, stage: int) -> None:
    """Let `x` sleep until memory comes (VM_WAIT); it goes on in `stage`. Somebody must be able to bring some."""
    m[x + ctx.STAGE] = stage
    m[seen.SLEPT] += 1
    last = m[glob.SLEEPERS]
    m[x + ctx.LINK] = -1
    if last < 0:
        m[glob.SLEEPERS] = x
    else:
        while m[last + ctx.LINK] >= 0:
            last = m[last + ctx.LINK]
        m[last + ctx.LINK] = x
    m[x + ctx.WAIT] = MEMORY
    m[x + ctx.SINCE] = m[glob.NOW]
    log(m, x, LOG_MEMORY, 0, 0)
    drop(m, x)
    block(m, x)
    rouse(m)
    broken = check(m, x)
    if not broken and m[x + ctx.STAGE] >= 0 and stalled(m):
        broken = found(m, x)
    if broken:
        _wake_one(m, x)
        m[x + ctx.VICTIM] = 1


@outlined
def _wake_one(m: Memory, x: Ctx) -> None:
    """Take `x` out of the sleepers."""
    if m[glob.SLEEPERS] == x:
        m[glob.SLEEPERS] = m[x + ctx.LINK]
    else:
        at = m[glob.SLEEPERS]
        while m[at + ctx.LINK] != x:
            at = m[at + ctx.LINK]
        m[at + ctx.LINK] = m[x + ctx.LINK]
    wake(m, x)


@outlined
def daemon_rests(m: Memory, x: Ctx) -> bool:
    """Let the daemon sleep if there is nothing to do; False: it has work."""
    wanting = m[glob.SLEEPERS] >= 0 or m[glob.FREE] + m[glob.CACHE] < m[glob.TARGET]
    if wanting and m[glob.USER] > 0:
        return False
    m[x + ctx.WAIT] = PAGER
    m[x + ctx.SINCE] = m[glob.NOW]
    block(m, x)
    return True


@outlined
def reclaim(m: Memory) -> None:
    """Turn a cluster of user pages into free ones."""
    n = min(m[glob.CLUSTER], m[glob.USER])
    m[glob.USER] -= n
    m[seen.DAEMON_PAGES] += n
    give_pages(m, n)
