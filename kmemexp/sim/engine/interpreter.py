"""Programs of handlers and tasks, an item at a time: what conf/interrupts/sources/ says that they do."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Bytes, Ctx, Memory, Registers, Table
from kmemexp.sim.engine import programs
from kmemexp.sim.engine.contexts import FIRST
from kmemexp.sim.engine.feed import begin_free
from kmemexp.sim.engine.heap import alarm, due
from kmemexp.sim.engine.interrupts import DRAW, arrive, await_handler, draw, handled, nap
from kmemexp.sim.engine.locks import GRANTED, REFUSED, acquire, release
from kmemexp.sim.engine.machine import E_GROW, MAIN
from kmemexp.sim.engine.memory import NORMAL, daemon_rests, give_pages, reclaim, take_pages, wait_for_memory
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock, prog, src, stage
from kmemexp.sim.ops import ALLOC, FREE
from kmemexp.sim.tables import obj, regs

TENDING = 2  # ctx.FREEING, beside ALLOC and FREE: upkeep of an allocator

# What fetching gives.
GO_ON = 0  # the stage has been set
WAIT = 1  # the context has left its CPU, or waits for its time


@outlined
def next_item(m: Memory, objects: Table, reg: Registers, x: Ctx) -> int:
    """Carry out the next item of a program. Returns ns of CPU to use, or -1 - GO_ON, -1 - WAIT."""
    source, c = m[x + ctx.SOURCE], m[x + ctx.CPU]
    pc = m[x + ctx.PC]
    code, a, b, d = m[pc + programs.PC_CODE], m[pc + programs.PC_1], m[pc + programs.PC_2], m[pc + programs.PC_3]
    m[x + ctx.PC] = pc + prog.COLUMNS
    number = m[c + cpu.NUMBER]
    if code == prog.WORK or code == prog.SLEEP:
        ns = draw(a, b, d, m[glob.SEED], m[source + src.NUMBER], number, m[x + ctx.SERIAL], DRAW + pc - m[x + ctx.PROG])
        if code == prog.WORK:
            return ns
        if ns > 0:
            nap(m, x, ns)
            return -1 - WAIT
    elif code == prog.LOCK:
        answer = acquire(m, x, a + (number * lock.COLUMNS if b else 0), stage.NEXT)
        if answer == REFUSED:
            give_up(m, x)
        if answer != GRANTED:
            return -1 - WAIT
    elif code == prog.UNLOCK:
        release(m, x, a + (number * lock.COLUMNS if b else 0))
    elif code == prog.ALLOC:
        return _begin_alloc(m, objects, x, a, b, d, m[pc + programs.PC_4])
    elif code == prog.FREE:
        return _free_oldest(m, objects, x, a, b)
    elif code == prog.RAISE:
        arrive(m, m[a + src.FIRST] + (number * ctx.COLUMNS if m[a + src.CONTEXTS] > 1 else 0), m[glob.NOW])
    elif code == prog.AWAIT:
        await_handler(m, x, a)
        return -1 - WAIT
    elif code == prog.IO:
        alarm(m, m[a + src.FIRST], m[glob.NOW] + b, m[a + src.FIRST])
        await_handler(m, x, a)
        return -1 - WAIT
    elif code == prog.TAKE:
        return _take_user_pages(m, x, a, pc)
    elif code == prog.GIVE:
        n = min(a, m[glob.USER])
        m[glob.USER] -= n
        give_pages(m, n)
    elif code == prog.REST:
        if daemon_rests(m, x):
            m[x + ctx.PC] = pc
            return -1 - WAIT
    elif code == prog.RECLAIM:
        reclaim(m)
    elif code == prog.TEND:
        _begin_upkeep(m, reg, x, a, b)
    elif code == prog.WATCH:
        if m[glob.SHORT] == 0:
            m[x + ctx.PC] = m[pc + programs.PC_END]
        m[glob.SHORT] = 0
    else:
        return _end(m, x, source, pc)
    return -1 - (GO_ON if m[c + cpu.TOP] == x else WAIT)


@outlined
def _begin_upkeep(m: Memory, reg: Registers, x: Ctx, server: int, why: int) -> None:
    """Upkeep of an allocator: an operation without an object."""
    m[x + ctx.OP] = -1
    m[x + ctx.ROW] = -1
    m[x + ctx.QUEUE] = -1
    m[x + ctx.BEGAN] = m[glob.NOW]
    m[x + ctx.LEVEL] = 0
    m[x + ctx.FREEING] = TENDING
    m[x + ctx.SERVER] = server
    m[x + ctx.STAGE] = stage.BEGIN
    i = m[x + ctx.NUMBER]
    reg[i, regs.CPU] = m[m[x + ctx.CPU] + cpu.NUMBER]
    reg[i, regs.SIZE] = why
    reg[i, regs.ITEM] = 0
    reg[i, regs.FLAGS] = 0
    m[m[glob.STEPS] + m[x + ctx.NUMBER]] = 0
    reg[i, regs.PHASE] = 0
    reg[i, regs.PANIC] = 0
    reg[i, regs.WAKE] = 0
    reg[i, regs.LOCK] = -1


@outlined
def being_freed(m: Memory, row: int) -> bool:
    """Whether some context is just freeing the object of a row."""
    for number in range(m[glob.CONTEXTS]):
        x = m[glob.CTX0] + number * ctx.COLUMNS
        if m[x + ctx.ROW] == row and m[x + ctx.FREEING] == FREE and m[x + ctx.STAGE] > stage.NEXT:
            return True
    return False


@outlined
def give_up(m: Memory, x: Ctx) -> None:
    """A program whose request for a lock was refused gives back what it has and goes to its end."""
    pc = m[x + ctx.PC] - prog.COLUMNS
    if m[x + ctx.PROG] >= 0:
        m[x + ctx.PC] = m[pc + programs.PC_END]
    while m[x + ctx.HELD] >= 0:
        release(m, x, m[x + ctx.HELD])
    m[x + ctx.CRIT] = 0
    if m[x + ctx.DEPTH] > 0:
        m[x + ctx.MASK] = m[x + ctx.SAVED]
        m[x + ctx.DEPTH] = 0


@outlined
def _end(m: Memory, x: Ctx, source: int, pc: int) -> int:
    """End of a program: a handler has done its interrupt, a task begins again."""
    c = m[x + ctx.CPU]
    if m[x + ctx.BIG]:
        release(m, x, m[glob.LOCK0])
        if m[c + cpu.TOP] != x:
            m[x + ctx.PC] = pc
            return -1 - WAIT
    m[x + ctx.PC] = m[x + ctx.PROG]
    if m[x + ctx.KIND] == MAIN and m[source + src.LAW] == programs.NONE:
        m[x + ctx.SERIAL] += 1
        return -1 - GO_ON
    handled(m, x)
    return -1 - WAIT


@outlined
def _begin_alloc(m: Memory, objects: Table, x: Ctx, kind: int, nbytes: Bytes, flags: int, queue: int) -> int:
    """An allocation of a program."""
    row = m[glob.ROW_FREE]
    if row < 0:
        m[glob.EXIT] = E_GROW
        m[x + ctx.PC] -= prog.COLUMNS
        due(m, m[x + ctx.CPU], m[glob.NOW], FIRST)
        return -1 - WAIT
    m[glob.ROW_FREE] = objects[row, obj.SIZE]
    objects[row, obj.ADDR] = obj.PENDING
    objects[row, obj.SIZE] = nbytes
    objects[row, obj.KIND] = kind
    m[x + ctx.OP] = -1
    m[x + ctx.ROW] = row
    m[x + ctx.QUEUE] = _queue(m, x, queue)
    m[x + ctx.BEGAN] = m[glob.NOW]
    m[x + ctx.LEVEL] = flags
    m[x + ctx.FREEING] = ALLOC
    m[x + ctx.STAGE] = stage.BEGIN
    return -1 - GO_ON


@outlined
def _free_oldest(m: Memory, objects: Table, x: Ctx, queue: int, flags: int) -> int:
    """A free of a program: the oldest object of a queue, if there is one."""
    q = _queue(m, x, queue)
    if m[q + programs.Q_LENGTH] == 0:
        return -1 - GO_ON
    oldest = m[q + programs.Q_ROWS + m[q + programs.Q_FIRST]]
    m[q + programs.Q_FIRST] = (m[q + programs.Q_FIRST] + 1) % m[glob.QUEUE]
    m[q + programs.Q_LENGTH] -= 1
    m[x + ctx.OP] = -1
    m[x + ctx.ROW] = oldest
    m[x + ctx.QUEUE] = -1
    m[x + ctx.BEGAN] = m[glob.NOW]
    m[x + ctx.LEVEL] = flags
    begin_free(m, objects, x, oldest)
    return -1 - GO_ON


@kernel
def keep(m: Memory, x: Ctx, row: int) -> bool:
    """Put an object that a program has allocated into its queue. False: the queue is full."""
    q = m[x + ctx.QUEUE]
    if m[q + programs.Q_LENGTH] == m[glob.QUEUE]:
        return False
    m[q + programs.Q_ROWS + (m[q + programs.Q_FIRST] + m[q + programs.Q_LENGTH]) % m[glob.QUEUE]] = row
    m[q + programs.Q_LENGTH] += 1
    return True


@kernel
def _queue(m: Memory, x: Ctx, queue: int) -> int:
    """Place of one of a program's queues, that of this CPU."""
    return queue + m[m[x + ctx.CPU] + cpu.NUMBER] * (programs.Q_ROWS + m[glob.QUEUE])


@outlined
def _take_user_pages(m: Memory, x: Ctx, n: int, pc: int) -> int:
    """User processes fault pages in; they sleep where there is none."""
    got = take_pages(m, n, NORMAL)
    m[glob.USER] += got
    runs = m[m[x + ctx.CPU] + cpu.TOP] == x  # the page daemon may have preempted it
    if got == n:
        return -1 - (GO_ON if runs else WAIT)
    m[x + ctx.PC] = pc  # asks again
    if runs:
        wait_for_memory(m, x, stage.NEXT)
    return -1 - WAIT
