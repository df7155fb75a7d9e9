"""The driver with a clock: CPUs, contexts, locks and interrupts, and what all that costs.

A discrete-event loop over two heaps: when each CPU's context is due, and timers (arrivals of interrupts, messages
between CPUs, ends of sleeps). A context that is due is advanced through the stages of its operation until it uses the
CPU for a while (a burst), waits, or has nothing to do. A step works on the allocator's state at the instant at which
its lock is granted; the lock is held for the step's burst.

`run` is a template: only what calls an allocator or an arena is in it. All the rest is in kernels that every design
shares.
"""

from typing import Any

from kmemexp.jit import kernel, outlined, ref, template
from kmemexp.sim.aliases import Ctx, Memory, Registers, Table, Words
from kmemexp.sim.engine import costs, machine
from kmemexp.sim.engine.biglock import gave_big, pass_big, took_big
from kmemexp.sim.engine.calls import space_done
from kmemexp.sim.engine.contexts import MESSAGES, STREAM, go_on
from kmemexp.sim.engine.feed import begin_free, fill, free_row, next_operation, next_recorded, over
from kmemexp.sim.engine.heap import ITEM, KEY, NEVER, TIE
from kmemexp.sim.engine.interpreter import TENDING, being_freed, keep
from kmemexp.sim.engine.interrupts import fire
from kmemexp.sim.engine.lines import fetch_line
from kmemexp.sim.engine.log import log
from kmemexp.sim.engine.machine import Stream
from kmemexp.sim.engine.sections import burst, entered, left
from kmemexp.sim.engine.stages import lock_of, next_of_program, prepare
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock, route, seen, stage, word
from kmemexp.sim.engine.waiting import enlist, rouse_sleepers
from kmemexp.sim.engine.watchdog import INTERVAL_NS, horizon, watch
from kmemexp.sim.probes import BUCKETS, HIST_ALLOC, HIST_FREE, SERVER_MAP, observe_ns
from kmemexp.sim.replay import World
from kmemexp.sim.serving import forget, map_step, moved, note_panic, remember, step, tend_step
from kmemexp.sim.slots import DONE, FAILED, IPI, MOVE, SLEEP, WIRE, map_flushes, map_moved, map_walked
from kmemexp.sim.tables import flag, obj, panics, regs, tally


@template
def run(world: World, m: Memory, s: Stream, until: int, budget: int) -> int:
    """Simulate until time `until` (ns), or `budget` events. Returns why it stopped, E_*; it can go on from there.

    `world`: replay.World, `m`: the machine's memory, `s`: machine.Stream.
    """
    lane, stream = ref(world), ref(s)
    m[glob.EXIT] = 0
    m[glob.BUDGET] = budget
    m[glob.HORIZON] = horizon(m, until)
    while True:
        cpus, timers = m[glob.CPU_HEAP], m[glob.TIMER_HEAP]
        at = m[cpus + KEY]
        by_timer = m[timers + KEY] < at or (m[timers + KEY] == at and m[timers + TIE] < m[cpus + TIE])
        if by_timer:
            at = m[timers + KEY]
        if at > until:
            m[glob.EXIT] = machine.E_DRY
            if at != NEVER:
                m[glob.NOW] = max(m[glob.NOW], until)
                m[glob.EXIT] = machine.E_TIME
            break
        if m[glob.BUDGET] == 0:
            m[glob.EXIT] = machine.E_CHUNK
            break
        m[glob.BUDGET] -= 1
        m[glob.NOW] = at
        if at - m[glob.WATCHED] >= INTERVAL_NS:
            watch(m)
            m[glob.HORIZON] = horizon(m, until)
        c = m[cpus + ITEM]
        if by_timer:
            fire(m, m[timers + ITEM])
        elif m[c + cpu.CUT]:
            go_on(m, c)
        else:
            advance(
                lane.state_a,
                lane.state_b,
                lane.state_c,
                lane.arena,
                m,
                stream,
                lane.objects,
                lane.counters,
                lane.reg,
                m[c + cpu.TOP],
            )
        if m[glob.EXIT] != 0:
            break
    m[glob.EVENTS] += budget - m[glob.BUDGET]
    m[glob.BUDGET] = m[glob.HORIZON] = 0
    return m[glob.EXIT]


@template
def advance(
    state_a: Any,
    state_b: Any,
    state_c: Any,
    arena: Any,
    m: Memory,
    s: Stream,
    objects: Table,
    counters: Words,
    reg: Registers,
    x: Ctx,
) -> None:
    """Take context `x` through the stages of what it does, until it uses the CPU or waits.

    What most operations go through is here, compiled into the loop: an operation of the stream, a lock that is only a
    section, one step. The rest is in `prepare`.
    """
    while True:
        then = m[x + ctx.STAGE]
        if then == stage.NEXT and m[x + ctx.PROG] < 0 and m[x + ctx.PROG] != MESSAGES:
            if not fetch(m, s, objects, counters, reg, x):
                return
            then = m[x + ctx.STAGE]
        if then == stage.BEGIN and (not m[glob.BIG_LOCK] or m[x + ctx.KIND] == machine.FAST or took_big(m, x)):
            then = stage.LOCK
        if then == stage.LOCK:
            l = lock_of(m, reg, x)
            m[x + ctx.LOCK] = l
            if m[l + lock.KIND] == lock.SECTION:
                then = stage.STEP
        if then == stage.STEP:
            if not work(state_a, state_b, state_c, m, objects, counters, reg, x):
                return
            then = stage.STEPPED
        if then == stage.STEPPED and m[x + ctx.ANSWER] <= FAILED and m[m[x + ctx.LOCK] + lock.KIND] == lock.SECTION:
            m[x + ctx.STAGE] = stage.DONE
            if not left(m, x):
                return
            then = stage.DONE
        if then == stage.DONE:
            if not done(m, objects, counters, reg, x):
                return
        elif then == stage.MAP:
            if not map_work(arena, m, counters, reg, x):
                return
        elif then == stage.NEXT and (m[x + ctx.PROG] >= 0 or m[x + ctx.PROG] == MESSAGES):
            if not next_of_program(m, objects, reg, x):
                return
        elif then != stage.NEXT and not prepare(m, counters, reg, x, then):
            return


@template
def work(
    state_a: Any,
    state_b: Any,
    state_c: Any,
    m: Memory,
    objects: Table,
    counters: Words,
    reg: Registers,
    x: Ctx,
) -> bool:
    """Let a server take the next step of the operation of `x`. False: the step takes time, or it was one too many."""
    freeing, server, i = m[x + ctx.FREEING], m[x + ctx.SERVER], m[x + ctx.NUMBER]
    counters[tally.STEPS] += 1
    m[m[glob.STEPS] + i] += 1
    if m[m[glob.STEPS] + i] > counters[tally.MOST_STEPS] > 0:
        run_away(m, counters, x)
        return False
    reg[i, regs.WORK] = 0
    reg[i, regs.LOCK] = reg[i, regs.CALL] = -1
    reg[i, regs.BARE] = 0
    reg[i, regs.LOCKED] = m[m[m[glob.ROUTE] + server * route.COLUMNS + route.HOME] + lock.OWNER] >= 0
    if freeing == TENDING:
        m[x + ctx.ANSWER] = tend_step(state_a, state_b, state_c, reg, i, server)
        if m[x + ctx.ANSWER] == MOVE:
            moved(objects, counters, reg, i, being_freed(m, reg[i, regs.OBJECT]))
    else:
        m[x + ctx.ANSWER] = step(state_a, state_b, state_c, reg, i, server, freeing)
        if m[x + ctx.ANSWER] == SLEEP:
            enlist(m, reg, x)
    bare = reg[i, regs.BARE] or m[x + ctx.HOLDS] & word.HOLDS_SECTION
    if not bare and m[m[x + ctx.LOCK] + lock.KIND] == lock.SECTION:
        entered(m, x)
    ns = m[costs.FREE if freeing else costs.ALLOC] + m[costs.ITEM] * reg[i, regs.WORK]
    if m[glob.LINES] and m[x + ctx.ANSWER] == DONE and freeing != TENDING and server != SERVER_MAP:
        ns += fetch_line(m, m[x + ctx.CPU], reg[i, regs.ADDR])
    return not burst(m, x, ns, stage.STEPPED)


@template
def map_work(arena: Any, m: Memory, counters: Words, reg: Registers, x: Ctx) -> bool:
    """Let the arena work for a step, and note what that takes. False: `x` has been preempted."""
    answer = m[x + ctx.ANSWER]
    account = tally.DIRECT if m[x + ctx.SERVER] == SERVER_MAP else tally.HELD
    i = m[x + ctx.NUMBER]
    map_no = reg[i, regs.MAP]
    walked, flushed, moved = map_walked(arena, map_no), map_flushes(arena, map_no), map_moved(arena, map_no)
    map_step(arena, counters, reg, i, answer, account, m[x + ctx.SERVER], m[x + ctx.OP])
    m[x + ctx.WENT] = map_moved(arena, map_no) - moved
    m[x + ctx.EXTRA] += m[costs.WALK] * (map_walked(arena, map_no) - walked)
    if map_no != m[glob.DIRECT_MAP] and answer != WIRE:
        m[x + ctx.EXTRA] += m[costs.MAP]
    return space_done(m, reg, x, map_flushes(arena, map_no) != flushed)


@kernel
def fetch(m: Memory, s: Stream, objects: Table, counters: Words, reg: Registers, x: Ctx) -> bool:
    """Fetch the next operation of the stream. False: there is none to do now."""
    if m[x + ctx.PROG] == STREAM:
        if not next_operation(m, s, objects, x):
            return False
    elif not next_recorded(m, s, objects, x):
        return False
    counters[tally.OPS] += 1
    if m[x + ctx.STAGE] == stage.BEGIN:
        fill(m, objects, reg, x)
        m[x + ctx.ANSWER] = DONE
        log(m, x, machine.LOG_OP, m[x + ctx.FREEING], m[x + ctx.ROW])
    return True


@template
def done(m: Memory, objects: Table, counters: Words, reg: Registers, x: Ctx) -> bool:
    """An operation has ended: the table of objects, totals and latency. False: the context has left its CPU."""
    row, server = m[x + ctx.ROW], m[x + ctx.SERVER]
    took = m[glob.NOW] - m[x + ctx.BEGAN]
    m[x + ctx.STAGE] = stage.NEXT
    wanted = False
    if m[x + ctx.FREEING]:
        counters[tally.IPIS] += m[x + ctx.ANSWER] == IPI
        if row >= 0:
            observe_ns(m, m[glob.HIST] + (HIST_FREE + m[x + ctx.KIND]) * BUCKETS, took)
            forget(objects, counters, row, server)
            free_row(m, objects, row)
    else:
        observe_ns(m, m[glob.HIST] + (HIST_ALLOC + m[x + ctx.KIND]) * BUCKETS, took)
        wanted = objects[row, obj.ADDR] == obj.WANTED
        if m[x + ctx.ANSWER] == DONE:
            remember(objects, counters, reg, m[x + ctx.NUMBER], row, server)
            if m[x + ctx.QUEUE] >= 0 and not keep(m, x, row):
                wanted = True
        else:
            failed(m, objects, counters, reg, x, row, wanted)
            wanted = False
    m[seen.OPS_DONE] += 1
    if m[x + ctx.OP] >= 0:
        over(m)
    log(m, x, machine.LOG_DONE, m[x + ctx.ANSWER], took)
    if wanted:
        m[x + ctx.BEGAN] = m[glob.NOW]
        m[x + ctx.QUEUE] = -1
        m[x + ctx.OP] = -1
        begin_free(m, objects, x, row)
        fill(m, objects, reg, x)
        return True
    on = ended(m, x)
    if m[glob.WAITERS] >= 0 and reg[m[x + ctx.NUMBER], regs.WAKE]:
        rouse_sleepers(m, reg, x)
        return on and m[m[x + ctx.CPU] + cpu.TOP] == x
    return on


@template
def failed(m: Memory, objects: Table, counters: Words, reg: Registers, x: Ctx, row: int, wanted: int) -> None:
    """An allocation got nothing."""
    objects[row, obj.ADDR] = obj.ABSENT
    counters[tally.FAILURES] += 1
    m[x + ctx.FAILED] += 1
    if m[x + ctx.LEVEL] & flag.NOWAIT:
        counters[tally.NOWAIT_FAILURES] += 1
    panic = reg[m[x + ctx.NUMBER], regs.PANIC]
    if panic != panics.NONE:
        note_panic(counters, panic, m[x + ctx.OP])
    if wanted or m[x + ctx.QUEUE] >= 0:
        free_row(m, objects, row)


@outlined
def run_away(m: Memory, counters: Words, x: Ctx) -> None:
    """An operation takes more steps than it may: the lane ends. tally.RUNAWAY is -2 for a handler's or a task's."""
    m[glob.EXIT] = machine.E_RUNAWAY
    counters[tally.RUNAWAY] = m[x + ctx.OP] + 1
    if m[x + ctx.OP] < 0:
        counters[tally.RUNAWAY] = -1 if m[x + ctx.FREEING] == TENDING else -2


@outlined
def ended(m: Memory, x: Ctx) -> bool:
    """After an operation: the big lock goes back, except inside a handler."""
    c = m[x + ctx.CPU]
    prog = m[x + ctx.PROG]
    if prog == STREAM:
        m[c + cpu.FREE_AT] = m[glob.NOW]
        if m[x + ctx.BIG] and not gave_big(m, x):
            pass_big(m, x)
            return m[c + cpu.TOP] == x
    return True
