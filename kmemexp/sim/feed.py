"""Where a context's next operation comes from: the stream, its own program, or a message of another CPU.

A stream names objects by slots, which it uses again. CPUs that are late carry out its operations in another order than
it has them, so an operation is bound to an object before any later one begins: in the order of the stream, each
allocation gets a row of the table of objects, each free the row that its slot has then. A free that comes while the
object is still being allocated is left to the context that allocates it.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.contexts import (
    C_COUNT,
    C_END,
    C_FREE_AT,
    C_MARK,
    C_MSG_HEAD,
    C_MSG_TAIL,
    C_NUMBER,
    C_OP,
    C_READY,
    C_TIME,
    C_TOP,
    FIRST,
    IDLE,
    MAIN,
    RUNNING,
    S_BEGIN,
    S_NEXT,
    T_IDLE,
    T_MAIN,
    X_BEGAN,
    X_BIG,
    X_BURST,
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
    X_STATE,
    X_UNDER,
    finish,
)
from kmemexp.sim.heap import KEY, NEVER, TIE, alarm, due
from kmemexp.sim.interrupts import (
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
from kmemexp.sim.locks import GRANTED, REFUSED, acquire, release
from kmemexp.sim.machine import (
    E_DONE,
    E_GROW,
    G_BOUND,
    G_CLOSED,
    G_CONTEXTS,
    G_CPU0,
    G_CTX0,
    G_EXIT,
    G_IPI0,
    G_KINDS,
    G_LEFT,
    G_LOCK0,
    G_MSG_FREE,
    G_NOW,
    G_QDEPTH,
    G_ROW_FREE,
    G_SEED,
    G_SHORT,
    G_USER,
    KIND_ATTR,
    KIND_COUNT,
    KIND_ITEM,
    KIND_MAP,
    KIND_SERVER,
    L_COUNT,
    M_ADDR,
    M_AT,
    M_FLAGS,
    M_ITEM,
    M_NEXT,
    M_PHASE,
    M_SERVER,
    M_SIZE,
    N_ENDED_AT,
    N_HANDED,
    N_SENT,
)
from kmemexp.sim.memory import NORMAL, daemon_rests, give_pages, reclaim, take_pages, wait_for_memory
from kmemexp.sim.probes import ABSENT, O_ADDR, O_KIND, O_SIZE, PENDING, SERVER_MAP, WANTED
from kmemexp.sim.programs import (
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
)
from kmemexp.sim.slots import (
    F_HARD,
    R_ADDR,
    R_ATTR,
    R_CPU,
    R_FLAGS,
    R_ITEM,
    R_LOCK,
    R_MAP,
    R_OBJECT,
    R_PANIC,
    R_PHASE,
    R_SIZE,
    R_TARGET,
)

WORK = 2  # stream.OP_WORK: a recorded interrupt uses the CPU
TENDING = 2  # X_FREEING: upkeep of an allocator

# What fetching gives.
GO_ON = 0  # the stage has been set
WAIT = 1  # the context has left its CPU, or waits for its time


@kernel
def bind(m, s, objects, upto):
    """Bind the operations before number `upto`. False: the table of objects is full."""
    i = m[G_BOUND]
    while i < upto:
        slot = s.slot[i]
        if s.op[i]:
            s.row_of[i] = s.row_in[slot]
        else:
            row = m[G_ROW_FREE]
            if row < 0:
                m[G_BOUND] = i
                return False
            m[G_ROW_FREE] = objects[row, O_SIZE]
            objects[row, O_ADDR] = PENDING
            objects[row, O_SIZE] = s.size[i]
            objects[row, O_KIND] = s.kind[i]
            s.row_in[slot] = row
            s.row_of[i] = row
        i += 1
    m[G_BOUND] = i
    return True


@kernel
def free_row(m, objects, row):
    """Give a row of the table of objects back."""
    objects[row, O_SIZE] = m[G_ROW_FREE]
    m[G_ROW_FREE] = row


@kernel
def next_operation(m, s, objects, x):
    """Take the next operation of the mainline's stream. False: it is not due yet, or others want the CPU."""
    c = m[x + X_CPU]
    now = m[G_NOW]
    if m[x + X_UNDER] >= 0 or m[c + C_READY] >= 0:
        finish(m, x)
        return False
    at, i = NEVER, 0
    if m[c + C_OP] < m[c + C_END]:
        i = int(s.order[m[c + C_OP]])
        at = m[c + C_FREE_AT] + s.time[i] if m[G_CLOSED] else s.time[i]
    # An operation due at this very instant takes its turn among those of the other CPUs.
    if at > now or (at == now and (m[c + KEY] != now or m[c + TIE] != i)):
        if m[x + X_STATE] != IDLE:
            m[c + C_TIME + T_MAIN] += now - m[c + C_MARK]
            m[c + C_MARK] = now
            m[x + X_STATE] = IDLE
        due(m, c, at, i)
        return False
    if not bind(m, s, objects, i + 1):
        m[G_EXIT] = E_GROW
        due(m, c, now, FIRST if at < now else i)
        return False
    m[c + C_OP] += 1
    if m[x + X_STATE] == IDLE:
        m[c + C_TIME + T_IDLE] += now - m[c + C_MARK]
        m[c + C_MARK] = now
        m[x + X_STATE] = RUNNING
    begin(m, s, objects, x, i)
    return True


@outlined
def next_recorded(m, s, objects, x):
    """Take the next operation that the stream has in an interrupt of this context's CPU. False: the handler ends."""
    c = m[x + X_CPU]
    if m[x + X_PC] < m[x + X_BURST]:
        i = int(s.order[m[x + X_PC]])
        # An operation due at this very instant takes its turn among those of the other CPUs.
        if s.time[i] < m[G_NOW] or m[x + TIE] == i:
            if s.op[i] == WORK:
                m[x + X_PC] += 1
                m[x + X_STAGE] = S_NEXT
                due(m, c, m[G_NOW] + s.size[i], FIRST)
                over(m)
                return False
            if not bind(m, s, objects, i + 1):
                m[G_EXIT] = E_GROW
                due(m, c, m[G_NOW], FIRST)
                return False
            m[x + X_PC] += 1
            begin(m, s, objects, x, i)
            return True
        alarm(m, x, s.time[i], i)
    if m[x + X_BIG]:
        release(m, x, m[G_LOCK0])
        if m[c + C_TOP] != x:
            return False
    handled(m, x)
    return False


@kernel
def begin(m, s, objects, x, i):
    """Make operation `i` of the stream that of context `x`."""
    row = int(s.row_of[i])
    m[x + X_OP] = i
    m[x + X_ROW] = row
    m[x + X_BEGAN] = m[G_NOW]
    m[x + X_LEVEL] = s.flags[i]
    m[x + X_FREEING] = s.op[i]
    m[x + X_STAGE] = S_BEGIN
    if s.op[i] and objects[row, O_ADDR] < 0:
        begin_free(m, objects, x, row)
        if m[x + X_STAGE] == S_NEXT:
            over(m)


@kernel
def over(m):
    """An operation of the stream is over; the last one ends the run."""
    m[G_LEFT] -= 1
    m[N_ENDED_AT] = m[G_NOW]
    if m[G_LEFT] == 0:
        m[G_EXIT] = E_DONE


@kernel
def begin_free(m, objects, x, row):
    """Let context `x` free the object of a row, unless there is none or its allocation is still going on."""
    addr = objects[row, O_ADDR]
    m[x + X_FREEING] = 1
    m[x + X_STAGE] = S_BEGIN
    if addr == PENDING:
        objects[row, O_ADDR] = WANTED
        m[N_HANDED] += 1
        m[x + X_STAGE] = S_NEXT
    elif addr == ABSENT:
        free_row(m, objects, row)
        m[x + X_STAGE] = S_NEXT


@kernel
def fill(m, objects, reg, x):
    """Write the registers of the operation of context `x`."""
    row = m[x + X_ROW]
    k = m[G_KINDS] + objects[row, O_KIND] * KIND_COUNT
    i = m[x + X_NUMBER]
    m[x + X_SERVER] = m[k + KIND_SERVER]
    reg[i, R_CPU] = m[m[x + X_CPU] + C_NUMBER]
    reg[i, R_ITEM] = m[k + KIND_ITEM]
    reg[i, R_SIZE] = objects[row, O_SIZE]
    reg[i, R_ADDR] = objects[row, O_ADDR]
    reg[i, R_FLAGS] = m[x + X_LEVEL]
    reg[i, R_PHASE] = 0
    reg[i, R_PANIC] = 0
    reg[i, R_LOCK] = -1
    reg[i, R_OBJECT] = row
    if m[k + KIND_SERVER] == SERVER_MAP:
        reg[i, R_MAP] = m[k + KIND_MAP]
        reg[i, R_ATTR] = m[k + KIND_ATTR]


@kernel
def send(m, reg, x, delay):
    """Let another CPU go on with the operation of context `x`. False: there is no room for another message."""
    row = m[G_MSG_FREE]
    if row < 0:
        m[G_EXIT] = E_GROW
        due(m, m[x + X_CPU], m[G_NOW], FIRST)
        return False
    m[G_MSG_FREE] = m[row + M_NEXT]
    m[N_SENT] += 1
    i = m[x + X_NUMBER]
    target = reg[i, R_TARGET]
    c = m[G_CPU0] + target * C_COUNT
    m[row + M_NEXT] = -1
    m[row + M_AT] = m[G_NOW] + delay
    m[row + M_SERVER] = m[x + X_SERVER]
    m[row + M_ITEM] = reg[i, R_ITEM]
    m[row + M_ADDR] = reg[i, R_ADDR]
    m[row + M_SIZE] = reg[i, R_SIZE]
    m[row + M_FLAGS] = reg[i, R_FLAGS]
    m[row + M_PHASE] = reg[i, R_PHASE]
    if m[c + C_MSG_HEAD] < 0:
        m[c + C_MSG_HEAD] = row
        alarm(m, m[G_IPI0] + target * X_COUNT, m[row + M_AT], FIRST)
    else:
        m[m[c + C_MSG_TAIL] + M_NEXT] = row
    m[c + C_MSG_TAIL] = row
    return True


@outlined
def next_message(m, reg, x):
    """Take the next message that has arrived, or end the handler."""
    c = m[x + X_CPU]
    row = m[c + C_MSG_HEAD]
    if row < 0 or m[row + M_AT] > m[G_NOW]:
        if row >= 0:
            alarm(m, x, m[row + M_AT], FIRST)
        handled(m, x)
        return False
    m[c + C_MSG_HEAD] = m[row + M_NEXT]
    m[x + X_OP] = -1
    m[x + X_ROW] = -1
    m[x + X_QUEUE] = -1
    m[x + X_BEGAN] = m[row + M_AT]
    m[x + X_FREEING] = 1
    m[x + X_SERVER] = m[row + M_SERVER]
    i = m[x + X_NUMBER]
    reg[i, R_CPU] = m[c + C_NUMBER]
    reg[i, R_ITEM] = m[row + M_ITEM]
    reg[i, R_ADDR] = m[row + M_ADDR]
    reg[i, R_SIZE] = m[row + M_SIZE]
    reg[i, R_FLAGS] = m[row + M_FLAGS] | F_HARD
    reg[i, R_PHASE] = m[row + M_PHASE]
    reg[i, R_PANIC] = 0
    reg[i, R_LOCK] = -1
    m[row + M_NEXT] = m[G_MSG_FREE]
    m[G_MSG_FREE] = row
    return True


@outlined
def next_item(m, objects, reg, x):
    """Carry out the next item of a program. Returns ns of CPU to use, or -1 - GO_ON, -1 - WAIT."""
    s, c = m[x + X_SOURCE], m[x + X_CPU]
    pc = m[x + X_PC]
    code, a, b, d = m[pc], m[pc + 1], m[pc + 2], m[pc + 3]
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
        return _begin_alloc(m, objects, x, a, b, d, m[pc + 4])
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
            m[x + X_PC] = m[pc + 5]
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
        if m[x + X_ROW] == row and m[x + X_FREEING] == 1 and m[x + X_STAGE] > S_NEXT:
            return True
    return False


@outlined
def give_up(m, x):
    """A program whose request for a lock was refused gives back what it has and goes to its end."""
    pc = m[x + X_PC] - I_COLUMNS
    if m[x + X_PROG] >= 0:
        m[x + X_PC] = m[pc + 5]
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
    m[x + X_FREEING] = 0
    m[x + X_STAGE] = S_BEGIN
    return -1 - GO_ON


@outlined
def _free_oldest(m, objects, x, queue, flags):
    """A free of a program: the oldest object of a queue, if there is one."""
    q = _queue(m, x, queue)
    if m[q + 1] == 0:
        return -1 - GO_ON
    oldest = m[q + 2 + m[q]]
    m[q] = (m[q] + 1) % m[G_QDEPTH]
    m[q + 1] -= 1
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
    if m[q + 1] == m[G_QDEPTH]:
        return False
    m[q + 2 + (m[q] + m[q + 1]) % m[G_QDEPTH]] = row
    m[q + 1] += 1
    return True


@kernel
def _queue(m, x, queue):
    """One of a program's queues, that of this CPU: place of the first object, number of objects, then their rows."""
    return queue + m[m[x + X_CPU] + C_NUMBER] * (2 + m[G_QDEPTH])


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
