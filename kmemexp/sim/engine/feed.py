"""Where a context's next operation comes from: the stream, its own program, or a message of another CPU.

A stream names objects by slots, which it uses again. CPUs that are late carry out its operations in another order than
it has them, so an operation is bound to an object before any later one begins: in the order of the stream, each
allocation gets a row of the table of objects, each free the row that its slot has then. A free that comes while the
object is still being allocated is left to the context that allocates it.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.engine.contexts import (
    C_END,
    C_FREE_AT,
    C_MARK,
    C_NUMBER,
    C_OP,
    C_READY,
    C_TIME,
    C_TOP,
    FIRST,
    IDLE,
    RUNNING,
    S_BEGIN,
    S_NEXT,
    T_IDLE,
    T_MAIN,
    X_BEGAN,
    X_BIG,
    X_BURST,
    X_CPU,
    X_FREEING,
    X_LEVEL,
    X_NUMBER,
    X_OP,
    X_PC,
    X_ROW,
    X_SERVER,
    X_STAGE,
    X_STATE,
    X_UNDER,
    finish,
)
from kmemexp.sim.engine.heap import KEY, NEVER, TIE, alarm, due
from kmemexp.sim.engine.interrupts import handled
from kmemexp.sim.engine.locks import release
from kmemexp.sim.engine.machine import (
    E_DONE,
    E_GROW,
    G_BOUND,
    G_CLOSED,
    G_EXIT,
    G_KINDS,
    G_LEFT,
    G_LOCK0,
    G_NOW,
    G_ROW_FREE,
    KIND_ATTR,
    KIND_COUNT,
    KIND_ITEM,
    KIND_MAP,
    KIND_SERVER,
    N_ENDED_AT,
    N_HANDED,
)
from kmemexp.sim.ops import FREE, WORK
from kmemexp.sim.probes import ABSENT, O_ADDR, O_KIND, O_SIZE, PENDING, SERVER_MAP, WANTED
from kmemexp.sim.slots import R_ADDR, R_ATTR, R_CPU, R_FLAGS, R_ITEM, R_LOCK, R_MAP, R_OBJECT, R_PANIC, R_PHASE, R_SIZE


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
    m[x + X_FREEING] = FREE
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
