"""The driver without a clock: each operation runs to completion at once, on whichever CPU it was recorded.

It answers questions of placement and fragmentation: addresses, pages and the map come out exactly; nothing waits,
so latency, contention and deadlock do not exist here. Physical memory is not limited: what fails, fails for want of
KVA or of map entries. Where the historic kernel would have panicked the panic is counted and the operation dropped.
"""

from typing import NamedTuple

import numpy as np

from kmemexp.jit import template
from kmemexp.sim.probes import (
    A_ALLOCS,
    A_DIRECT,
    A_EXHAUSTED,
    A_FAILURES,
    A_FRAGMENTED,
    A_FREES,
    A_GRANTED,
    A_GRANTED_TOTAL,
    A_HELD,
    A_HELD_PEAK,
    A_IPIS,
    A_MAP_OPS,
    A_NOWAIT_FAILURES,
    A_OPS,
    A_PANIC,
    A_PANIC_OP,
    A_PANICS,
    A_REQUESTED,
    A_REQUESTED_PEAK,
    A_REQUESTED_TOTAL,
    A_STEPS,
    ABSENT,
    O_ADDR,
    O_GRANTED,
    O_SIZE,
    SERVER_A,
    SERVER_B,
    SERVER_MAP,
)
from kmemexp.sim.slots import (
    DONE,
    F_NOWAIT,
    FAILED,
    IPI,
    MAP_ALLOC,
    MAP_FREE,
    NO_ENTRY,
    P_ENTRIES,
    P_NONE,
    PAGE,
    R_ADDR,
    R_ALIGN,
    R_ATTR,
    R_BASE,
    R_BYTES,
    R_CPU,
    R_FLAGS,
    R_GRANTED,
    R_ITEM,
    R_MAP,
    R_PANIC,
    R_PHASE,
    R_SIZE,
    R_TARGET,
    WIRE,
    alloc_a,
    alloc_b,
    alloc_c,
    free_a,
    free_b,
    free_c,
    map_alloc,
    map_free,
    map_free_bytes,
    map_measure,
    map_paint,
)


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


@template
def map_step(arena, answer, account, reg, counters, op):
    """Carry out what a step asked of the map: MAP_ALLOC, MAP_FREE or WIRE. Refusals are told apart and counted."""
    m, nbytes, cpu = reg[0, R_MAP], reg[0, R_BYTES], reg[0, R_CPU]
    if answer == MAP_ALLOC:
        counters[A_MAP_OPS] += 1
        addr = map_alloc(arena, m, nbytes, reg[0, R_ALIGN], reg[0, R_ATTR], cpu)
        reg[0, R_BASE] = addr
        if addr >= 0:
            counters[account] += nbytes
        elif addr == NO_ENTRY:
            reg[0, R_PANIC] = P_ENTRIES
        elif map_free_bytes(arena, m) >= nbytes:
            counters[A_FRAGMENTED] += 1
        else:
            counters[A_EXHAUSTED] += 1
    elif answer == MAP_FREE:
        counters[A_MAP_OPS] += 1
        if map_free(arena, m, reg[0, R_BASE], nbytes, cpu) == NO_ENTRY:
            note_panic(counters, P_ENTRIES, op)
        else:
            counters[account] -= nbytes
    else:
        reg[0, R_BASE] = 0
        counters[account] += nbytes
    counters[A_HELD_PEAK] = max(counters[A_HELD_PEAK], counters[A_HELD])


@template
def note_panic(counters, panic, op):
    """Count a panic and remember the first."""
    if counters[A_PANICS] == 0:
        counters[A_PANIC] = panic
        counters[A_PANIC_OP] = op
    counters[A_PANICS] += 1


@template
def direct(freeing, reg):
    """One step of an operation that a map serves by itself: ask the map, then take its answer."""
    if reg[0, R_PHASE] == 0:
        reg[0, R_PHASE] = 1
        reg[0, R_BYTES] = (reg[0, R_SIZE] + PAGE - 1) & -PAGE
        reg[0, R_ALIGN] = PAGE
        if freeing:
            reg[0, R_BASE] = reg[0, R_ADDR]
            return MAP_FREE
        return MAP_ALLOC
    if not freeing:
        reg[0, R_ADDR] = reg[0, R_BASE]
    return FAILED if reg[0, R_BASE] < 0 else DONE


@template
def serve(a, b, c, arena, server, freeing, reg, counters, op):
    """Play one operation through whoever serves it, step by step. Returns DONE or FAILED."""
    account = A_DIRECT if server == SERVER_MAP else A_HELD
    while True:
        counters[A_STEPS] += 1
        if server == SERVER_MAP:
            answer = direct(freeing, reg)
        elif freeing:
            if server == SERVER_A:
                answer = free_a(a, reg, 0)
            elif server == SERVER_B:
                answer = free_b(b, reg, 0)
            else:
                answer = free_c(c, reg, 0)
        elif server == SERVER_A:
            answer = alloc_a(a, reg, 0)
        elif server == SERVER_B:
            answer = alloc_b(b, reg, 0)
        else:
            answer = alloc_c(c, reg, 0)
        if answer <= FAILED:
            return answer
        if answer == IPI:
            reg[0, R_CPU] = reg[0, R_TARGET]
            counters[A_IPIS] += 1
        elif answer <= WIRE:
            map_step(arena, answer, account, reg, counters, op)


@template
def replay(w, op, kind, slot, size, cpu, flags, lo, hi):
    """Play operations lo … hi-1 of a stream on world `w`. Returns the number of operations played."""
    a, b, c, arena = w.a, w.b, w.c, w.arena
    objects, counters, reg = w.objects, w.counters, w.reg
    server, item, target_map, attribute = w.server, w.item, w.target_map, w.attribute
    for i in range(lo, hi):
        k, s = kind[i], slot[i]
        freeing = op[i] != 0
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
        if server[k] == SERVER_MAP:
            reg[0, R_MAP] = target_map[k]
            reg[0, R_ATTR] = attribute[k]
        answer = serve(a, b, c, arena, server[k], freeing, reg, counters, i)
        if freeing:
            forget(objects, s, server[k], counters)
        elif answer == DONE:
            remember(objects, s, server[k], reg, counters)
        else:
            objects[s, O_ADDR] = ABSENT
            counters[A_FAILURES] += 1
            if flags[i] & F_NOWAIT:
                counters[A_NOWAIT_FAILURES] += 1
            if reg[0, R_PANIC] != P_NONE:
                note_panic(counters, reg[0, R_PANIC], i)
    counters[A_OPS] += hi - lo
    return hi - lo


@template
def remember(objects, s, server, reg, counters):
    """Enter a new object in the table and in the totals."""
    size, granted = reg[0, R_SIZE], reg[0, R_GRANTED]
    objects[s, O_ADDR] = reg[0, R_ADDR]
    objects[s, O_SIZE] = size
    counters[A_ALLOCS] += 1
    if server == SERVER_MAP:
        return
    objects[s, O_GRANTED] = granted
    counters[A_REQUESTED] += size
    counters[A_GRANTED] += granted
    counters[A_REQUESTED_TOTAL] += size
    counters[A_GRANTED_TOTAL] += granted
    counters[A_REQUESTED_PEAK] = max(counters[A_REQUESTED_PEAK], counters[A_REQUESTED])


@template
def forget(objects, s, server, counters):
    """Take an object out of the table and of the totals."""
    objects[s, O_ADDR] = ABSENT
    counters[A_FREES] += 1
    if server != SERVER_MAP:
        counters[A_REQUESTED] -= objects[s, O_SIZE]
        counters[A_GRANTED] -= objects[s, O_GRANTED]


@template
def observe(arena, m, totals, bins):
    """Write the state of map `m`: totals (int64[M_COUNT]) and, unless `bins` is empty, its occupancy."""
    map_measure(arena, m, totals)
    if len(bins) > 0:
        map_paint(arena, m, bins)
