"""The driver with a clock: CPUs, contexts, locks and interrupts, and what all that costs.

A discrete-event loop over two heaps: when each CPU's context is due, and timers (arrivals of interrupts, messages
between CPUs, ends of sleeps). A context that is due is advanced through the stages of its operation until it uses the
CPU for a while (a burst), waits, or has nothing to do. A step works on the allocator's state at the instant at which
its lock is granted; the lock is held for the step's burst.

`run` is a template: only what calls an allocator or an arena is in it. All the rest is in kernels that every design
shares.
"""

from kmemexp.jit import kernel, outlined, template
from kmemexp.sim.engine.biglock import gave_big, pass_big, took_big
from kmemexp.sim.engine.contexts import (
    C_FREE_AT,
    C_TOP,
    MESSAGES,
    S_BEGIN,
    S_DONE,
    S_LOCK,
    S_MAP,
    S_MAPPED,
    S_NEXT,
    S_STEP,
    S_STEPPED,
    STREAM,
    X_ANSWER,
    X_BEGAN,
    X_BIG,
    X_CPU,
    X_FAILED,
    X_FREEING,
    X_KIND,
    X_LEVEL,
    X_LOCK,
    X_NUMBER,
    X_OP,
    X_PROG,
    X_QUEUE,
    X_ROW,
    X_SERVER,
    X_STAGE,
    log,
)
from kmemexp.sim.engine.costs import K_ALLOC, K_FREE, K_ITEM, K_MAP, K_WALK
from kmemexp.sim.engine.feed import begin_free, fill, free_row, next_operation, next_recorded, over
from kmemexp.sim.engine.heap import KEY, NEVER, TIE
from kmemexp.sim.engine.interpreter import TENDING, being_freed, keep
from kmemexp.sim.engine.interrupts import fire
from kmemexp.sim.engine.locks import L_CRIT, L_KIND, L_MASK, L_OWNER, SECTION, enter
from kmemexp.sim.engine.machine import (
    E_CHUNK,
    E_DRY,
    E_TIME,
    FAST,
    G_BIG_LOCK,
    G_CPU_HEAP,
    G_DIRECT_MAP,
    G_EVENTS,
    G_EXIT,
    G_HIST,
    G_NOW,
    G_ROUTE,
    G_TIMER_HEAP,
    LOG_DONE,
    LOG_OP,
    N_OPS_DONE,
    RT_COUNT,
    RT_HOME,
)
from kmemexp.sim.engine.stages import burst, left_section, lock_of, next_of_program, pages_moved, prepare
from kmemexp.sim.probes import (
    A_DIRECT,
    A_FAILURES,
    A_HELD,
    A_IPIS,
    A_NOWAIT_FAILURES,
    A_OPS,
    A_STEPS,
    ABSENT,
    BUCKETS,
    H_ALLOC,
    H_FREE,
    O_ADDR,
    SERVER_MAP,
    WANTED,
    observe_ns,
)
from kmemexp.sim.serving import forget, map_step, moved, note_panic, remember, step, tend_step
from kmemexp.sim.slots import (
    DONE,
    EACH_FREE,
    F_NOWAIT,
    FAILED,
    IPI,
    MAP_FREE,
    MOVE,
    P_NONE,
    R_LOCK,
    R_LOCKED,
    R_MAP,
    R_OBJECT,
    R_PANIC,
    R_WORK,
    map_flushes,
    map_walked,
)


@template
def run(w, m, s, until, budget):
    """Simulate until time `until` (ns), or `budget` events. Returns why it stopped, E_*; it can go on from there.

    `w`: replay.World, `m`: the machine's memory, `s`: machine.Stream.
    """
    m[G_EXIT] = 0
    left = budget
    while True:
        c = m[m[G_CPU_HEAP]]
        t = m[m[G_TIMER_HEAP]]
        at = m[c + KEY]
        by_timer = m[t + KEY] < at or (m[t + KEY] == at and m[t + TIE] < m[c + TIE])
        if by_timer:
            at = m[t + KEY]
        if at > until:
            m[G_EXIT] = E_DRY
            if at != NEVER:
                m[G_NOW] = max(m[G_NOW], until)
                m[G_EXIT] = E_TIME
            break
        if left == 0:
            m[G_EXIT] = E_CHUNK
            break
        left -= 1
        m[G_NOW] = at
        if by_timer:
            fire(m, t)
        else:
            advance(w.a, w.b, w.c, w.arena, w.objects, w.counters, w.reg, m, s, m[c + C_TOP])
        if m[G_EXIT] != 0:
            break
    m[G_EVENTS] += budget - left
    return m[G_EXIT]


@template
def advance(a, b, c, arena, objects, counters, reg, m, s, x):
    """Take context `x` through the stages of what it does, until it uses the CPU or waits.

    What most operations go through is here, compiled into the loop: an operation of the stream, a lock that is only a
    section, one step. The rest is in `prepare`.
    """
    while True:
        stage = m[x + X_STAGE]
        if stage == S_NEXT and m[x + X_PROG] < 0 and m[x + X_PROG] != MESSAGES:
            if not fetch(m, s, objects, reg, counters, x):
                return
            stage = m[x + X_STAGE]
        if stage == S_BEGIN and (not m[G_BIG_LOCK] or m[x + X_KIND] == FAST or took_big(m, x)):
            stage = S_LOCK
        if stage == S_LOCK:
            l = lock_of(m, reg, x)
            m[x + X_LOCK] = l
            if m[l + L_KIND] == SECTION:
                enter(m, x, m[l + L_MASK], m[l + L_CRIT])
                stage = S_STEP
        if stage == S_STEP:
            freeing, server, i = m[x + X_FREEING], m[x + X_SERVER], m[x + X_NUMBER]
            counters[A_STEPS] += 1
            reg[i, R_WORK] = 0
            reg[i, R_LOCK] = -1
            reg[i, R_LOCKED] = m[m[m[G_ROUTE] + server * RT_COUNT + RT_HOME] + L_OWNER] >= 0
            if freeing == TENDING:
                m[x + X_ANSWER] = tend_step(a, b, c, server, reg, i)
                if m[x + X_ANSWER] == MOVE:
                    moved(objects, reg, i, counters, being_freed(m, reg[i, R_OBJECT]))
            else:
                m[x + X_ANSWER] = step(a, b, c, server, freeing, reg, i)
            ns = m[K_FREE if freeing else K_ALLOC] + m[K_ITEM] * reg[i, R_WORK]
            if burst(m, x, ns, S_STEPPED):
                return
            stage = S_STEPPED
        if stage == S_STEPPED and m[x + X_ANSWER] <= FAILED and m[m[x + X_LOCK] + L_KIND] == SECTION:
            l = m[x + X_LOCK]
            m[x + X_STAGE] = S_DONE
            if not left_section(m, x, m[l + L_MASK], m[l + L_CRIT]):
                return
            stage = S_DONE
        if stage == S_DONE:
            if not done(objects, counters, reg, m, x):
                return
        elif stage == S_MAP:
            answer = m[x + X_ANSWER]
            account = A_DIRECT if m[x + X_SERVER] == SERVER_MAP else A_HELD
            i = m[x + X_NUMBER]
            walked, flushed = map_walked(arena, reg[i, R_MAP]), map_flushes(arena, reg[i, R_MAP])
            map_step(arena, answer, account, m[x + X_SERVER], reg, i, counters, m[x + X_OP])
            ns = m[K_WALK] * (map_walked(arena, reg[i, R_MAP]) - walked)
            if reg[i, R_MAP] != m[G_DIRECT_MAP]:
                ns += m[K_MAP]
            lazy = flushed != EACH_FREE
            flushes = map_flushes(arena, reg[i, R_MAP]) != flushed if lazy else answer == MAP_FREE
            if burst(m, x, ns + pages_moved(m, reg, x, flushes, lazy), S_MAPPED):
                return
        elif stage == S_NEXT and (m[x + X_PROG] >= 0 or m[x + X_PROG] == MESSAGES):
            if not next_of_program(m, objects, reg, x):
                return
        elif stage != S_NEXT and not prepare(m, reg, counters, x, stage):
            return


@kernel
def fetch(m, s, objects, reg, counters, x):
    """Fetch the next operation of the stream. False: there is none to do now."""
    if m[x + X_PROG] == STREAM:
        if not next_operation(m, s, objects, x):
            return False
    elif not next_recorded(m, s, objects, x):
        return False
    counters[A_OPS] += 1
    if m[x + X_STAGE] == S_BEGIN:
        fill(m, objects, reg, x)
        m[x + X_ANSWER] = DONE
        log(m, LOG_OP, x, m[x + X_FREEING], m[x + X_ROW])
    return True


@template
def done(objects, counters, reg, m, x):
    """An operation has ended: the table of objects, totals and latency. False: the context has left its CPU."""
    row, server = m[x + X_ROW], m[x + X_SERVER]
    took = m[G_NOW] - m[x + X_BEGAN]
    m[x + X_STAGE] = S_NEXT
    wanted = False
    if m[x + X_FREEING]:
        counters[A_IPIS] += m[x + X_ANSWER] == IPI
        if row >= 0:
            observe_ns(m, m[G_HIST] + (H_FREE + m[x + X_KIND]) * BUCKETS, took)
            forget(objects, row, server, counters)
            free_row(m, objects, row)
    else:
        observe_ns(m, m[G_HIST] + (H_ALLOC + m[x + X_KIND]) * BUCKETS, took)
        wanted = objects[row, O_ADDR] == WANTED
        if m[x + X_ANSWER] == DONE:
            remember(objects, row, server, reg, m[x + X_NUMBER], counters)
            if m[x + X_QUEUE] >= 0 and not keep(m, x, row):
                wanted = True
        else:
            failed(objects, counters, reg, m, x, row, wanted)
            wanted = False
    m[N_OPS_DONE] += 1
    if m[x + X_OP] >= 0:
        over(m)
    log(m, LOG_DONE, x, m[x + X_ANSWER], took)
    if wanted:
        m[x + X_BEGAN] = m[G_NOW]
        m[x + X_QUEUE] = -1
        m[x + X_OP] = -1
        begin_free(m, objects, x, row)
        fill(m, objects, reg, x)
        return True
    return ended(m, x)


@template
def failed(objects, counters, reg, m, x, row, wanted):
    """An allocation got nothing."""
    objects[row, O_ADDR] = ABSENT
    counters[A_FAILURES] += 1
    m[x + X_FAILED] += 1
    if m[x + X_LEVEL] & F_NOWAIT:
        counters[A_NOWAIT_FAILURES] += 1
    panic = reg[m[x + X_NUMBER], R_PANIC]
    if panic != P_NONE:
        note_panic(counters, panic, m[x + X_OP])
    if wanted or m[x + X_QUEUE] >= 0:
        free_row(m, objects, row)


@outlined
def ended(m, x):
    """After an operation: the big lock goes back, except inside a handler."""
    c = m[x + X_CPU]
    prog = m[x + X_PROG]
    if prog == STREAM:
        m[c + C_FREE_AT] = m[G_NOW]
        if m[x + X_BIG] and not gave_big(m, x):
            pass_big(m, x)
            return m[c + C_TOP] == x
    return True
