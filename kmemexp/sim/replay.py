"""The driver without a clock: each operation runs to completion at once, on whichever CPU it was recorded.

It answers questions of placement and fragmentation: addresses, pages and the map come out exactly; nothing waits,
so latency, contention and deadlock do not exist here. Physical memory is not limited: what fails, fails for want of
KVA or of map entries. Where the historic kernel would have panicked the panic is counted and the operation dropped.
"""

from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel, template
from kmemexp.sim.ops import ALLOC, WATCH
from kmemexp.sim.probes import (
    A_DIRECT,
    A_EXHAUSTED,
    A_FAILURES,
    A_FRAGMENTED,
    A_HELD,
    A_IPIS,
    A_NOWAIT_FAILURES,
    A_OPS,
    A_RETRIED,
    A_STEPS,
    ABSENT,
    O_ADDR,
    O_GRANTED,
    O_KIND,
    O_SIZE,
    SERVER_MAP,
)
from kmemexp.sim.serving import forget, map_step, moved, note_panic, remember, step, tend_step
from kmemexp.sim.slots import (
    DONE,
    F_NOWAIT,
    FAILED,
    IPI,
    MOVE,
    P_NONE,
    R_ADDR,
    R_ATTR,
    R_BASE,
    R_BYTES,
    R_CPU,
    R_FLAGS,
    R_GRANTED,
    R_ITEM,
    R_MAP,
    R_OBJECT,
    R_PANIC,
    R_PHASE,
    R_SIZE,
    R_TARGET,
    WIRE,
    map_measure,
    map_paint,
)
from kmemexp.sim.stale import NONE, begin_watch, note_map_step, note_object, read_freed


class World(NamedTuple):
    """One lane's simulated machine. `a`, `b`, `c` and `arena` are the states of the design's parts."""

    a: tuple
    b: tuple
    c: tuple
    arena: tuple
    server: np.ndarray  # int64[kinds], SERVER_*
    item: np.ndarray  # int64[kinds], number of the kind in its server's own numbering
    target_map: np.ndarray  # int64[kinds], map of a kind that is served by a map directly
    attribute: np.ndarray  # int64[kinds], ATTR_* of its entries
    objects: np.ndarray  # int64[slots, O_COUNT], live objects
    counters: np.ndarray  # int64[A_COUNT]
    reg: np.ndarray  # int64[1, R_COUNT]
    reclaims: int = 0  # 1: a map without room makes the allocators give back what they can spare
    watch: np.ndarray = NONE  # int64, stale.table(); empty: nobody reads what has been freed


@template
def serve(a, b, c, arena, server, freeing, reg, counters, watch, op):
    """Play one operation through whoever serves it, step by step. Returns DONE or FAILED."""
    account = A_DIRECT if server == SERVER_MAP else A_HELD
    while True:
        counters[A_STEPS] += 1
        answer = step(a, b, c, server, freeing, reg, 0)
        if answer <= FAILED:
            return answer
        if answer == IPI:
            reg[0, R_CPU] = reg[0, R_TARGET]
            counters[A_IPIS] += 1
        elif answer <= WIRE:
            before = counters[account]
            map_step(arena, answer, account, server, reg, 0, counters, op)
            if len(watch) and counters[account] != before:
                note_map_step(watch, answer, reg, 0)


@template
def upkeep(w, server, why):
    """Let an allocator see to itself, to the end; `why`: T_*. Returns its last answer."""
    reg, counters = w.reg, w.counters
    reg[0, R_CPU] = reg[0, R_ITEM] = reg[0, R_FLAGS] = reg[0, R_PHASE] = reg[0, R_PANIC] = 0
    reg[0, R_SIZE] = why
    while True:
        counters[A_STEPS] += 1
        answer = tend_step(w.a, w.b, w.c, server, reg, 0)
        if answer <= FAILED:
            return answer
        if answer == IPI:
            reg[0, R_CPU] = reg[0, R_TARGET]
            counters[A_IPIS] += 1
        elif answer <= WIRE:
            before = counters[A_HELD]
            map_step(w.arena, answer, A_HELD, server, reg, 0, counters, -1)
            if len(w.watch) and counters[A_HELD] != before:
                note_map_step(w.watch, answer, reg, 0)
        elif answer == MOVE:
            moved(w.objects, reg, 0, counters, False)
            if len(w.watch) and reg[0, R_BASE] >= 0:
                s = reg[0, R_OBJECT]
                note_object(w.watch, reg[0, R_BASE], w.objects[s, O_GRANTED], w.objects[s, O_KIND])


@template
def replay(w, op, kind, slot, size, cpu, flags, lo, hi):
    """Play operations lo … hi-1 of a stream on world `w`. Returns the number of operations played.

    They are fewer where a map has refused a request that may wait, and `w.reclaims`: the allocators are to give back
    what they can, then the operation is played again.
    """
    a, b, c, arena, watch = w.a, w.b, w.c, w.arena, w.watch
    objects, counters, reg = w.objects, w.counters, w.reg
    server, item, target_map, attribute = w.server, w.item, w.target_map, w.attribute
    for i in range(lo, hi):
        k, s = kind[i], slot[i]
        if op[i] >= WATCH:
            counters[A_OPS] -= 1
            look_back(objects, watch, op[i], s, size[i])
            continue
        freeing = op[i] != ALLOC
        if freeing:
            if objects[s, O_ADDR] == ABSENT:
                continue  # its allocation had failed
            reg[0, R_ADDR] = objects[s, O_ADDR]
            reg[0, R_SIZE] = objects[s, O_SIZE]
        else:
            reg[0, R_SIZE] = size[i]
        reg[0, R_CPU] = cpu[i]
        reg[0, R_ITEM] = item[k]
        reg[0, R_FLAGS] = flags[i]
        reg[0, R_PHASE] = 0
        reg[0, R_PANIC] = P_NONE
        reg[0, R_OBJECT] = s
        fragmented, exhausted = counters[A_FRAGMENTED], counters[A_EXHAUSTED]
        if server[k] == SERVER_MAP:
            reg[0, R_MAP] = target_map[k]
            reg[0, R_ATTR] = attribute[k]
        answer = serve(a, b, c, arena, server[k], freeing, reg, counters, watch, i)
        if freeing:
            forget(objects, s, server[k], counters)
        elif answer == DONE:
            remember(objects, s, server[k], reg, 0, counters)
            if len(watch):
                objects[s, O_KIND] = k
                nbytes = reg[0, R_BYTES] if server[k] == SERVER_MAP else reg[0, R_GRANTED]
                note_object(watch, reg[0, R_ADDR], nbytes, k)
        elif (
            w.reclaims
            and not flags[i] & F_NOWAIT
            and counters[A_RETRIED] != i + 1
            and counters[A_FRAGMENTED] + counters[A_EXHAUSTED] != fragmented + exhausted
        ):
            counters[A_FRAGMENTED], counters[A_EXHAUSTED] = fragmented, exhausted
            counters[A_RETRIED] = i + 1
            counters[A_OPS] += i - lo
            return i - lo
        else:
            objects[s, O_ADDR] = ABSENT
            counters[A_FAILURES] += 1
            if flags[i] & F_NOWAIT:
                counters[A_NOWAIT_FAILURES] += 1
            if reg[0, R_PANIC] != P_NONE:
                note_panic(counters, reg[0, R_PANIC], i)
    counters[A_OPS] += hi - lo
    return hi - lo


@kernel
def look_back(objects, watch, op, number, size):
    """Play what a stream says of stale references: begin a watch on object `number`, or read through watch `number`."""
    if len(watch) == 0:
        return
    if op == WATCH:
        begin_watch(watch, size, objects[number, O_ADDR])
    else:
        read_freed(watch, number, size)


@template
def observe(arena, m, totals, bins):
    """Write the state of map `m`: totals (int64[M_COUNT]) and, unless `bins` is empty, its occupancy."""
    map_measure(arena, m, totals)
    if len(bins) > 0:
        map_paint(arena, m, bins)
