"""Contexts and CPUs: who runs where, who was preempted by whom, who waits for its turn.

A context is whatever executes: a mainline thread, a soft interrupt, an interrupt thread or handler, a fast interrupt or
the handler of messages from other CPUs. Each belongs to one CPU. A CPU has a stack of contexts: the top one runs, those
under it were preempted; and a list of contexts that are ready, highest priority first, FIFO among equals.

Sources: FreeBSD 4 sys/i386/isa/{ipl_funcs.c,ipl.s,intr_machdep.c}; DragonFly sys/kern/{kern_intr.c,lwkt_thread.c} of
August 2003. A mainline thread is never preempted by another one of its priority.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.engine.costs import K_SWITCH
from kmemexp.sim.engine.heap import KEY, NEVER, due
from kmemexp.sim.engine.machine import (
    FAST,
    G_LOG,
    G_LOG0,
    G_LOG_ROWS,
    G_MODEL,
    G_NESTED,
    G_NOW,
    LOG_COUNT,
    MAIN,
    N_PREEMPTIONS,
    SPL,
)

# States.
IDLE = 0  # nothing to do
RUNNING = 1
PREEMPTED = 2  # another context runs on top of it
READY = 3
BLOCKED = 4  # off the CPU until a lock, memory, an interrupt or a time comes
SPINNING = 5  # on the CPU, waiting for a lock

# What a context waits for (X_WAIT): a lock's number, or
NOTHING = -1
MEMORY = -2
TIMER = -3
HANDLER = -4  # the next completion of the handler X_AWAITED
PAGER = -5  # the page daemon: work

# Columns of a context: the timer's KEY, TIE and POS (heap), then what most operations touch, then the rest.
X_CPU = 3
X_KIND = 4
X_STATE = 5
X_STAGE = 6  # where its operation stands (loop)
X_CRIT = 7  # depth of critical sections
X_SERVER = 8  # operation: who serves it
X_FREEING = 9
X_ROW = 10  # object
X_OP = 11  # number in the stream; -1: an operation of a program
X_BEGAN = 12  # when it was called
X_ANSWER = 13  # what the last step answered
X_LOCK = 14  # lock of the step
X_EXTRA = 15  # ns that its next burst takes longer
X_NUMBER = 16  # number of the context, and row of its registers
X_PROG = 17  # first item of its program; STREAM, MESSAGES
X_BIG = 18  # depth of the big lock
X_LEVEL = 19  # F_* flags of an operation that runs here
X_SPIN = 20  # 1: waits on the CPU
X_LINK = 21  # next in a lock's queue, among idle threads …
X_UNDER = 22  # context that it preempted
X_WAIT = 23
X_SINCE = 24  # when the wait began
X_LEFT = 25  # ns of its burst that remain, while it does not run
X_QUEUE = 26  # program: queue of objects of the operation; -1: none
X_PRIO = 27  # at the moment: raised by inheritance and ceilings
X_HELD = 28  # first of the locks held
X_NEED = 29  # pages that a map step still lacks
X_MASK = 30  # spl mask: classes of interrupts that wait while it runs
X_ABOVE = 31  # context that preempted it
X_BASE = 32  # own priority
X_BIT = 33  # its class as a bit of spl masks
X_RAISES = 34  # mask that it runs with (spl model)
X_SOURCE = 35
X_PC = 36
X_RAISED = 37  # when the interrupt being handled was raised
X_SERIAL = 38  # number of that interrupt
X_ARRIVED = 39  # interrupts that have arrived
X_QHEAD = 40  # ring of interrupts that wait: first, length
X_QLEN = 41
X_DROPPED = 42  # depth of the big lock before it slept
X_TOKEN = 43  # token released while it slept; -1: none
X_AFTER = 44  # stage to go on with when what was dropped is taken again
X_AWAITED = 45  # context of a handler
X_BURST = 46  # bursty source: arrivals left in this burst
X_VICTIM = 47  # 1: its request has been refused to break a deadlock
X_FAILED = 48  # operations that failed in this context
X_DEPTH = 49  # spl masks saved
X_RING = 50  # place of its ring
X_BELOW = 51  # depth of the big lock that the stack beneath had, while it sleeps
X_SAVED = 52  # X_SAVED + depth
X_READY = 60  # next in the ready list: a context that spins for a lock, and is preempted, stands in both
X_COUNT = 61  # not a power of two: rows of like contexts would share a few sets of the cache
DEEPEST = 8  # spl masks that can be saved

# Stages: what an operation does when its context is next advanced (loop).
S_START = 0  # the handler begins
S_NEXT = 1  # fetch the next operation, or item of the program
S_BEGIN = 2  # take the big lock
S_LOCK = 3  # take the lock of the next step
S_STEP = 4  # the lock has been granted: let the allocator work
S_STEPPED = 5  # the step's time is over
S_MAP_LOCK = 6  # take the map's lock
S_MAP = 7  # the map's lock has been granted: work on it
S_PAGES = 8  # the same, but only pages are wanted any more
S_MAPPED = 9  # the map step's time is over
S_DONE = 10  # the operation has ended
S_AGAIN = 11  # take again what was dropped while asleep
S_TOKEN = 12
S_RELOCK = 13  # take the map's lock again after waiting for memory
S_REFUSED = 14  # its request for a lock has been refused to break a deadlock; X_AFTER: what it would have gone on with

# Programs that are none.
STREAM = -1  # takes the operations of a stream
MESSAGES = -2  # carries out what other CPUs sent
RECORDED = -3  # carries out what a stream has in interrupts of its CPU

# Columns of a CPU.
C_TOP = 3  # context on the CPU; -1: none
C_READY = 4  # first of the ready list; -1: none
C_PARKED = 5  # first of the mainline threads without an operation
C_OP = 6  # next operation of the mainline's stream, and the one after the last
C_END = 7
C_MARK = 8  # until when time is accounted
C_TIME = 9  # C_TIME + T_*: ns spent
C_MSG_HEAD = 15  # messages from other CPUs
C_MSG_TAIL = 16
C_FREE_AT = 17  # closed load: when the last operation ended
C_NUMBER = 18
C_BIG_WAITERS = 19  # contexts of this CPU that wait for the big lock
C_COUNT = 20
T_COUNT = 6
T_IDLE, T_MAIN, T_SOFT, T_THREAD, T_FAST, T_SPIN = range(T_COUNT)
FIRST = -1  # tie of what a CPU does: before operations that arrive at the same instant


@kernel
def charge(m, c):
    """Account the time since the last call to what the CPU has been doing."""
    now = m[G_NOW]
    x = m[c + C_TOP]
    what = T_IDLE
    if x >= 0 and m[x + X_STATE] != IDLE:
        what = T_SPIN if m[x + X_SPIN] else T_MAIN + m[x + X_KIND]
    m[c + C_TIME + what] += now - m[c + C_MARK]
    m[c + C_MARK] = now


@outlined
def resume(m, c, x):
    """Let `x` (-1: none) be the context that CPU `c` runs. It goes on when its burst ends, at once if it has none."""
    now = m[G_NOW]
    m[c + C_TOP] = x
    if x < 0 or m[x + X_STATE] == IDLE:
        due(m, c, now if x >= 0 and m[x + X_PROG] == STREAM else NEVER, FIRST)
    elif m[x + X_SPIN]:
        m[x + X_STATE] = SPINNING
        due(m, c, NEVER, FIRST)
    else:
        m[x + X_STATE] = RUNNING
        due(m, c, now + m[x + X_LEFT], FIRST)


@outlined
def push(m, c, h):
    """Preempt what CPU `c` runs by `h`, which may have a stack of its own beneath it."""
    now = m[G_NOW]
    charge(m, c)
    x = m[c + C_TOP]
    if x >= 0:
        if m[x + X_STATE] == IDLE:
            m[x + X_LEFT] = 0
        else:
            m[x + X_LEFT] = 0 if m[x + X_SPIN] else max(m[c + KEY] - now, 0)
            m[N_PREEMPTIONS] += m[x + X_STATE] == RUNNING or m[x + X_STATE] == SPINNING
            m[x + X_STATE] = PREEMPTED
            if m[G_NESTED] and m[G_MODEL] != SPL and m[h + X_KIND] != FAST:
                x = _set_aside(m, x)
    if x >= 0:
        m[x + X_ABOVE] = h
    bottom = h
    while m[bottom + X_UNDER] >= 0:
        bottom = m[bottom + X_UNDER]
    m[bottom + X_UNDER] = x
    if m[h + X_STAGE] == S_START:
        m[h + X_MASK] = m[h + X_RAISES]
        if m[G_MODEL] == SPL and x >= 0 and m[x + X_STATE] != IDLE:
            m[h + X_MASK] |= m[x + X_MASK]
    resume(m, c, h)


@outlined
def may_preempt(m, top, r):
    """Whether ready context `r` may run at once where `top` runs."""
    if top < 0 or m[top + X_STATE] == IDLE:
        return True
    if m[top + X_CRIT] > 0 or m[top + X_KIND] == FAST:
        return False
    if m[r + X_KIND] == FAST:
        return True
    if m[top + X_MASK] & m[r + X_BIT]:
        return False
    if m[r + X_STAGE] == S_START and m[G_MODEL] == SPL and m[r + X_KIND] != MAIN:
        return True
    if m[r + X_PRIO] <= m[top + X_PRIO]:
        return False
    if m[G_NESTED]:
        return True
    under = m[top + X_UNDER]
    return m[r + X_KIND] != MAIN and (under < 0 or m[under + X_STATE] == IDLE)


@outlined
def pick(m, c, top):
    """Take the first context off the ready list of CPU `c` that may run in place of `top`; -1: none."""
    before = -1
    r = m[c + C_READY]
    while r >= 0:
        if may_preempt(m, top, r):
            if before < 0:
                m[c + C_READY] = m[r + X_READY]
            else:
                m[before + X_READY] = m[r + X_READY]
            return r
        before = r
        r = m[r + X_READY]
    return -1


@outlined
def reconsider(m, c):
    """Preempt what CPU `c` runs if something on its ready list may do so: after the list or the rules have changed."""
    r = pick(m, c, m[c + C_TOP])
    if r >= 0:
        push(m, c, r)


@outlined
def queue_ready(m, x):
    """Put a context on the ready list of its CPU: behind all of its priority."""
    m[x + X_STATE] = READY
    _insert(m, x, m[x + X_PRIO] - 1)


@kernel
def _insert(m, x, prio):
    """Put a context on the ready list of its CPU, behind all whose priority is above `prio`."""
    c = m[x + X_CPU]
    before = -1
    r = m[c + C_READY]
    while r >= 0 and m[r + X_PRIO] > prio:
        before = r
        r = m[r + X_READY]
    m[x + X_READY] = r
    if before < 0:
        m[c + C_READY] = x
    else:
        m[before + X_READY] = x


@outlined
def _set_aside(m, x):
    """Make a preempted context ready, first of its priority; returns what lay under it.

    Where any priority may preempt a lower one, who runs next is a matter of priorities alone: these may change, by
    inheritance, while a context waits. Elsewhere a preempted context stays under the one that preempted it.
    """
    under = m[x + X_UNDER]
    m[x + X_UNDER] = -1
    m[x + X_STATE] = READY
    _insert(m, x, m[x + X_PRIO])
    return under


@outlined
def leave(m, c, under):
    """Choose what CPU `c` runs next, when its top has finished or blocked and `under` (-1: none) lay beneath."""
    r = pick(m, c, under)
    if r >= 0:
        m[c + C_TOP] = under
        if under >= 0:
            due(m, c, m[G_NOW] + m[under + X_LEFT], FIRST)  # what `push` takes for the rest of its burst
        push(m, c, r)
    elif under >= 0:
        m[under + X_ABOVE] = -1
        resume(m, c, under)
    else:
        w = m[c + C_PARKED]
        if w >= 0:
            m[c + C_PARKED] = m[w + X_LINK]
        resume(m, c, w)


@outlined
def finish(m, x):
    """Context `x`, which its CPU runs, has nothing to do any more."""
    c = m[x + X_CPU]
    charge(m, c)
    under = m[x + X_UNDER]
    m[x + X_STATE] = IDLE
    m[x + X_UNDER] = -1
    if m[x + X_PROG] == STREAM:
        m[x + X_LINK] = m[c + C_PARKED]
        m[c + C_PARKED] = x
    leave(m, c, under)


@outlined
def block(m, x):
    """Take context `x` off its CPU until something wakes it; under the spl model with the stack that it borrowed."""
    c = m[x + X_CPU]
    charge(m, c)
    bottom = x
    if m[G_MODEL] == SPL:
        while m[bottom + X_KIND] != MAIN and m[bottom + X_UNDER] >= 0:
            if m[m[bottom + X_UNDER] + X_STATE] == IDLE:
                break
            bottom = m[bottom + X_UNDER]
    under = m[bottom + X_UNDER]
    m[bottom + X_UNDER] = -1
    m[x + X_STATE] = BLOCKED
    m[x + X_LEFT] = 0
    leave(m, c, under)


@kernel
def stop_spinning(m, x):
    """What `x` spun for has come."""
    c = m[x + X_CPU]
    m[x + X_WAIT] = NOTHING
    charge(m, c)
    m[x + X_SPIN] = 0
    m[x + X_STATE] = RUNNING
    due(m, c, m[G_NOW], FIRST)


@outlined
def wake(m, x):
    """What `x` waited for has come: it goes on where it spins, or becomes ready."""
    c = m[x + X_CPU]
    m[x + X_WAIT] = NOTHING
    if m[x + X_STATE] == SPINNING:
        stop_spinning(m, x)
        return
    if m[x + X_SPIN]:
        m[x + X_SPIN] = 0  # preempted: it goes on when its CPU comes back to it
        return
    m[x + X_EXTRA] += m[K_SWITCH]
    queue_ready(m, x)
    reconsider(m, c)


@outlined
def log(m, event, x, a, b):
    """Write an event to the log, where there is one."""
    rows = m[G_LOG_ROWS]
    if rows > 0:
        row = m[G_LOG0] + m[G_LOG] % rows * LOG_COUNT
        m[row] = m[G_NOW]
        m[row + 1] = event
        m[row + 2] = x
        m[row + 3] = a
        m[row + 4] = b
        m[G_LOG] += 1
