"""Physical pages: reserves, classes of request, waiting for memory, the page daemon.

Pages are counted, not named. A request takes free pages down to `reserved`; SYSTEM goes on to the interrupt reserve
once no clean page is left, INTERRUPT to the last page; clean (cache) pages may be turned into free ones. A context that
gets nothing wakes the daemon, and sleeps (VM_WAIT) or fails. The daemon frees pages in clusters until the target is
reached, and wakes all sleepers as soon as there are more than `minimum`.

Which class a request is of, and what that is worth, is a matter of the kernel (machine.PAGE_RULES; malloc() and
kmem_malloc() to vm_page_alloc(), sys/vm/vm_page.c):

EXCLUSIVE  FreeBSD 4 and 5, DragonFly of 2003: M_NOWAIT alone is INTERRUPT, all else SYSTEM; all but INTERRUPT may use
           the cache queue.
BITS       DragonFly, June 2005 to 2010: M_WAITOK is NORMAL, in a thread that preempts another one SYSTEM; M_NOWAIT is
           SYSTEM and INTERRUPT; only NORMAL may use the cache queue.
FLOOR      DragonFly, 2020: M_NOWAIT is SYSTEM, which stops at v_interrupt_free_min, there an eighth of the minimum.
COUNT      FreeBSD since 2018 (_vm_domain_allocate()): M_USE_RESERVE is INTERRUPT, all else SYSTEM, down to two pages,
           whether or not there are clean ones; user pages and kernel stacks are NORMAL.

Left out: which page is taken, the queues' ages, swap space, zeroing; DragonFly's counts by CPU; that a thread which
preempts another yields once before it sleeps; of DragonFly 2020, that a zone's growth is INTERRUPT for four pages only.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Memory
from kmemexp.sim.engine.contexts import IDLE, MEMORY, PAGER, block
from kmemexp.sim.engine.log import log
from kmemexp.sim.engine.machine import COUNT, EXCLUSIVE, FLOOR, LOG_MEMORY
from kmemexp.sim.engine.ownership import drop
from kmemexp.sim.engine.tables import ctx, glob, seen
from kmemexp.sim.engine.waitgraph import check, found, stalled
from kmemexp.sim.engine.waking import wake
from kmemexp.sim.tables import flag

NORMAL, SYSTEM, INTERRUPT = 1, 2, 4


@outlined
def class_of(m: Memory, x: Ctx, flags: int) -> int:
    """Class of a request by its flags, or classes; `x` asks."""
    rule = m[glob.PAGE_RULE]
    waits = not flags & flag.NOWAIT
    if rule == EXCLUSIVE:
        return INTERRUPT if flags & flag.INTERRUPT or not (waits or flags & flag.RESERVE) else SYSTEM
    if rule == COUNT:
        return INTERRUPT if not waits and flags & flag.RESERVE else SYSTEM
    klass = 0
    if waits:
        under = m[x + ctx.UNDER]
        klass = SYSTEM if under >= 0 and m[under + ctx.STATE] != IDLE else NORMAL
    elif rule == FLOOR or flags & flag.RESERVE:
        klass = SYSTEM
    else:
        klass = SYSTEM | INTERRUPT
    if flags & flag.RESERVE or x == m[glob.DAEMON]:
        klass |= SYSTEM
    return klass | INTERRUPT if flags & flag.INTERRUPT else klass


@kernel
def class_in_place(m: Memory) -> int:
    """Class of the pages of an interrupt zone, whose KVA is there already: zget()."""
    return INTERRUPT if m[glob.PAGE_RULE] == EXCLUSIVE else SYSTEM | INTERRUPT


@kernel
def _to_be_had(m: Memory, klass: int) -> bool:
    """Whether a request of these classes may have a free page."""
    rule, free = m[glob.PAGE_RULE], m[glob.FREE]
    if rule == COUNT:
        floor = 0 if klass & INTERRUPT else m[glob.INTERRUPT_MIN] if klass & SYSTEM else m[glob.RESERVED]
        return free > floor
    if free > m[glob.RESERVED] - (rule == FLOOR) or (klass & INTERRUPT and free > 0):
        return True
    return klass & SYSTEM != 0 and m[glob.CACHE] == 0 and free > m[glob.INTERRUPT_MIN]


@outlined
def take_pages(m: Memory, n: int, klass: int) -> int:
    """Take up to `n` pages for a request of these classes; returns how many there were: vm_page_alloc()."""
    if not m[glob.LIMITED]:
        return n
    got = 0
    while got < n:
        if _to_be_had(m, klass):
            m[glob.FREE] -= 1
            got += 1
        elif m[glob.CACHE] > 0 and (klass & NORMAL or (klass == SYSTEM and m[glob.PAGE_RULE] == EXCLUSIVE)):
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
