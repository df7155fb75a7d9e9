"""The driver without a clock: each operation runs to completion at once, on whichever CPU it was recorded.

It answers questions of placement and fragmentation: addresses, pages and the map come out exactly; nothing waits, so
latency, contention and deadlock do not exist here. A request that would sleep until somebody frees something (a limit,
say) is counted as one that waits, not as one that fails, and goes without. Physical memory is not limited: what fails,
fails because KVA or map entries have run out. Where the historic kernel would have panicked the panic is counted and
the operation dropped.
"""

from typing import Any, NamedTuple

from kmemexp.jit import kernel, outlined_template, ref, template
from kmemexp.sim import slots
from kmemexp.sim.aliases import Address, Bytes, MapNo, Registers, Shares, Table, Words
from kmemexp.sim.ops import ALLOC, WATCH
from kmemexp.sim.probes import SERVER_A, SERVER_B, SERVER_C, SERVER_MAP
from kmemexp.sim.serving import enter, forget, map_step, moved, note_panic, remember, step, tend_step
from kmemexp.sim.slots import (
    fast_alloc_a,
    fast_alloc_b,
    fast_alloc_c,
    fast_free_a,
    fast_free_b,
    fast_free_c,
    map_alloc,
    map_attr,
    map_measure,
    map_paint,
)
from kmemexp.sim.stale import NONE, begin_watch, note_map_step, note_object, read_freed
from kmemexp.sim.tables import flag, gauge, obj, panics, regs, tally


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
def serve(lane: World, server: int, freeing: int, op: int) -> int:
    """Play one operation through its server, step by step. Returns DONE or FAILED."""
    arena, counters, reg, watch = lane.arena, lane.counters, lane.reg, lane.watch
    account = tally.DIRECT if server == SERVER_MAP else tally.HELD
    last = counters[tally.STEPS] + counters[tally.MOST_STEPS]
    while True:
        counters[tally.STEPS] += 1
        if counters[tally.STEPS] > last and counters[tally.MOST_STEPS]:
            counters[tally.RUNAWAY] = op + 1
            return slots.FAILED
        answer = step(lane.state_a, lane.state_b, lane.state_c, reg, 0, server, freeing)
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
        elif answer == slots.SLEEP:
            counters[tally.WAITS] += 1
            reg[0, regs.FLAGS] |= flag.NOWAIT | flag.WAITED


@template
def upkeep(world: World, server: int, why: int) -> int:
    """Let an allocator see to itself, to the end; `why`: T_*. Returns its last answer."""
    lane = ref(world)
    reg, counters = lane.reg, lane.counters
    reg[0, regs.CPU] = reg[0, regs.ITEM] = reg[0, regs.FLAGS] = reg[0, regs.PHASE] = reg[0, regs.PANIC] = 0
    reg[0, regs.SIZE] = why
    last = counters[tally.STEPS] + counters[tally.MOST_STEPS]
    while True:
        counters[tally.STEPS] += 1
        if counters[tally.STEPS] > last and counters[tally.MOST_STEPS]:
            counters[tally.RUNAWAY] = -1
            return slots.FAILED
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
    back what they can, then the operation is played again; or where one took more than `tally.MOST_STEPS` steps.

    What most operations are, an allocator's fast path, is in this loop; the rest is in `play`.
    """
    lane = ref(world)
    objects, counters = lane.objects, lane.counters
    server, item = lane.server, lane.item
    watched = len(lane.watch) > 0
    for i in range(lo, hi):
        k, number = kind[i], slot[i]
        if not watched:
            if op[i] == ALLOC:
                addr, granted = fast_alloc(lane, server[k], item[k], size[i], cpu[i], flags[i])
                if addr != obj.ABSENT:
                    counters[tally.STEPS] += 1
                    enter(objects, counters, number, addr, size[i], granted)
                    continue
            else:
                addr = objects[number, obj.ADDR]
                if addr == obj.ABSENT:
                    continue  # its allocation had failed
                if fast_free(lane, server[k], item[k], addr, objects[number, obj.SIZE], cpu[i], flags[i]):
                    counters[tally.STEPS] += 1
                    forget(objects, counters, number, server[k])
                    continue
        if not play(lane, op[i], k, number, size[i], cpu[i], flags[i], i):
            counters[tally.OPS] += i - lo
            return i - lo
    counters[tally.OPS] += hi - lo
    return hi - lo


@template
def fast_alloc(lane: World, server: int, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Let the server of an allocation serve it on its fast path: (address, granted), or (ABSENT, 0)."""
    if server == SERVER_A:
        return fast_alloc_a(lane.state_a, item, size, cpu, flags)
    if server == SERVER_B:
        return fast_alloc_b(lane.state_b, item, size, cpu, flags)
    if server == SERVER_C:
        return fast_alloc_c(lane.state_c, item, size, cpu, flags)
    return obj.ABSENT, 0


@template
def fast_free(lane: World, server: int, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Let the server of a free serve it on its fast path, if it can."""
    if server == SERVER_A:
        return fast_free_a(lane.state_a, item, addr, size, cpu, flags)
    if server == SERVER_B:
        return fast_free_b(lane.state_b, item, addr, size, cpu, flags)
    if server == SERVER_C:
        return fast_free_c(lane.state_c, item, addr, size, cpu, flags)
    return False


@outlined_template
def play(lane: World, op: int, k: int, number: int, size: Bytes, cpu: int, flags: int, i: int) -> bool:
    """Play operation `i`, of kind `k` on object `number`, through the registers.

    False: only after a reclaim, or never, as it took too many steps.
    """
    objects, counters, reg, watch, server = lane.objects, lane.counters, lane.reg, lane.watch, lane.server[k]
    if op >= WATCH:
        counters[tally.OPS] -= 1
        look_back(objects, watch, op, number, size)
        return True
    freeing = op != ALLOC
    if freeing:
        if objects[number, obj.ADDR] == obj.ABSENT:
            return True  # its allocation had failed
        reg[0, regs.ADDR] = objects[number, obj.ADDR]
        reg[0, regs.SIZE] = objects[number, obj.SIZE]
    else:
        reg[0, regs.SIZE] = size
    reg[0, regs.CPU] = cpu
    reg[0, regs.ITEM] = lane.item[k]
    reg[0, regs.FLAGS] = flags
    reg[0, regs.PHASE] = 0
    reg[0, regs.PANIC] = panics.NONE
    reg[0, regs.OBJECT] = number
    fragmented, exhausted = counters[tally.FRAGMENTED], counters[tally.EXHAUSTED]
    if server == SERVER_MAP:
        reg[0, regs.MAP] = lane.target_map[k]
        reg[0, regs.ATTR] = lane.attribute[k]
    answer = serve(lane, server, freeing, i)
    if counters[tally.RUNAWAY]:
        return False
    if freeing:
        forget(objects, counters, number, server)
    elif answer == slots.DONE:
        remember(objects, counters, reg, 0, number, server)
        if len(watch):
            objects[number, obj.KIND] = k
            note_object(watch, reg[0, regs.ADDR], reg[0, regs.BYTES if server == SERVER_MAP else regs.GRANTED], k)
    elif (
        lane.reclaims
        and not flags & flag.NOWAIT
        and counters[tally.RETRIED] != i + 1
        and counters[tally.FRAGMENTED] + counters[tally.EXHAUSTED] != fragmented + exhausted
    ):
        counters[tally.FRAGMENTED], counters[tally.EXHAUSTED] = fragmented, exhausted
        counters[tally.RETRIED] = i + 1
        return False
    else:
        failed(objects, counters, reg, number, flags, i)
    return True


@template
def failed(objects: Table, counters: Words, reg: Registers, number: int, flags: int, op: int) -> None:
    """Operation `op`, an allocation, got nothing."""
    objects[number, obj.ADDR] = obj.ABSENT
    if reg[0, regs.FLAGS] & flag.WAITED:
        return
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
def take(arena: Any, reg: Registers, map_no: MapNo, nbytes: Bytes, attr: int) -> Address:
    """Take `nbytes` (whole pages) from a map at boot, before there are allocators. Returns the address, or below 0."""
    reg[0, regs.MAP] = map_no
    reg[0, regs.BYTES] = nbytes
    return map_alloc(arena, map_no, nbytes, slots.PAGE, map_attr(reg, 0, attr, SERVER_MAP), 0)


ASKED_MAP, ASKED_BINS, ASKED_SUPERPAGE = range(3)
ASKED = 3
"""What is asked of a map: its number, stretches of its picture (0: none), stretches of a superpage (0: not counted)."""


@template
def observe(arena: Any, asked: Table, totals: Table, shares: Shares) -> int:
    """Write totals of maps (int64[maps, gauge.COLUMNS]), and into `shares` the picture of the last that has one.

    `asked`: int64[maps, ASKED]. Returns the number of superpages that are wholly free; without a picture, of those that
    lie in one hole.
    """
    free = 0
    for i in range(len(asked)):
        bins, each = asked[i, ASKED_BINS], asked[i, ASKED_SUPERPAGE]
        map_measure(arena, asked[i, ASKED_MAP], totals[i])
        if bins > 0:
            painted = shares[:bins]
            for j in range(bins):
                painted[j] = 0.0
            map_paint(arena, asked[i, ASKED_MAP], painted)
            free += wholly_free(painted, each)
        elif each > 0:
            free += totals[i, gauge.WHOLE]
    return free


@kernel
def wholly_free(shares: Shares, each: int) -> int:
    """Count aligned rows of `each` stretches of which none is occupied; 0 where `each` is."""
    if each == 0:
        return 0
    found = 0
    for begin in range(0, len(shares) - each + 1, each):
        whole = 1
        for j in range(begin, begin + each):
            if shares[j] > 0:
                whole = 0
                break
        found += whole
    return found
