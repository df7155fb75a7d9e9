"""The driver without a clock: each operation runs to completion at once, on whichever CPU it was recorded.

It answers questions of placement and fragmentation: addresses, pages and the map come out exactly; nothing waits,
so latency, contention and deadlock do not exist here. Physical memory is not limited: what fails, fails because
KVA or map entries have run out. Where the historic kernel would have panicked the panic is counted and the operation
dropped.
"""

from typing import Any, NamedTuple

from kmemexp.jit import kernel, ref, template
from kmemexp.sim import slots
from kmemexp.sim.aliases import MapNo, Registers, Shares, Table, Words
from kmemexp.sim.ops import ALLOC, WATCH
from kmemexp.sim.probes import SERVER_MAP
from kmemexp.sim.serving import forget, map_step, moved, note_panic, remember, step, tend_step
from kmemexp.sim.slots import map_measure, map_paint
from kmemexp.sim.stale import NONE, begin_watch, note_map_step, note_object, read_freed
from kmemexp.sim.tables import flag, obj, panics, regs, tally


class World(NamedTuple):
    """One lane's simulated machine. `state_*` and `arena` are the states of the design's parts."""

    state_a: Any
    state_b: Any
    state_c: Any
    arena: Any
    server: Words  # int64[kinds], SERVER_*
    item: Words  # int64[kinds], number of the kind in its server's own numbering
    target_map: Words  # int64[kinds], map of a kind that is served by a map directly
    attribute: Words  # int64[kinds], ATTR_* of its entries
    objects: Table  # int64[slots, obj.COLUMNS], live objects
    counters: Words  # int64[tally.COLUMNS]
    reg: Table  # int64[1, regs.COLUMNS]
    reclaims: int = 0  # 1: a map without room makes the allocators give back what they can spare
    watch: Words = NONE  # int64, stale.table(); empty: nobody reads what has been freed


@template
def serve(
    state_a: Any,
    state_b: Any,
    state_c: Any,
    arena: Any,
    counters: Words,
    reg: Registers,
    server: int,
    freeing: int,
    watch: Words,
    op: int,
) -> int:
    """Play one operation through its server, step by step. Returns DONE or FAILED."""
    account = tally.DIRECT if server == SERVER_MAP else tally.HELD
    while True:
        counters[tally.STEPS] += 1
        answer = step(state_a, state_b, state_c, reg, 0, server, freeing)
        if answer <= slots.FAILED:
            return answer
        if answer == slots.IPI:
            reg[0, regs.CPU] = reg[0, regs.TARGET]
            counters[tally.IPIS] += 1
        elif answer <= slots.WIRE:
            before = counters[account]
            map_step(arena, counters, reg, 0, answer, account, server, op)
            if len(watch) and counters[account] != before:
                note_map_step(reg, 0, watch, answer)


@template
def upkeep(world: World, server: int, why: int) -> int:
    """Let an allocator see to itself, to the end; `why`: T_*. Returns its last answer."""
    lane = ref(world)
    reg, counters = lane.reg, lane.counters
    reg[0, regs.CPU] = reg[0, regs.ITEM] = reg[0, regs.FLAGS] = reg[0, regs.PHASE] = reg[0, regs.PANIC] = 0
    reg[0, regs.SIZE] = why
    while True:
        counters[tally.STEPS] += 1
        answer = tend_step(lane.state_a, lane.state_b, lane.state_c, reg, 0, server)
        if answer <= slots.FAILED:
            return answer
        if answer == slots.IPI:
            reg[0, regs.CPU] = reg[0, regs.TARGET]
            counters[tally.IPIS] += 1
        elif answer <= slots.WIRE:
            before = counters[tally.HELD]
            map_step(lane.arena, counters, reg, 0, answer, tally.HELD, server, -1)
            if len(lane.watch) and counters[tally.HELD] != before:
                note_map_step(reg, 0, lane.watch, answer)
        elif answer == slots.MOVE:
            moved(lane.objects, counters, reg, 0, False)
            if len(lane.watch) and reg[0, regs.BASE] >= 0:
                number = reg[0, regs.OBJECT]
                note_object(
                    lane.watch, reg[0, regs.BASE], lane.objects[number, obj.GRANTED], lane.objects[number, obj.KIND]
                )


@template
def replay(
    world: World, op: Words, kind: Words, slot: Words, size: Words, cpu: Words, flags: Words, lo: int, hi: int
) -> int:
    """Play operations lo … hi-1 of a stream on world `world`. Returns the number of operations played.

    They are fewer where a map has refused a request that may wait, and `world.reclaims`: the allocators are to give
    back what they can, then the operation is played again.
    """
    lane = ref(world)
    state_a, state_b, state_c, arena, watch = lane.state_a, lane.state_b, lane.state_c, lane.arena, lane.watch
    objects, counters, reg = lane.objects, lane.counters, lane.reg
    server, item, target_map, attribute = lane.server, lane.item, lane.target_map, lane.attribute
    for i in range(lo, hi):
        k, number = kind[i], slot[i]
        if op[i] >= WATCH:
            counters[tally.OPS] -= 1
            look_back(objects, watch, op[i], number, size[i])
            continue
        freeing = op[i] != ALLOC
        if freeing:
            if objects[number, obj.ADDR] == obj.ABSENT:
                continue  # its allocation had failed
            reg[0, regs.ADDR] = objects[number, obj.ADDR]
            reg[0, regs.SIZE] = objects[number, obj.SIZE]
        else:
            reg[0, regs.SIZE] = size[i]
        reg[0, regs.CPU] = cpu[i]
        reg[0, regs.ITEM] = item[k]
        reg[0, regs.FLAGS] = flags[i]
        reg[0, regs.PHASE] = 0
        reg[0, regs.PANIC] = panics.NONE
        reg[0, regs.OBJECT] = number
        fragmented, exhausted = counters[tally.FRAGMENTED], counters[tally.EXHAUSTED]
        if server[k] == SERVER_MAP:
            reg[0, regs.MAP] = target_map[k]
            reg[0, regs.ATTR] = attribute[k]
        answer = serve(state_a, state_b, state_c, arena, counters, reg, server[k], freeing, watch, i)
        if freeing:
            forget(objects, counters, number, server[k])
        elif answer == slots.DONE:
            remember(objects, counters, reg, 0, number, server[k])
            if len(watch):
                objects[number, obj.KIND] = k
                nbytes = reg[0, regs.BYTES] if server[k] == SERVER_MAP else reg[0, regs.GRANTED]
                note_object(watch, reg[0, regs.ADDR], nbytes, k)
        elif (
            lane.reclaims
            and not flags[i] & flag.NOWAIT
            and counters[tally.RETRIED] != i + 1
            and counters[tally.FRAGMENTED] + counters[tally.EXHAUSTED] != fragmented + exhausted
        ):
            counters[tally.FRAGMENTED], counters[tally.EXHAUSTED] = fragmented, exhausted
            counters[tally.RETRIED] = i + 1
            counters[tally.OPS] += i - lo
            return i - lo
        else:
            failed(objects, counters, reg, number, flags[i], i)
    counters[tally.OPS] += hi - lo
    return hi - lo


@template
def failed(objects: Table, counters: Words, reg: Registers, number: int, flags: int, op: int) -> None:
    """Operation `op`, an allocation, got nothing."""
    objects[number, obj.ADDR] = obj.ABSENT
    counters[tally.FAILURES] += 1
    if flags & flag.NOWAIT:
        counters[tally.NOWAIT_FAILURES] += 1
    if reg[0, regs.PANIC] != panics.NONE:
        note_panic(counters, reg[0, regs.PANIC], op)


@kernel
def look_back(objects: Table, watch: Words, op: int, number: int, size: int) -> None:
    """Play what a stream says of stale references: begin a watch on object `number`, or read through watch `number`."""
    if len(watch) == 0:
        return
    if op == WATCH:
        begin_watch(watch, size, objects[number, obj.ADDR])
    else:
        read_freed(watch, number, size)


@template
def observe(arena: Any, map_no: MapNo, totals: Words, bins: Shares) -> None:
    """Write the state of map `map_no`: totals (int64[M_COUNT]) and, unless `bins` is empty, its occupancy."""
    map_measure(arena, map_no, totals)
    if len(bins) > 0:
        map_paint(arena, map_no, bins)
