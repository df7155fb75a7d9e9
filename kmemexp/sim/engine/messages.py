"""Messages between CPUs: an operation goes on elsewhere, and the handler that takes it up there."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.engine.contexts import (
    C_COUNT,
    C_MSG_HEAD,
    C_MSG_TAIL,
    C_NUMBER,
    FIRST,
    X_BEGAN,
    X_COUNT,
    X_CPU,
    X_FREEING,
    X_NUMBER,
    X_OP,
    X_QUEUE,
    X_ROW,
    X_SERVER,
)
from kmemexp.sim.engine.heap import alarm, due
from kmemexp.sim.engine.interrupts import handled
from kmemexp.sim.engine.machine import (
    E_GROW,
    G_CPU0,
    G_EXIT,
    G_IPI0,
    G_MSG_FREE,
    G_NOW,
    M_ADDR,
    M_AT,
    M_FLAGS,
    M_ITEM,
    M_NEXT,
    M_PHASE,
    M_SERVER,
    M_SIZE,
    N_SENT,
)
from kmemexp.sim.slots import F_HARD, R_ADDR, R_CPU, R_FLAGS, R_ITEM, R_LOCK, R_PANIC, R_PHASE, R_SIZE, R_TARGET


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
