"""Where a context's next operation comes from: the stream, its own program, or a message of another CPU.

A stream names objects by slots, which it uses again. CPUs that are late carry out its operations in another order than
it has them, so an operation is bound to an object before any later one begins: in the order of the stream, each
allocation gets a row of the table of objects, each free the row that its slot has then. A free that comes while the
object is still being allocated is left to the context that allocates it.
"""

from kmemexp.jit import kernel, outlined, prefetch
from kmemexp.sim.aliases import Ctx, Memory, Registers, Table
from kmemexp.sim.engine import machine
from kmemexp.sim.engine.contexts import FIRST, IDLE, RUNNING, finish
from kmemexp.sim.engine.heap import KEY, NEVER, TIE, alarm, due, passed
from kmemexp.sim.engine.interrupts import handled
from kmemexp.sim.engine.lines import LINE_SHIFT, place_of
from kmemexp.sim.engine.locks import release
from kmemexp.sim.engine.machine import Stream
from kmemexp.sim.engine.tables import cpu, ctx, glob, seen, stage
from kmemexp.sim.ops import FREE, WORK
from kmemexp.sim.probes import SERVER_MAP
from kmemexp.sim.tables import obj, regs

AHEAD = 16  # operations that are looked ahead, so that what they need is in the caches by then


@kernel
def look_ahead(m: Memory, s: Stream, objects: Table, i: int) -> None:
    """Fetch what operation `i` will soon need: its slot's row, half-way there the row, and then its object's line."""
    if i + AHEAD >= len(s.slot):
        return
    prefetch(s.row_in, s.slot[i + AHEAD])
    prefetch(objects, s.row_in[s.slot[i + AHEAD // 2]])
    row = s.row_in[s.slot[i + AHEAD // 4]]
    if m[glob.LINES] and s.op[i + AHEAD // 4] and row >= 0:
        prefetch(m, place_of(m, objects[row, obj.ADDR] >> LINE_SHIFT))


@kernel
def prefetch_queue(m: Memory, s: Stream, objects: Table, k: int) -> None:
    """Fetch what a CPU will need after place `k` of its queue. One that is late comes to operations bound long ago."""
    if k + AHEAD >= len(s.order):
        return
    prefetch(s.order, k + AHEAD)
    prefetch(s.time, k + AHEAD)
    after = int(s.order[k + 2])
    if after < m[glob.BOUND]:
        prefetch(s.row_of, after)
        prefetch(s.flags, after)
        prefetch(s.op, after)
        prefetch(objects, s.row_of[s.order[k + 1]])


@kernel
def bind(m: Memory, s: Stream, objects: Table, upto: int) -> bool:
    """Bind the operations before number `upto`. False: the table of objects is full."""
    i = m[glob.BOUND]
    while i < upto:
        slot = s.slot[i]
        look_ahead(m, s, objects, i)
        if s.op[i]:
            s.row_of[i] = s.row_in[slot]
        else:
            row = m[glob.ROW_FREE]
            if row < 0:
                m[glob.BOUND] = i
                return False
            m[glob.ROW_FREE] = objects[row, obj.SIZE]
            prefetch(objects, m[glob.ROW_FREE])
            objects[row, obj.ADDR] = obj.PENDING
            objects[row, obj.SIZE] = s.size[i]
            objects[row, obj.KIND] = s.kind[i]
            s.row_in[slot] = row
            s.row_of[i] = row
        i += 1
    m[glob.BOUND] = i
    return True


@kernel
def free_row(m: Memory, objects: Table, row: int) -> None:
    """Give a row of the table of objects back."""
    objects[row, obj.SIZE] = m[glob.ROW_FREE]
    m[glob.ROW_FREE] = row


@kernel
def next_operation(m: Memory, s: Stream, objects: Table, x: Ctx) -> bool:
    """Take the next operation of the mainline's stream. False: it is not due yet, or others want the CPU."""
    c = m[x + ctx.CPU]
    now = m[glob.NOW]
    if m[x + ctx.UNDER] >= 0 or m[c + cpu.READY] >= 0:
        finish(m, x)
        return False
    at, i = NEVER, 0
    if m[c + cpu.OP] < m[c + cpu.END]:
        prefetch_queue(m, s, objects, m[c + cpu.OP])
        i = int(s.order[m[c + cpu.OP]])
        at = s.time[m[c + cpu.OP]] + (m[c + cpu.FREE_AT] if m[glob.CLOSED] else 0)
    # An operation due at this very instant takes its turn among those of the other CPUs.
    if at > now or (at == now and (m[c + KEY] != now or m[c + TIE] != i)):
        if m[x + ctx.STATE] != IDLE:
            m[c + cpu.TIME + cpu.TIME_MAIN] += now - m[c + cpu.MARK]
            m[c + cpu.MARK] = now
            m[x + ctx.STATE] = IDLE
        if not passed(m, c, at, i):
            return False
        now = at
    if not bind(m, s, objects, i + 1):
        m[glob.EXIT] = machine.E_GROW
        due(m, c, now, FIRST if at < now else i)
        return False
    m[c + cpu.OP] += 1
    if m[x + ctx.STATE] == IDLE:
        m[c + cpu.TIME + cpu.TIME_IDLE] += now - m[c + cpu.MARK]
        m[c + cpu.MARK] = now
        m[x + ctx.STATE] = RUNNING
    begin(m, s, objects, x, i)
    return True


@outlined
def next_recorded(m: Memory, s: Stream, objects: Table, x: Ctx) -> bool:
    """Take the next operation that the stream has in an interrupt of this context's CPU. False: the handler ends."""
    c = m[x + ctx.CPU]
    if m[x + ctx.PC] < m[x + ctx.BURST]:
        i = int(s.order[m[x + ctx.PC]])
        # An operation due at this very instant takes its turn among those of the other CPUs.
        at = s.time[m[x + ctx.PC]]
        if at < m[glob.NOW] or m[x + TIE] == i:
            if s.op[i] == WORK:
                m[x + ctx.PC] += 1
                m[x + ctx.STAGE] = stage.NEXT
                due(m, c, m[glob.NOW] + s.size[i], FIRST)
                over(m)
                return False
            if not bind(m, s, objects, i + 1):
                m[glob.EXIT] = machine.E_GROW
                due(m, c, m[glob.NOW], FIRST)
                return False
            m[x + ctx.PC] += 1
            begin(m, s, objects, x, i)
            return True
        alarm(m, x, at, i)
    if m[x + ctx.BIG]:
        release(m, x, m[glob.LOCK0])
        if m[c + cpu.TOP] != x:
            return False
    handled(m, x)
    return False


@kernel
def begin(m: Memory, s: Stream, objects: Table, x: Ctx, i: int) -> None:
    """Make operation `i` of the stream that of context `x`."""
    row = int(s.row_of[i])
    m[x + ctx.OP] = i
    m[x + ctx.ROW] = row
    m[x + ctx.BEGAN] = m[glob.NOW]
    m[x + ctx.LEVEL] = s.flags[i]
    m[x + ctx.FREEING] = s.op[i]
    m[x + ctx.STAGE] = stage.BEGIN
    if s.op[i] and objects[row, obj.ADDR] < 0:
        begin_free(m, objects, x, row)
        if m[x + ctx.STAGE] == stage.NEXT:
            over(m)


@kernel
def over(m: Memory) -> None:
    """An operation of the stream is over; the last one ends the run."""
    m[glob.LEFT] -= 1
    m[seen.ENDED_AT] = m[glob.NOW]
    if m[glob.LEFT] == 0:
        m[glob.EXIT] = machine.E_DONE


@kernel
def begin_free(m: Memory, objects: Table, x: Ctx, row: int) -> None:
    """Let context `x` free the object of a row, unless there is none or its allocation is still going on."""
    addr = objects[row, obj.ADDR]
    m[x + ctx.FREEING] = FREE
    m[x + ctx.STAGE] = stage.BEGIN
    if addr == obj.PENDING:
        objects[row, obj.ADDR] = obj.WANTED
        m[seen.HANDED] += 1
        m[x + ctx.STAGE] = stage.NEXT
    elif addr == obj.ABSENT:
        free_row(m, objects, row)
        m[x + ctx.STAGE] = stage.NEXT


@kernel
def fill(m: Memory, objects: Table, reg: Registers, x: Ctx) -> None:
    """Write the registers of the operation of context `x`."""
    row = m[x + ctx.ROW]
    k = m[glob.KINDS] + objects[row, obj.KIND] * machine.KIND_COUNT
    i = m[x + ctx.NUMBER]
    m[x + ctx.SERVER] = m[k + machine.KIND_SERVER]
    reg[i, regs.CPU] = m[m[x + ctx.CPU] + cpu.NUMBER]
    reg[i, regs.ITEM] = m[k + machine.KIND_ITEM]
    reg[i, regs.SIZE] = objects[row, obj.SIZE]
    reg[i, regs.ADDR] = objects[row, obj.ADDR]
    reg[i, regs.FLAGS] = m[x + ctx.LEVEL]
    m[m[glob.STEPS] + m[x + ctx.NUMBER]] = 0
    reg[i, regs.PHASE] = 0
    reg[i, regs.PANIC] = 0
    reg[i, regs.LOCK] = -1
    reg[i, regs.WAKE] = 0
    reg[i, regs.OBJECT] = row
    if m[k + machine.KIND_SERVER] == SERVER_MAP:
        reg[i, regs.MAP] = m[k + machine.KIND_MAP]
        reg[i, regs.ATTR] = m[k + machine.KIND_ATTR]
