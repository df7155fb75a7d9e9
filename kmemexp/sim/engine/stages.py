"""What a context does between two calls of an allocator or an arena: locks, map steps, pages, the end of a sleep.

Shared by every design: no slot is called here, so these kernels are compiled once and cached by themselves.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.engine.biglock import wait_for_big
from kmemexp.sim.engine.contexts import (
    C_NUMBER,
    C_READY,
    C_TOP,
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
    X_AFTER,
    X_ANSWER,
    X_BELOW,
    X_BIG,
    X_CPU,
    X_CRIT,
    X_DEPTH,
    X_DROPPED,
    X_EXTRA,
    X_FREEING,
    X_KIND,
    X_LOCK,
    X_MASK,
    X_NEED,
    X_NUMBER,
    X_PROG,
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
from kmemexp.sim.engine.costs import K_INTERRUPT, K_IPI, K_IPI_SEND, K_PAGE, K_SHOOTDOWN, K_SHOOTDOWN_PAGE
from kmemexp.sim.engine.feed import fill
from kmemexp.sim.engine.heap import due
from kmemexp.sim.engine.interpreter import GO_ON, TENDING, give_up, next_item
from kmemexp.sim.engine.interrupts import S_HIST
from kmemexp.sim.engine.locks import (
    GRANTED,
    L_CRIT,
    L_KIND,
    L_MASK,
    REFUSED,
    SECTION,
    WAITS,
    acquire,
    exit_section,
    may_sleep,
    release,
)
from kmemexp.sim.engine.machine import (
    FAST,
    G_BIG_LOCK,
    G_DIRECT_MAP,
    G_LOCK0,
    G_MAPS,
    G_NOW,
    G_ROUTE,
    G_SLEEP_LOCKED,
    G_WOULD_SLEEP,
    L_COUNT,
    LOG_OP,
    LOG_RUN,
    N_PAGE_FAILURES,
    N_SHOOTDOWNS,
    PER_CPU,
    PER_ITEM,
    RT_COUNT,
    RT_KEEPS,
    RT_LOCK,
    RT_PER,
    W_PANIC,
)
from kmemexp.sim.engine.memory import INTERRUPT, class_of, give_pages, take_pages, wait_for_memory
from kmemexp.sim.engine.messages import next_message, send
from kmemexp.sim.probes import A_HELD, SERVER_MAP, observe_ns
from kmemexp.sim.slots import (
    AGAIN,
    ATTR_SORT,
    ATTR_WIRED,
    DONE,
    F_NOWAIT,
    FAILED,
    IPI,
    LOCK_SHIFT,
    MAP_FREE,
    MOVE,
    NO_PAGES,
    PAGE_SHIFT,
    R_ATTR,
    R_BASE,
    R_BYTES,
    R_FLAGS,
    R_ITEM,
    R_LOCK,
    R_MAP,
    REFUSED_LOCK,
    WIRE,
)

FLUSH_CEILING = 33  # pages beyond which x86 flushes a TLB whole (tlb_single_page_flush_ceiling)


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
        l = lock_of(m, reg, x)
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
def lock_of(m, reg, x):
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
    if reg[i, R_MAP] == m[G_DIRECT_MAP]:
        pages = min(pages, 1)
    return m[K_PAGE] * pages


@kernel
def shot_down(m, flushes, pages):
    """Interrupt the other CPUs to flush their TLBs. Returns ns."""
    ns = (m[K_SHOOTDOWN] + m[K_SHOOTDOWN_PAGE] * pages) if flushes else 0
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
            refused = m[G_WOULD_SLEEP] == W_PANIC or m[x + X_KIND] == FAST
        if not refused:
            stage = S_PAGES
            if not m[G_SLEEP_LOCKED]:
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
    m[x + X_EXTRA] += m[K_INTERRUPT]
    if m[G_BIG_LOCK] and m[x + X_KIND] != FAST:
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
