"""The driver with a clock: CPUs, contexts, locks and interrupts, and what all that costs.

A discrete-event loop over two heaps: when each CPU's context is due, and timers (arrivals of interrupts, messages
between CPUs, ends of sleeps). A context that is due is advanced through the stages of its operation until it uses the
CPU for a while (a burst), waits, or has nothing to do. A step works on the allocator's state at the instant at which
its lock is granted; the lock is held for the step's burst.

`run` is a template: only what calls an allocator or an arena is in it. All the rest is in kernels that every design
shares.
"""

from kmemexp.jit import kernel, outlined, template
from kmemexp.sim.contexts import (
    C_FREE_AT,
    C_NUMBER,
    C_READY,
    C_TOP,
    FAST,
    FIRST,
    MESSAGES,
    S_AGAIN,
    S_BEGIN,
    S_DONE,
    S_LOCK,
    S_MAP,
    S_MAP_LOCK,
    S_MAPPED,
    S_NEXT,
    S_PAGES,
    S_REFUSED,
    S_RELOCK,
    S_START,
    S_STEP,
    S_STEPPED,
    S_TOKEN,
    STREAM,
    X_AFTER,
    X_ANSWER,
    X_BEGAN,
    X_BELOW,
    X_BIG,
    X_CPU,
    X_CRIT,
    X_DEPTH,
    X_DROPPED,
    X_EXTRA,
    X_FAILED,
    X_FREEING,
    X_KIND,
    X_LEVEL,
    X_LOCK,
    X_MASK,
    X_NEED,
    X_NUMBER,
    X_OP,
    X_PROG,
    X_QUEUE,
    X_RAISED,
    X_ROW,
    X_SAVED,
    X_SERVER,
    X_SOURCE,
    X_STAGE,
    X_TOKEN,
    X_VICTIM,
    log,
    reconsider,
)
from kmemexp.sim.costs import (
    K_ALLOC,
    K_FREE,
    K_INTR,
    K_IPI,
    K_IPI_SEND,
    K_ITEM,
    K_MAP,
    K_PAGE,
    K_SHOOT,
    K_SHOOT_PAGE,
    K_WALK,
)
from kmemexp.sim.feed import (
    GO_ON,
    TENDING,
    begin_free,
    being_freed,
    fill,
    free_row,
    give_up,
    keep,
    next_item,
    next_message,
    next_operation,
    next_recorded,
    over,
    send,
)
from kmemexp.sim.heap import KEY, NEVER, TIE, due
from kmemexp.sim.interrupts import S_HIST, fire
from kmemexp.sim.locks import (
    GRANTED,
    L_CRIT,
    L_KIND,
    L_MASK,
    L_OWNER,
    REFUSED,
    SECTION,
    WAITS,
    acquire,
    enter,
    exit_section,
    gave_big,
    may_sleep,
    pass_big,
    release,
    took_big,
    wait_for_big,
)
from kmemexp.sim.machine import (
    E_CHUNK,
    E_DRY,
    E_TIME,
    G_BIG,
    G_CPU_HEAP,
    G_DIRECT,
    G_EVENTS,
    G_EXIT,
    G_HIST,
    G_HOLDS,
    G_LOCK0,
    G_MAPS,
    G_NOW,
    G_ROUTE,
    G_SLEEPS,
    G_TIMER_HEAP,
    L_COUNT,
    LOG_DONE,
    LOG_OP,
    LOG_RUN,
    N_OPS_DONE,
    N_PAGE_FAILURES,
    N_SHOOTDOWNS,
    PER_CPU,
    PER_ITEM,
    RT_COUNT,
    RT_HOME,
    RT_KEEPS,
    RT_LOCK,
    RT_PER,
    W_PANIC,
)
from kmemexp.sim.memory import INTERRUPT, class_of, give_pages, take_pages, wait_for_memory
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
    AGAIN,
    ATTR_SORT,
    ATTR_WIRED,
    DONE,
    EACH_FREE,
    F_NOWAIT,
    FAILED,
    IPI,
    LOCK_SHIFT,
    MAP_FREE,
    MOVE,
    NO_PAGES,
    P_NONE,
    PAGE_SHIFT,
    R_ATTR,
    R_BASE,
    R_BYTES,
    R_FLAGS,
    R_ITEM,
    R_LOCK,
    R_LOCKED,
    R_MAP,
    R_OBJECT,
    R_PANIC,
    R_WORK,
    REFUSED_LOCK,
    WIRE,
    map_flushes,
    map_walked,
)

FLUSH_CEILING = 33  # pages beyond which x86 flushes a TLB whole (tlb_single_page_flush_ceiling)


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
        if stage == S_BEGIN and (not m[G_BIG] or m[x + X_KIND] == FAST or took_big(m, x)):
            stage = S_LOCK
        if stage == S_LOCK:
            l = _lock_of(m, reg, x)
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
            if reg[i, R_MAP] != m[G_DIRECT]:
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


@kernel
def left_section(m, x, mask, critical):
    """Leave a section that is no lock. False: what had waited for that has preempted `x`."""
    if mask:
        m[x + X_DEPTH] -= 1
        m[x + X_MASK] = m[x + X_SAVED + m[x + X_DEPTH]]
    m[x + X_CRIT] -= critical
    c = m[x + X_CPU]
    if m[c + C_READY] >= 0 and (mask or critical):
        reconsider(m, c)
        return m[c + C_TOP] == x
    return True


@kernel
def burst(m, x, ns, stage):
    """Let `x` use the CPU for `ns`, then go on in `stage`. False: no time passes."""
    m[x + X_STAGE] = stage
    ns += m[x + X_EXTRA]
    m[x + X_EXTRA] = 0
    if ns <= 0:
        return False
    due(m, m[x + X_CPU], m[G_NOW] + ns, FIRST)
    return True


@outlined
def prepare(m, reg, counters, x, stage):
    """Take context `x` through a stage in which no allocator and no arena is called. False: it has left its CPU."""
    if stage == S_STEPPED:
        return _stepped(m, reg, x)
    if stage == S_BEGIN:
        return _granted(m, reg, x, wait_for_big(m, x, S_LOCK))
    if stage == S_LOCK:
        l = _lock_of(m, reg, x)
        m[x + X_LOCK] = l
        return _granted(m, reg, x, acquire(m, x, l, S_STEP))
    if stage == S_MAP_LOCK:
        return _granted(m, reg, x, acquire(m, x, _map_lock(m, reg, x), S_MAP))
    if stage == S_RELOCK:
        return _granted(m, reg, x, acquire(m, x, _map_lock(m, reg, x), S_PAGES))
    if stage == S_PAGES:
        return not burst(m, x, _more_pages(m, reg, x), S_MAPPED)
    if stage == S_MAPPED:
        return _mapped(m, reg, counters, x)
    if stage == S_START:
        return _start(m, x)
    return _again(m, reg, x, stage)


@outlined
def _granted(m, reg, x, answer):
    """Go on after asking for a lock. False: `x` waits for it. A refused request fails."""
    if answer == GRANTED:
        return True
    if answer == WAITS:
        return False
    if m[x + X_STAGE] == S_MAP or m[x + X_STAGE] == S_PAGES:
        if m[x + X_ANSWER] != MAP_FREE:
            reg[m[x + X_NUMBER], R_BASE] = REFUSED_LOCK
        m[x + X_NEED] = 0
        m[x + X_STAGE] = S_STEP if _keeps(m, x) else S_LOCK
    else:
        m[x + X_ANSWER] = FAILED
        m[x + X_STAGE] = S_DONE
    return m[m[x + X_CPU] + C_TOP] == x


@kernel
def _lock_of(m, reg, x):
    """Lock of the next step."""
    route = m[G_ROUTE] + m[x + X_SERVER] * RT_COUNT
    i = m[x + X_NUMBER]
    wanted = reg[i, R_LOCK]
    if wanted >= 0:
        return m[route + RT_LOCK + (wanted >> LOCK_SHIFT)] + (wanted & ((1 << LOCK_SHIFT) - 1)) * L_COUNT
    if m[x + X_FREEING] == TENDING:
        return m[m[G_ROUTE] + SERVER_MAP * RT_COUNT + RT_LOCK]
    which = 0
    if m[route + RT_PER] == PER_CPU:
        which = m[m[x + X_CPU] + C_NUMBER]
    elif m[route + RT_PER] == PER_ITEM:
        which = reg[i, R_ITEM]
    return m[route + RT_LOCK] + which * L_COUNT


@kernel
def _map_lock(m, reg, x):
    """Lock of the map that a step asks for."""
    return m[m[G_MAPS] + reg[m[x + X_NUMBER], R_MAP]]


@kernel
def _keeps(m, x):
    """Whether the section of the step's lock goes on during map steps."""
    return m[m[G_ROUTE] + m[x + X_SERVER] * RT_COUNT + RT_KEEPS] and m[m[x + X_LOCK] + L_KIND] == SECTION


@outlined
def _stepped(m, reg, x):
    """The time of a step is over: give its lock back and do what it answered."""
    answer = m[x + X_ANSWER]
    if answer == IPI and m[x + X_NEED] == 0:
        if not send(m, reg, x, m[K_IPI_SEND] + m[K_IPI]):
            return False
        m[x + X_NEED] = 1
        if burst(m, x, m[K_IPI_SEND], S_STEPPED):
            return False
    m[x + X_NEED] = 0
    if answer <= FAILED or answer == IPI:
        m[x + X_STAGE] = S_DONE
    elif answer == AGAIN or answer == MOVE:
        m[x + X_STAGE] = S_LOCK
    else:
        m[x + X_STAGE] = S_MAP_LOCK
        if _keeps(m, x):
            return True
    release(m, x, m[x + X_LOCK])
    return m[m[x + X_CPU] + C_TOP] == x


@outlined
def pages_moved(m, reg, x, flushes, lazy):
    """Pages that a map step takes or gives back, and TLB flushes. Returns ns; X_NEED is what is lacking."""
    answer, i = m[x + X_ANSWER], m[x + X_NUMBER]
    pages = reg[i, R_BYTES] >> PAGE_SHIFT
    if m[x + X_SERVER] == SERVER_MAP and reg[i, R_ATTR] & ATTR_SORT != ATTR_WIRED:
        pages = 0
    if answer == MAP_FREE:
        undone = m[x + X_NEED] > 0  # for want of pages: it has those that there were
        pages -= m[x + X_NEED]
        give_pages(m, pages)
        if undone:
            m[x + X_NEED] = 0
            reg[i, R_BASE] = NO_PAGES
            if pages == 0:
                return 0
        return shot_down(m, flushes, FLUSH_CEILING if lazy else pages) + page_work(m, reg, i, pages)
    ns = shot_down(m, flushes, FLUSH_CEILING)
    if reg[i, R_BASE] < 0:
        return ns
    m[x + X_NEED] = pages
    return ns + _more_pages(m, reg, x)


@kernel
def page_work(m, reg, i, pages):
    """What taking or giving back pages costs: in the direct map, where no page tables change, a block is as one."""
    if reg[i, R_MAP] == m[G_DIRECT]:
        pages = min(pages, 1)
    return m[K_PAGE] * pages


@kernel
def shot_down(m, flushes, pages):
    """Interrupt the other CPUs to flush their TLBs. Returns ns."""
    ns = (m[K_SHOOT] + m[K_SHOOT_PAGE] * pages) if flushes else 0
    m[N_SHOOTDOWNS] += ns > 0
    return ns


@outlined
def _more_pages(m, reg, x):
    """Take the pages that a request still lacks, as far as there are any. Returns ns."""
    klass = INTERRUPT if m[x + X_ANSWER] == WIRE else class_of(reg[m[x + X_NUMBER], R_FLAGS])
    got = take_pages(m, m[x + X_NEED], klass)
    m[x + X_NEED] -= got
    return page_work(m, reg, m[x + X_NUMBER], got)


@outlined
def _mapped(m, reg, counters, x):
    """The time of a map step is over: give the map back, or wait for pages, or undo."""
    l, i = _map_lock(m, reg, x), m[x + X_NUMBER]
    if m[x + X_NEED] > 0:
        refused = reg[i, R_FLAGS] & F_NOWAIT or m[x + X_VICTIM] or m[x + X_ANSWER] == WIRE
        if not refused and not may_sleep(m, x):
            refused = m[G_SLEEPS] == W_PANIC or m[x + X_KIND] == FAST
        if not refused:
            stage = S_PAGES
            if not m[G_HOLDS]:
                stage = S_RELOCK
                m[x + X_STAGE] = stage
                release(m, x, l)
                if m[m[x + X_CPU] + C_TOP] != x:
                    return False
            wait_for_memory(m, x, stage)
            return False
        m[x + X_VICTIM] = 0
        m[N_PAGE_FAILURES] += 1
        if m[x + X_ANSWER] != WIRE:
            m[x + X_ANSWER] = MAP_FREE
            m[x + X_STAGE] = S_MAP
            return True
        counters[A_HELD] -= reg[i, R_BYTES]
        give_pages(m, (reg[i, R_BYTES] >> PAGE_SHIFT) - m[x + X_NEED])
        m[x + X_NEED] = 0
        reg[i, R_BASE] = NO_PAGES
    m[x + X_STAGE] = S_STEP if _keeps(m, x) else S_LOCK
    release(m, x, l)
    return m[m[x + X_CPU] + C_TOP] == x


@outlined
def next_of_program(m, objects, reg, x):
    """Go on with a program, or with the messages of other CPUs. False: the context uses the CPU, waits or has left."""
    if m[x + X_PROG] == MESSAGES:
        if not next_message(m, reg, x):
            return False
        m[x + X_STAGE] = S_LOCK
        return True
    ns = next_item(m, objects, reg, x)
    if ns >= 0:
        return not burst(m, x, ns, S_NEXT)
    if -1 - ns != GO_ON:
        return False
    if m[x + X_STAGE] == S_BEGIN:
        if m[x + X_FREEING] != TENDING:
            fill(m, objects, reg, x)
        m[x + X_ANSWER] = DONE
        log(m, LOG_OP, x, m[x + X_FREEING], m[x + X_ROW])
    return True


@outlined
def _start(m, x):
    """A handler begins: its entry costs time, and it may need the big lock."""
    observe_ns(m, m[m[x + X_SOURCE] + S_HIST], m[G_NOW] - m[x + X_RAISED])
    log(m, LOG_RUN, x, m[x + X_RAISED], 0)
    m[x + X_EXTRA] += m[K_INTR]
    if m[G_BIG] and m[x + X_KIND] != FAST:
        return acquire(m, x, m[G_LOCK0], S_NEXT) == GRANTED
    m[x + X_STAGE] = S_NEXT
    return not burst(m, x, 0, S_NEXT)


@outlined
def _again(m, reg, x, stage):
    """Take what was dropped for a sleep again: the big lock, then the token; then go on."""
    if stage == S_REFUSED:
        m[x + X_STAGE] = m[x + X_AFTER]
        if m[x + X_STAGE] == S_NEXT:
            give_up(m, x)
            return m[m[x + X_CPU] + C_TOP] == x
        return _granted(m, reg, x, REFUSED)
    if stage == S_AGAIN and m[x + X_DROPPED] > 0:
        m[x + X_DROPPED] -= 1
        return acquire(m, x, m[G_LOCK0], S_AGAIN) == GRANTED
    m[x + X_BIG] -= m[x + X_BELOW]
    m[x + X_BELOW] = 0
    token = m[x + X_TOKEN]
    if token >= 0 and stage == S_AGAIN:
        m[x + X_TOKEN] = -1
        exit_section(m, x, m[token + L_MASK], m[token + L_CRIT])
        return acquire(m, x, token, S_TOKEN) == GRANTED
    m[x + X_STAGE] = m[x + X_AFTER]
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
