"""Programs of handlers and tasks, an item at a time: what conf/interrupts/sources/ says that they do."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.engine.contexts import (
    C_NUMBER,
    C_TOP,
    FIRST,
    S_BEGIN,
    S_NEXT,
    X_BEGAN,
    X_BIG,
    X_COUNT,
    X_CPU,
    X_CRIT,
    X_DEPTH,
    X_FREEING,
    X_HELD,
    X_KIND,
    X_LEVEL,
    X_MASK,
    X_NUMBER,
    X_OP,
    X_PC,
    X_PROG,
    X_QUEUE,
    X_ROW,
    X_SAVED,
    X_SERIAL,
    X_SERVER,
    X_SOURCE,
    X_STAGE,
)
from kmemexp.sim.engine.feed import begin_free
from kmemexp.sim.engine.heap import alarm, due
from kmemexp.sim.engine.interrupts import (
    DRAW,
    S_CONTEXTS,
    S_FIRST,
    S_LAW,
    S_NUMBER,
    arrive,
    await_handler,
    draw,
    handled,
    nap,
)
from kmemexp.sim.engine.locks import GRANTED, REFUSED, acquire, release
from kmemexp.sim.engine.machine import (
    E_GROW,
    G_CONTEXTS,
    G_CTX0,
    G_EXIT,
    G_LOCK0,
    G_NOW,
    G_QUEUE,
    G_ROW_FREE,
    G_SEED,
    G_SHORT,
    G_USER,
    L_COUNT,
    MAIN,
)
from kmemexp.sim.engine.memory import NORMAL, daemon_rests, give_pages, reclaim, take_pages, wait_for_memory
from kmemexp.sim.engine.programs import (
    I_ALLOC,
    I_AWAIT,
    I_COLUMNS,
    I_FREE,
    I_GIVE,
    I_IO,
    I_LOCK,
    I_RAISE,
    I_RECLAIM,
    I_REST,
    I_SLEEP,
    I_TAKE,
    I_TEND,
    I_UNLOCK,
    I_WATCH,
    I_WORK,
    NONE,
    PC_1,
    PC_2,
    PC_3,
    PC_4,
    PC_CODE,
    PC_END,
    Q_FIRST,
    Q_LENGTH,
    Q_ROWS,
)
from kmemexp.sim.ops import ALLOC, FREE
from kmemexp.sim.probes import O_ADDR, O_KIND, O_SIZE, PENDING
from kmemexp.sim.slots import R_CPU, R_FLAGS, R_ITEM, R_LOCK, R_PANIC, R_PHASE, R_SIZE

TENDING = 2  # X_FREEING, beside ALLOC and FREE: upkeep of an allocator

# What fetching gives.
GO_ON = 0  # the stage has been set
WAIT = 1  # the context has left its CPU, or waits for its time


@outlined
def next_item(m, objects, reg, x):
    """Carry out the next item of a program. Returns ns of CPU to use, or -1 - GO_ON, -1 - WAIT."""
    s, c = m[x + X_SOURCE], m[x + X_CPU]
    pc = m[x + X_PC]
    code, a, b, d = m[pc + PC_CODE], m[pc + PC_1], m[pc + PC_2], m[pc + PC_3]
    m[x + X_PC] = pc + I_COLUMNS
    number = m[c + C_NUMBER]
    if code == I_WORK or code == I_SLEEP:
        ns = draw(a, b, d, m[G_SEED], m[s + S_NUMBER], number, m[x + X_SERIAL], DRAW + pc - m[x + X_PROG])
        if code == I_WORK:
            return ns
        if ns > 0:
            nap(m, x, ns)
            return -1 - WAIT
    elif code == I_LOCK:
        answer = acquire(m, x, a + (number * L_COUNT if b else 0), S_NEXT)
        if answer == REFUSED:
            give_up(m, x)
        if answer != GRANTED:
            return -1 - WAIT
    elif code == I_UNLOCK:
        release(m, x, a + (number * L_COUNT if b else 0))
    elif code == I_ALLOC:
        return _begin_alloc(m, objects, x, a, b, d, m[pc + PC_4])
    elif code == I_FREE:
        return _free_oldest(m, objects, x, a, b)
    elif code == I_RAISE:
        arrive(m, m[a + S_FIRST] + (number * X_COUNT if m[a + S_CONTEXTS] > 1 else 0), m[G_NOW])
    elif code == I_AWAIT:
        await_handler(m, x, a)
        return -1 - WAIT
    elif code == I_IO:
        alarm(m, m[a + S_FIRST], m[G_NOW] + b, m[a + S_FIRST])
        await_handler(m, x, a)
        return -1 - WAIT
    elif code == I_TAKE:
        return _take_user_pages(m, x, a, pc)
    elif code == I_GIVE:
        n = min(a, m[G_USER])
        m[G_USER] -= n
        give_pages(m, n)
    elif code == I_REST:
        if daemon_rests(m, x):
            m[x + X_PC] = pc
            return -1 - WAIT
    elif code == I_RECLAIM:
        reclaim(m)
    elif code == I_TEND:
        _begin_upkeep(m, reg, x, a, b)
    elif code == I_WATCH:
        if m[G_SHORT] == 0:
            m[x + X_PC] = m[pc + PC_END]
        m[G_SHORT] = 0
    else:
        return _end(m, x, s, pc)
    return -1 - (GO_ON if m[c + C_TOP] == x else WAIT)


@outlined
def _begin_upkeep(m, reg, x, server, why):
    """Upkeep of an allocator: an operation without an object."""
    m[x + X_OP] = -1
    m[x + X_ROW] = -1
    m[x + X_QUEUE] = -1
    m[x + X_BEGAN] = m[G_NOW]
    m[x + X_LEVEL] = 0
    m[x + X_FREEING] = TENDING
    m[x + X_SERVER] = server
    m[x + X_STAGE] = S_BEGIN
    i = m[x + X_NUMBER]
    reg[i, R_CPU] = m[m[x + X_CPU] + C_NUMBER]
    reg[i, R_SIZE] = why
    reg[i, R_ITEM] = 0
    reg[i, R_FLAGS] = 0
    reg[i, R_PHASE] = 0
    reg[i, R_PANIC] = 0
    reg[i, R_LOCK] = -1


@outlined
def being_freed(m, row):
    """Whether some context is just freeing the object of a row."""
    for number in range(m[G_CONTEXTS]):
        x = m[G_CTX0] + number * X_COUNT
        if m[x + X_ROW] == row and m[x + X_FREEING] == FREE and m[x + X_STAGE] > S_NEXT:
            return True
    return False


@outlined
def give_up(m, x):
    """A program whose request for a lock was refused gives back what it has and goes to its end."""
    pc = m[x + X_PC] - I_COLUMNS
    if m[x + X_PROG] >= 0:
        m[x + X_PC] = m[pc + PC_END]
    while m[x + X_HELD] >= 0:
        release(m, x, m[x + X_HELD])
    m[x + X_CRIT] = 0
    if m[x + X_DEPTH] > 0:
        m[x + X_MASK] = m[x + X_SAVED]
        m[x + X_DEPTH] = 0


@outlined
def _end(m, x, s, pc):
    """End of a program: a handler has done its interrupt, a task begins again."""
    c = m[x + X_CPU]
    if m[x + X_BIG]:
        release(m, x, m[G_LOCK0])
        if m[c + C_TOP] != x:
            m[x + X_PC] = pc
            return -1 - WAIT
    m[x + X_PC] = m[x + X_PROG]
    if m[x + X_KIND] == MAIN and m[s + S_LAW] == NONE:
        m[x + X_SERIAL] += 1
        return -1 - GO_ON
    handled(m, x)
    return -1 - WAIT


@outlined
def _begin_alloc(m, objects, x, kind, nbytes, flags, queue):
    """An allocation of a program."""
    row = m[G_ROW_FREE]
    if row < 0:
        m[G_EXIT] = E_GROW
        m[x + X_PC] -= I_COLUMNS
        due(m, m[x + X_CPU], m[G_NOW], FIRST)
        return -1 - WAIT
    m[G_ROW_FREE] = objects[row, O_SIZE]
    objects[row, O_ADDR] = PENDING
    objects[row, O_SIZE] = nbytes
    objects[row, O_KIND] = kind
    m[x + X_OP] = -1
    m[x + X_ROW] = row
    m[x + X_QUEUE] = _queue(m, x, queue)
    m[x + X_BEGAN] = m[G_NOW]
    m[x + X_LEVEL] = flags
    m[x + X_FREEING] = ALLOC
    m[x + X_STAGE] = S_BEGIN
    return -1 - GO_ON


@outlined
def _free_oldest(m, objects, x, queue, flags):
    """A free of a program: the oldest object of a queue, if there is one."""
    q = _queue(m, x, queue)
    if m[q + Q_LENGTH] == 0:
        return -1 - GO_ON
    oldest = m[q + Q_ROWS + m[q + Q_FIRST]]
    m[q + Q_FIRST] = (m[q + Q_FIRST] + 1) % m[G_QUEUE]
    m[q + Q_LENGTH] -= 1
    m[x + X_OP] = -1
    m[x + X_ROW] = oldest
    m[x + X_QUEUE] = -1
    m[x + X_BEGAN] = m[G_NOW]
    m[x + X_LEVEL] = flags
    begin_free(m, objects, x, oldest)
    return -1 - GO_ON


@kernel
def keep(m, x, row):
    """Put an object that a program has allocated into its queue. False: the queue is full."""
    q = m[x + X_QUEUE]
    if m[q + Q_LENGTH] == m[G_QUEUE]:
        return False
    m[q + Q_ROWS + (m[q + Q_FIRST] + m[q + Q_LENGTH]) % m[G_QUEUE]] = row
    m[q + Q_LENGTH] += 1
    return True


@kernel
def _queue(m, x, queue):
    """Place of one of a program's queues, that of this CPU."""
    return queue + m[m[x + X_CPU] + C_NUMBER] * (Q_ROWS + m[G_QUEUE])


@outlined
def _take_user_pages(m, x, n, pc):
    """User processes fault pages in; they sleep where there is none."""
    got = take_pages(m, n, NORMAL)
    m[G_USER] += got
    if got == n:
        return -1 - GO_ON
    m[x + X_PC] = pc  # asks again
    wait_for_memory(m, x, S_NEXT)
    return -1 - WAIT
