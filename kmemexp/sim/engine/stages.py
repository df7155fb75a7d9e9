"""What a context does between two calls of an allocator: its lock, what the step answered, the end of a sleep.

Shared by every design: no slot is called here, so these kernels are compiled once and cached by themselves. Map steps
are in `calls`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Memory, Registers, Table, Words
from kmemexp.sim.engine import costs
from kmemexp.sim.engine.biglock import wait_for_big
from kmemexp.sim.engine.calls import begin_call, carry_on, granted, retake
from kmemexp.sim.engine.contexts import MESSAGES, turn_over, within_slice
from kmemexp.sim.engine.feed import fill
from kmemexp.sim.engine.interpreter import GO_ON, TENDING, give_up, next_item
from kmemexp.sim.engine.locks import GRANTED, REFUSED, acquire, exit_section, release, retry
from kmemexp.sim.engine.log import log
from kmemexp.sim.engine.machine import FAST, LOG_OP, LOG_RUN
from kmemexp.sim.engine.messages import NO_ROOM, SIGNALLED, next_message, send
from kmemexp.sim.engine.sections import burst, left
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock, route, src, stage
from kmemexp.sim.engine.waiting import asleep
from kmemexp.sim.probes import SERVER_MAP, observe_ns
from kmemexp.sim.slots import AGAIN, DONE, FAILED, IPI, ITEM_MALLOC, MOVE, SLEEP
from kmemexp.sim.tables import regs


@outlined
def prepare(m: Memory, counters: Words, reg: Registers, x: Ctx, then: int) -> bool:
    """Take context `x` through a stage in which no allocator and no arena is called. False: it has left its CPU."""
    if then == stage.STEPPED:
        return _stepped(m, reg, x)
    if then == stage.CALL:
        return carry_on(m, counters, reg, x)
    if then == stage.BEGIN:
        return granted(m, reg, x, wait_for_big(m, x, stage.LOCK))
    if then == stage.LOCK:
        l = lock_of(m, reg, x)
        m[x + ctx.LOCK] = l
        return granted(m, reg, x, acquire(m, x, l, stage.STEP))
    if then == stage.ASLEEP:
        return asleep(m, counters, reg, x)
    if then == stage.RELOCK:
        return retake(m, reg, x)
    if then == stage.START:
        return _start(m, x)
    return _again(m, reg, x, then)


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
    bare = reg[i, regs.SIZE] >= m[row + route.UNLOCKED] and reg[i, regs.ITEM] == ITEM_MALLOC
    if bare or m[x + ctx.FREEING] == TENDING:
        return m[m[glob.ROUTE] + SERVER_MAP * route.COLUMNS + route.LOCK]
    which = 0
    if m[row + route.PER] == route.PER_CPU:
        which = m[m[x + ctx.CPU] + cpu.NUMBER]
    elif m[row + route.PER] == route.PER_ITEM:
        which = reg[i, regs.ITEM]
    return m[row + route.LOCK] + which * lock.COLUMNS


@outlined
def _stepped(m: Memory, reg: Registers, x: Ctx) -> bool:
    """The time of a step is over: give its lock back and do what it answered."""
    answer = m[x + ctx.ANSWER]
    if answer == IPI and m[x + ctx.NEED] == 0:
        sent = send(m, reg, x, m[costs.IPI_SEND] + m[costs.IPI])
        if sent == NO_ROOM:
            return False
        m[x + ctx.NEED] = 1
        if sent == SIGNALLED and burst(m, x, m[costs.IPI_SEND], stage.STEPPED):
            return False
    m[x + ctx.NEED] = 0
    if answer <= FAILED or answer == IPI:
        m[x + ctx.STAGE] = stage.DONE
    elif answer == AGAIN or answer == MOVE:
        m[x + ctx.STAGE] = stage.LOCK
    elif answer == SLEEP:
        m[x + ctx.STAGE] = stage.ASLEEP
    elif begin_call(m, reg, x):
        return True
    if m[m[x + ctx.LOCK] + lock.KIND] == lock.SECTION:
        return left(m, x)
    release(m, x, m[x + ctx.LOCK])
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
        return granted(m, reg, x, answer)
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
