"""What a context does between two calls of an allocator or an arena: locks, map steps, pages, the end of a sleep.

Shared by every design: no slot is called here, so these kernels are compiled once and cached by themselves.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Memory, Ns, Registers, Table, Words
from kmemexp.sim.engine import costs
from kmemexp.sim.engine.biglock import wait_for_big
from kmemexp.sim.engine.contexts import FIRST, MESSAGES, log, reconsider, turn_over, within_slice
from kmemexp.sim.engine.feed import fill
from kmemexp.sim.engine.heap import due
from kmemexp.sim.engine.interpreter import GO_ON, TENDING, give_up, next_item
from kmemexp.sim.engine.locks import GRANTED, REFUSED, WAITS, acquire, exit_section, release, retry
from kmemexp.sim.engine.machine import FAST, LOG_OP, LOG_RUN, WOULD_PANIC
from kmemexp.sim.engine.memory import INTERRUPT, class_of, give_pages, take_pages, wait_for_memory
from kmemexp.sim.engine.messages import next_message, send
from kmemexp.sim.engine.shootdown import answered, shot_down
from kmemexp.sim.engine.sleeping import may_sleep
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock, route, seen, src, stage
from kmemexp.sim.probes import SERVER_MAP, observe_ns
from kmemexp.sim.slots import (
    AGAIN,
    ATTR_SORT,
    ATTR_WIRED,
    DONE,
    FAILED,
    IPI,
    MAP_FREE,
    MOVE,
    NO_PAGES,
    PAGE_SHIFT,
    REFUSED_LOCK,
    WIRE,
)
from kmemexp.sim.tables import flag, regs, tally

FLUSH_CEILING = 33  # pages beyond which x86 flushes a TLB whole (tlb_single_page_flush_ceiling)


@kernel
def left_section(m: Memory, x: Ctx, mask: int, critical: int) -> bool:
    """Leave a section that is no lock. False: what had waited for that has preempted `x`."""
    if mask:
        m[x + ctx.DEPTH] -= 1
        m[x + ctx.MASK] = m[x + ctx.SAVED + m[x + ctx.DEPTH]]
    m[x + ctx.CRIT] -= critical
    c = m[x + ctx.CPU]
    if m[c + cpu.READY] >= 0 and (mask or critical):
        reconsider(m, c)
        return m[c + cpu.TOP] == x
    return True


@kernel
def burst(m: Memory, x: Ctx, ns: Ns, then: int) -> bool:
    """Let `x` use the CPU for `ns`, then go on in `stage`. False: no time passes."""
    m[x + ctx.STAGE] = then
    ns += m[x + ctx.EXTRA]
    m[x + ctx.EXTRA] = 0
    if ns <= 0:
        return False
    due(m, m[x + ctx.CPU], m[glob.NOW] + ns, FIRST)
    return True


@outlined
def prepare(m: Memory, counters: Words, reg: Registers, x: Ctx, then: int) -> bool:
    """Take context `x` through a stage in which no allocator and no arena is called. False: it has left its CPU."""
    if then == stage.STEPPED:
        return _stepped(m, reg, x)
    if then == stage.BEGIN:
        return _granted(m, reg, x, wait_for_big(m, x, stage.LOCK))
    if then == stage.LOCK:
        l = lock_of(m, reg, x)
        m[x + ctx.LOCK] = l
        return _granted(m, reg, x, acquire(m, x, l, stage.STEP))
    if then == stage.MAP_LOCK:
        return _granted(m, reg, x, acquire(m, x, _map_lock(m, reg, x), stage.MAP))
    if then == stage.RELOCK:
        return _granted(m, reg, x, acquire(m, x, _map_lock(m, reg, x), stage.PAGES))
    if then == stage.PAGES:
        return not burst(m, x, _more_pages(m, reg, x), stage.MAPPED)
    if then == stage.MAPPED:
        return _mapped(m, counters, reg, x)
    if then == stage.START:
        return _start(m, x)
    return _again(m, reg, x, then)


@outlined
def _granted(m: Memory, reg: Registers, x: Ctx, answer: int) -> bool:
    """Go on after asking for a lock. False: `x` waits for it. A refused request fails."""
    if answer == GRANTED:
        return True
    if answer == WAITS:
        return False
    if m[x + ctx.STAGE] == stage.MAP or m[x + ctx.STAGE] == stage.PAGES:
        if m[x + ctx.ANSWER] != MAP_FREE:
            reg[m[x + ctx.NUMBER], regs.BASE] = REFUSED_LOCK
        m[x + ctx.NEED] = 0
        m[x + ctx.STAGE] = stage.STEP if _keeps(m, x) else stage.LOCK
    else:
        m[x + ctx.ANSWER] = FAILED
        m[x + ctx.STAGE] = stage.DONE
    return m[m[x + ctx.CPU] + cpu.TOP] == x


@kernel
def lock_of(m: Memory, reg: Registers, x: Ctx) -> int:
    """Lock of the next step."""
    row = m[glob.ROUTE] + m[x + ctx.SERVER] * route.COLUMNS
    i = m[x + ctx.NUMBER]
    wanted = reg[i, regs.LOCK]
    if wanted >= 0:
        return (
            m[row + route.LOCK + (wanted >> regs.LOCK_SHIFT)] + (wanted & ((1 << regs.LOCK_SHIFT) - 1)) * lock.COLUMNS
        )
    if m[x + ctx.FREEING] == TENDING:
        return m[m[glob.ROUTE] + SERVER_MAP * route.COLUMNS + route.LOCK]
    which = 0
    if m[row + route.PER] == route.PER_CPU:
        which = m[m[x + ctx.CPU] + cpu.NUMBER]
    elif m[row + route.PER] == route.PER_ITEM:
        which = reg[i, regs.ITEM]
    return m[row + route.LOCK] + which * lock.COLUMNS


@kernel
def _map_lock(m: Memory, reg: Registers, x: Ctx) -> int:
    """Lock of the map that a step asks for."""
    return m[m[glob.MAPS] + reg[m[x + ctx.NUMBER], regs.MAP]]


@kernel
def _keeps(m: Memory, x: Ctx) -> int:
    """Whether the section of the step's lock goes on during map steps."""
    return (
        m[m[glob.ROUTE] + m[x + ctx.SERVER] * route.COLUMNS + route.KEEPS]
        and m[m[x + ctx.LOCK] + lock.KIND] == lock.SECTION
    )


@outlined
def _stepped(m: Memory, reg: Registers, x: Ctx) -> bool:
    """The time of a step is over: give its lock back and do what it answered."""
    answer = m[x + ctx.ANSWER]
    if answer == IPI and m[x + ctx.NEED] == 0:
        if not send(m, reg, x, m[costs.IPI_SEND] + m[costs.IPI]):
            return False
        m[x + ctx.NEED] = 1
        if burst(m, x, m[costs.IPI_SEND], stage.STEPPED):
            return False
    m[x + ctx.NEED] = 0
    if answer <= FAILED or answer == IPI:
        m[x + ctx.STAGE] = stage.DONE
    elif answer == AGAIN or answer == MOVE:
        m[x + ctx.STAGE] = stage.LOCK
    else:
        m[x + ctx.STAGE] = stage.MAP_LOCK
        if _keeps(m, x):
            return True
    release(m, x, m[x + ctx.LOCK])
    return m[m[x + ctx.CPU] + cpu.TOP] == x


@outlined
def pages_moved(m: Memory, reg: Registers, x: Ctx, flushes: int, lazy: int) -> int:
    """Pages that a map step takes or gives back, and TLB flushes. Returns ns; ctx.NEED is what is lacking."""
    answer, i = m[x + ctx.ANSWER], m[x + ctx.NUMBER]
    pages = reg[i, regs.BYTES] >> PAGE_SHIFT
    if m[x + ctx.SERVER] == SERVER_MAP and reg[i, regs.ATTR] & ATTR_SORT != ATTR_WIRED:
        pages = 0
    if answer == MAP_FREE:
        undone = m[x + ctx.NEED] > 0  # too few pages: it has those that there were
        pages -= m[x + ctx.NEED]
        give_pages(m, pages)
        if undone:
            m[x + ctx.NEED] = 0
            reg[i, regs.BASE] = NO_PAGES
            if pages == 0:
                return 0
        return shot_down(m, x, flushes, FLUSH_CEILING if lazy else pages) + page_work(m, reg, i, pages)
    ns = shot_down(m, x, flushes, FLUSH_CEILING)
    if reg[i, regs.BASE] < 0:
        return ns
    m[x + ctx.NEED] = pages
    return ns + _more_pages(m, reg, x)


@kernel
def page_work(m: Memory, reg: Registers, i: int, pages: int) -> int:
    """What taking or giving back pages costs: in the direct map, where no page tables change, a block is as one."""
    if reg[i, regs.MAP] == m[glob.DIRECT_MAP]:
        pages = min(pages, 1)
    return m[costs.PAGE] * pages


@outlined
def _more_pages(m: Memory, reg: Registers, x: Ctx) -> int:
    """Take the pages that a request still lacks, as far as there are any. Returns ns."""
    klass = INTERRUPT if m[x + ctx.ANSWER] == WIRE else class_of(reg[m[x + ctx.NUMBER], regs.FLAGS])
    got = take_pages(m, m[x + ctx.NEED], klass)
    m[x + ctx.NEED] -= got
    return page_work(m, reg, m[x + ctx.NUMBER], got)


@outlined
def _mapped(m: Memory, counters: Words, reg: Registers, x: Ctx) -> bool:
    """The time of a map step is over: give the map back, or wait for pages, or undo."""
    if m[x + ctx.SHOT] and not answered(m, x):
        return False
    l, i = _map_lock(m, reg, x), m[x + ctx.NUMBER]
    if m[x + ctx.NEED] > 0:
        refused = reg[i, regs.FLAGS] & flag.NOWAIT or m[x + ctx.VICTIM] or m[x + ctx.ANSWER] == WIRE
        if not refused and not may_sleep(m, x):
            refused = m[glob.WOULD_SLEEP] == WOULD_PANIC or m[x + ctx.KIND] == FAST
        if not refused:
            then = stage.PAGES
            if not m[glob.SLEEP_LOCKED]:
                then = stage.RELOCK
                m[x + ctx.STAGE] = then
                release(m, x, l)
                if m[m[x + ctx.CPU] + cpu.TOP] != x:
                    return False
            wait_for_memory(m, x, then)
            return False
        m[x + ctx.VICTIM] = 0
        m[seen.PAGE_FAILURES] += 1
        if m[x + ctx.ANSWER] != WIRE:
            m[x + ctx.ANSWER] = MAP_FREE
            m[x + ctx.STAGE] = stage.MAP
            return True
        counters[tally.HELD] -= reg[i, regs.BYTES]
        give_pages(m, (reg[i, regs.BYTES] >> PAGE_SHIFT) - m[x + ctx.NEED])
        m[x + ctx.NEED] = 0
        reg[i, regs.BASE] = NO_PAGES
    m[x + ctx.STAGE] = stage.STEP if _keeps(m, x) else stage.LOCK
    release(m, x, l)
    return m[m[x + ctx.CPU] + cpu.TOP] == x


@outlined
def next_of_program(m: Memory, objects: Table, reg: Registers, x: Ctx) -> bool:
    """Go on with a program, or with the messages of other CPUs. False: the context uses the CPU, waits or has left."""
    if m[x + ctx.PROG] == MESSAGES:
        if not next_message(m, reg, x):
            return False
        m[x + ctx.STAGE] = stage.LOCK
        return True
    c = m[x + ctx.CPU]
    if m[c + cpu.SLICE] and m[glob.NOW] >= m[c + cpu.SLICE] and turn_over(m, x, 0):
        return False
    ns = next_item(m, objects, reg, x)
    if ns >= 0:
        if not burst(m, x, ns, stage.NEXT):
            return True
        within_slice(m, c)
        return False
    if -1 - ns != GO_ON:
        return False
    if m[x + ctx.STAGE] == stage.BEGIN:
        if m[x + ctx.FREEING] != TENDING:
            fill(m, objects, reg, x)
        m[x + ctx.ANSWER] = DONE
        log(m, x, LOG_OP, m[x + ctx.FREEING], m[x + ctx.ROW])
    return True


@outlined
def _start(m: Memory, x: Ctx) -> bool:
    """A handler begins: its entry costs time, and it may need the big lock."""
    observe_ns(m, m[m[x + ctx.SOURCE] + src.HIST], m[glob.NOW] + m[x + ctx.EXTRA] - m[x + ctx.RAISED])
    log(m, x, LOG_RUN, m[x + ctx.RAISED], 0)
    m[x + ctx.EXTRA] += m[costs.INTERRUPT]
    if m[glob.BIG_LOCK] and m[x + ctx.KIND] != FAST:
        return acquire(m, x, m[glob.LOCK0], stage.NEXT) == GRANTED
    m[x + ctx.STAGE] = stage.NEXT
    return not burst(m, x, 0, stage.NEXT)


@outlined
def _again(m: Memory, reg: Registers, x: Ctx, then: int) -> bool:
    """Look again at a lock, or take what was dropped for a sleep again: the big lock, then the token; then go on."""
    if then >= stage.RETRY:
        if not m[x + ctx.SPIN] and burst(m, x, 0, then):
            return False  # it is still being switched to
        answer = retry(m, x)
        if answer == REFUSED and m[x + ctx.STAGE] == stage.NEXT:
            give_up(m, x)
            return m[m[x + ctx.CPU] + cpu.TOP] == x
        return _granted(m, reg, x, answer)
    if then == stage.AGAIN and m[x + ctx.DROPPED] > 0:
        m[x + ctx.DROPPED] -= 1
        return acquire(m, x, m[glob.LOCK0], stage.AGAIN) == GRANTED
    m[x + ctx.BIG] -= m[x + ctx.BELOW]
    m[x + ctx.BELOW] = 0
    token = m[x + ctx.TOKEN]
    if token >= 0 and then == stage.AGAIN:
        m[x + ctx.TOKEN] = -1
        exit_section(m, x, m[token + lock.MASK], m[token + lock.CRIT])
        return acquire(m, x, token, stage.TOKEN) == GRANTED
    m[x + ctx.STAGE] = m[x + ctx.AFTER]
    return True
