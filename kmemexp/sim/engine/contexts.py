"""Contexts and CPUs: who runs where, who was preempted by whom, who waits for its turn.

A context is whatever executes: a mainline thread, a soft interrupt, an interrupt thread or handler, a fast interrupt or
the handler of messages from other CPUs. Each belongs to one CPU. A CPU has a stack of contexts: the top one runs, those
under it were preempted; and a list of contexts that are ready, highest priority first, FIFO among equals.

Sources: FreeBSD 4 sys/i386/isa/{ipl_funcs.c,ipl.s,intr_machdep.c}; DragonFly sys/kern/{kern_intr.c,lwkt_thread.c} of
August 2003. A mainline thread is not preempted by another one of its priority, unless they take turns (slices): kernels
that preempt, such as illumos and Linux, do so in the kernel too.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Cpu, Ctx, Memory, Ns
from kmemexp.sim.engine import costs
from kmemexp.sim.engine.heap import KEY, NEVER, due
from kmemexp.sim.engine.machine import FAST, MAIN, QUEUE_FOR_BIG, SOFT, SPL, THREAD
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock, seen, stage

# States.
IDLE = 0  # nothing to do
RUNNING = 1
PREEMPTED = 2  # another context runs on top of it
READY = 3
BLOCKED = 4  # off the CPU until a lock, memory, an interrupt or a time comes
SPINNING = 5  # on the CPU, waiting for a lock

# What a context waits for (ctx.WAIT): a lock's number, or
NOTHING = -1
MEMORY = -2
TIMER = -3
HANDLER = -4  # the next completion of the handler ctx.AWAITED
PAGER = -5  # the page daemon: work
ANSWER = -6  # the CPU ctx.AWAITED: its answer to a TLB shootdown
OBJECT = -7  # that somebody frees something
OBJECT_FOR = -8  # the same, for a time

DEEPEST = 8  # spl masks that can be saved


# Programs that are none.
STREAM = -1  # takes the operations of a stream
MESSAGES = -2  # carries out what other CPUs sent
RECORDED = -3  # carries out what a stream has in interrupts of its CPU

FIRST = -1  # tie of what a CPU does: before operations that arrive at the same instant


@kernel
def yields(m: Memory, x: Ctx) -> bool:
    """Whether `x`, which stands on its CPU, is queued for the big lock: the CPU is free for all who do not want that.

    A thread of the stream waits so. It is of the lowest priority, and the next one of its CPU would want the lock too.
    """
    return m[glob.BIG_WAIT] == QUEUE_FOR_BIG and m[x + ctx.WAIT] == m[glob.LOCK0] and m[x + ctx.PROG] == STREAM


@kernel
def charge(m: Memory, c: Cpu) -> None:
    """Account the time since the last call to what the CPU has been doing."""
    now = m[glob.NOW]
    x = m[c + cpu.TOP]
    what = cpu.TIME_IDLE
    if x >= 0 and m[x + ctx.STATE] != IDLE:
        what = cpu.TIME_MAIN + m[x + ctx.KIND]
        if m[x + ctx.SPIN]:
            what = cpu.TIME_IDLE if yields(m, x) else cpu.TIME_SPIN
    m[c + cpu.TIME + what] += now - m[c + cpu.MARK]
    m[c + cpu.MARK] = now


@outlined
def cut(m: Memory, c: Cpu) -> Ns:
    """Return how much of its burst CPU `c` has yet to do after its key. What others have taken counts as theirs."""
    ns, stolen = m[c + cpu.CUT], m[c + cpu.STOLEN]
    m[c + cpu.CUT] = 0
    m[c + cpu.STOLEN] = 0
    m[c + cpu.TIME + cpu.TIME_FAST] += stolen
    m[c + cpu.TIME + cpu.TIME_MAIN + m[m[c + cpu.TOP] + ctx.KIND]] -= stolen
    return ns


@outlined
def go_on(m: Memory, c: Cpu) -> None:
    """CPU `c` has come to where its burst was cut: it does the rest, or its slice is over and another one's turn."""
    x, now = m[c + cpu.TOP], m[glob.NOW]
    left = cut(m, c)
    if m[c + cpu.SLICE] and now >= m[c + cpu.SLICE] and turn_over(m, x, left):
        return
    due(m, c, now + left, FIRST)
    within_slice(m, c)


@outlined
def turn_over(m: Memory, x: Ctx, left: Ns) -> bool:
    """The slice of `x` is over: let the next one of its priority run, unless `x` must not be interrupted now."""
    c = m[x + ctx.CPU]
    held = m[x + ctx.HELD]
    while held >= 0 and m[held + lock.KIND] != lock.SPIN:
        held = m[held + lock.NEXT]
    under = m[x + ctx.UNDER]
    if (
        held >= 0
        or m[x + ctx.CRIT]
        or m[x + ctx.MASK]
        or m[x + ctx.BIG]
        or (under >= 0 and m[under + ctx.STATE] != IDLE)
    ):
        return False
    charge(m, c)
    m[x + ctx.UNDER] = -1
    m[x + ctx.LEFT] = left + m[costs.SWITCH]
    m[x + ctx.STATE] = READY
    queue_ready(m, x)
    if m[x + ctx.HELD] >= 0:
        off_cpu(m, x)
    leave(m, c, under)
    return True


@kernel
def within_slice(m: Memory, c: Cpu) -> None:
    """Cut the burst of what CPU `c` runs where its slice ends."""
    end = m[c + cpu.SLICE]
    if end > m[glob.NOW] and m[c + KEY] > end and m[c + KEY] != NEVER:
        m[c + cpu.CUT] += m[c + KEY] - end
        due(m, c, end, FIRST)


@outlined
def share(m: Memory, c: Cpu) -> None:
    """Give what CPU `c` runs a slice from now on, if it has none and the next one is a thread of its priority."""
    top, r = m[c + cpu.TOP], m[c + cpu.READY]
    if m[c + cpu.SLICE] or r < 0 or top < 0 or m[top + ctx.STATE] != RUNNING:
        return
    if m[top + ctx.KIND] == MAIN and m[r + ctx.KIND] == MAIN and m[r + ctx.PRIO] == m[top + ctx.PRIO]:
        m[c + cpu.SLICE] = m[glob.NOW] + m[glob.SLICE]
        within_slice(m, c)


@outlined
def resume(m: Memory, x: Ctx, c: Cpu) -> None:
    """Let `x` (-1: none) be the context that CPU `c` runs. It goes on when its burst ends, at once if it has none."""
    now = m[glob.NOW]
    m[c + cpu.TOP] = x
    m[c + cpu.SLICE] = 0
    if x < 0 or m[x + ctx.STATE] == IDLE:
        due(m, c, now if x >= 0 and m[x + ctx.PROG] == STREAM else NEVER, FIRST)
    elif m[x + ctx.SPIN]:
        m[x + ctx.STATE] = SPINNING
        look_again(m, x)
    else:
        m[x + ctx.STATE] = RUNNING
        due(m, c, now + m[x + ctx.LEFT], FIRST)
        if m[glob.SLICE]:
            share(m, c)


@outlined
def look_again(m: Memory, x: Ctx) -> None:
    """Let `x`, which spins, look at its lock again: at once, or when its CPU comes back to it."""
    m[x + ctx.STAGE] |= stage.RETRY
    if m[x + ctx.STATE] == SPINNING:
        due(m, m[x + ctx.CPU], m[glob.NOW], FIRST)


@outlined
def off_cpu(m: Memory, x: Ctx) -> None:
    """`x`, which holds locks, does not run any more: those who spin for them as long as it runs look again."""
    l = m[x + ctx.HELD]
    while l >= 0:
        waiter = m[l + lock.HEAD] if m[l + lock.KIND] == lock.ADAPTIVE else -1
        while waiter >= 0:
            if m[waiter + ctx.SPIN]:
                look_again(m, waiter)
            waiter = m[waiter + ctx.LINK]
        l = m[l + lock.NEXT]


@outlined
def push(m: Memory, c: Cpu, h: int) -> None:
    """Preempt what CPU `c` runs by `h`, which may have a stack of its own beneath it."""
    now = m[glob.NOW]
    charge(m, c)
    x = m[c + cpu.TOP]
    if x >= 0:
        if m[x + ctx.STATE] == IDLE:
            m[x + ctx.LEFT] = 0
        else:
            m[x + ctx.LEFT] = 0 if m[x + ctx.SPIN] else max(m[c + KEY] - now, 0)
            if m[c + cpu.CUT]:
                m[x + ctx.LEFT] += cut(m, c)
            if m[x + ctx.STATE] == RUNNING or m[x + ctx.STATE] == SPINNING:
                m[seen.PREEMPTIONS] += 1
                m[x + ctx.LEFT] += m[glob.DISPATCH] if m[h + ctx.KIND] != FAST and not m[x + ctx.SPIN] else 0  # back
            m[x + ctx.STATE] = PREEMPTED
            if m[x + ctx.HELD] >= 0 and m[glob.MODEL] != SPL and m[h + ctx.KIND] != FAST:
                off_cpu(m, x)
            if m[glob.NESTED] and m[glob.MODEL] != SPL and m[h + ctx.KIND] != FAST:
                x = _set_aside(m, x)
    if x >= 0:
        m[x + ctx.ABOVE] = h
    bottom = h
    while m[bottom + ctx.UNDER] >= 0:
        bottom = m[bottom + ctx.UNDER]
    m[bottom + ctx.UNDER] = x
    if m[h + ctx.STAGE] == stage.START:
        m[h + ctx.EXTRA] += m[glob.DISPATCH] if m[h + ctx.KIND] == SOFT or m[h + ctx.KIND] == THREAD else 0
        m[h + ctx.MASK] = m[h + ctx.RAISES]
        if m[glob.MODEL] == SPL and x >= 0 and m[x + ctx.STATE] != IDLE:
            m[h + ctx.MASK] |= m[x + ctx.MASK]
    resume(m, h, c)


@outlined
def may_preempt(m: Memory, top: int, r: int) -> bool:
    """Whether ready context `r` may run at once where `top` runs."""
    if top < 0 or m[top + ctx.STATE] == IDLE:
        return True
    if m[top + ctx.CRIT] > 0 or m[top + ctx.KIND] == FAST:
        return False
    if m[r + ctx.KIND] == FAST:
        return True
    if m[top + ctx.MASK] & m[r + ctx.BIT]:
        return False
    if m[r + ctx.STAGE] == stage.START and m[r + ctx.KIND] != MAIN:
        if m[glob.MODEL] == SPL:
            return True
        if m[glob.BIG_LOCK] and m[glob.BIG_WAIT] == QUEUE_FOR_BIG:
            owner = m[m[glob.LOCK0] + lock.OWNER]
            if owner >= 0 and owner != m[r + ctx.CPU]:
                return False  # lwkt_preempt()
    if m[top + ctx.STATE] == SPINNING and yields(m, top):
        return True
    if m[r + ctx.PRIO] <= m[top + ctx.PRIO]:
        return False
    if m[glob.NESTED]:
        return True
    under = m[top + ctx.UNDER]
    return m[r + ctx.KIND] != MAIN and (under < 0 or m[under + ctx.STATE] == IDLE)


@outlined
def pick(m: Memory, c: Cpu, top: int) -> int:
    """Take the first context off the ready list of CPU `c` that may run in place of `top`; -1: none."""
    before = -1
    r = m[c + cpu.READY]
    while r >= 0:
        if may_preempt(m, top, r):
            if before < 0:
                m[c + cpu.READY] = m[r + ctx.READY]
            else:
                m[before + ctx.READY] = m[r + ctx.READY]
            return r
        before = r
        r = m[r + ctx.READY]
    return -1


@outlined
def reconsider(m: Memory, c: Cpu) -> None:
    """Preempt what CPU `c` runs if something on its ready list may do so: after the list or the rules have changed."""
    r = pick(m, c, m[c + cpu.TOP])
    if r >= 0:
        push(m, c, r)


@outlined
def queue_ready(m: Memory, x: Ctx) -> None:
    """Put a context on the ready list of its CPU: behind all of its priority."""
    m[x + ctx.STATE] = READY
    _insert(m, x, m[x + ctx.PRIO] - 1)
    if m[glob.SLICE]:
        share(m, m[x + ctx.CPU])


@kernel
def _insert(m: Memory, x: Ctx, prio: int) -> None:
    """Put a context on the ready list of its CPU, behind all whose priority is above `prio`."""
    c = m[x + ctx.CPU]
    before = -1
    r = m[c + cpu.READY]
    while r >= 0 and m[r + ctx.PRIO] > prio:
        before = r
        r = m[r + ctx.READY]
    m[x + ctx.READY] = r
    if before < 0:
        m[c + cpu.READY] = x
    else:
        m[before + ctx.READY] = x


@outlined
def _set_aside(m: Memory, x: Ctx) -> int:
    """Make a preempted context ready, first of its priority; returns what lay under it.

    Where any priority may preempt a lower one, who runs next is a matter of priorities alone: these may change, by
    inheritance, while a context waits. Elsewhere a preempted context stays under the one that preempted it.
    """
    under = m[x + ctx.UNDER]
    m[x + ctx.UNDER] = -1
    m[x + ctx.STATE] = READY
    _insert(m, x, m[x + ctx.PRIO])
    return under


@outlined
def leave(m: Memory, c: Cpu, under: int) -> None:
    """Choose what CPU `c` runs next, when its top has finished or blocked and `under` (-1: none) lay beneath."""
    r = pick(m, c, under)
    if r >= 0:
        m[c + cpu.TOP] = under
        if under >= 0:
            due(m, c, m[glob.NOW] + m[under + ctx.LEFT], FIRST)  # what `push` takes for the rest of its burst
        push(m, c, r)
    elif under >= 0:
        m[under + ctx.ABOVE] = -1
        resume(m, under, c)
    else:
        parked = m[c + cpu.PARKED]
        if parked >= 0:
            m[c + cpu.PARKED] = m[parked + ctx.LINK]
        resume(m, parked, c)


@outlined
def finish(m: Memory, x: Ctx) -> None:
    """Context `x`, which its CPU runs, has nothing to do any more."""
    c = m[x + ctx.CPU]
    charge(m, c)
    under = m[x + ctx.UNDER]
    m[x + ctx.STATE] = IDLE
    m[x + ctx.UNDER] = -1
    if m[x + ctx.PROG] == STREAM:
        m[x + ctx.LINK] = m[c + cpu.PARKED]
        m[c + cpu.PARKED] = x
    leave(m, c, under)


@outlined
def block(m: Memory, x: Ctx) -> None:
    """Take context `x` off its CPU until something wakes it; under the spl model with the stack that it borrowed."""
    c = m[x + ctx.CPU]
    charge(m, c)
    bottom = x
    if m[glob.MODEL] == SPL:
        while m[bottom + ctx.KIND] != MAIN and m[bottom + ctx.UNDER] >= 0:
            if m[m[bottom + ctx.UNDER] + ctx.STATE] == IDLE:
                break
            bottom = m[bottom + ctx.UNDER]
    under = m[bottom + ctx.UNDER]
    m[bottom + ctx.UNDER] = -1
    m[x + ctx.STATE] = BLOCKED
    m[x + ctx.LEFT] = 0
    if m[x + ctx.HELD] >= 0:
        off_cpu(m, x)
    leave(m, c, under)
