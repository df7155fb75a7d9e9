"""What both drivers do for an operation: call whoever serves it, carry out map steps, keep the table of objects.

Register row `i` belongs to the operation (0 in the driver without a clock, the context's number in the timed one).
"""

from kmemexp.jit import kernel, template
from kmemexp.sim.probes import (
    A_ALLOCS,
    A_EXHAUSTED,
    A_FRAGMENTED,
    A_FREES,
    A_GRANTED,
    A_GRANTED_TOTAL,
    A_HELD,
    A_HELD_AT_PEAK,
    A_HELD_PEAK,
    A_MAP_OPS,
    A_MOVED,
    A_MOVES,
    A_PANIC,
    A_PANIC_OP,
    A_PANICS,
    A_REQUESTED,
    A_REQUESTED_AT_PEAK,
    A_REQUESTED_PEAK,
    A_REQUESTED_TOTAL,
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
    FAILED,
    MAP_ALLOC,
    MAP_FREE,
    NO_ENTRY,
    P_ENTRIES,
    P_RECURSION,
    PAGE,
    R_ADDR,
    R_ALIGN,
    R_ATTR,
    R_BASE,
    R_BYTES,
    R_CPU,
    R_GRANTED,
    R_MAP,
    R_OBJECT,
    R_PANIC,
    R_PHASE,
    R_SIZE,
    RECURSES,
    alloc_a,
    alloc_b,
    alloc_c,
    free_a,
    free_b,
    free_c,
    map_alloc,
    map_attr,
    map_free,
    map_free_bytes,
    tend_a,
    tend_b,
    tend_c,
)


@template
def step(a, b, c, server, freeing, reg, i):
    """Let whoever serves the operation take one step. Returns its answer."""
    if server == SERVER_MAP:
        return direct(freeing, reg, i)
    if freeing:
        if server == SERVER_A:
            return free_a(a, reg, i)
        if server == SERVER_B:
            return free_b(b, reg, i)
        return free_c(c, reg, i)
    if server == SERVER_A:
        return alloc_a(a, reg, i)
    if server == SERVER_B:
        return alloc_b(b, reg, i)
    return alloc_c(c, reg, i)


@template
def tend_step(a, b, c, server, reg, i):
    """Let an allocator take one step of its upkeep. Returns its answer."""
    if server == SERVER_A:
        return tend_a(a, reg, i)
    if server == SERVER_B:
        return tend_b(b, reg, i)
    return tend_c(c, reg, i)


@kernel
def moved(objects, reg, i, counters, freeing):
    """Enter the new address of an object that an allocator has moved, or refuse (R_BASE = -1) if it is being freed."""
    s = reg[i, R_OBJECT]
    if objects[s, O_ADDR] == reg[i, R_ADDR] and not freeing:
        objects[s, O_ADDR] = reg[i, R_BASE]
        counters[A_MOVES] += 1
        counters[A_MOVED] += objects[s, O_SIZE]
    else:
        reg[i, R_BASE] = -1


@template
def direct(freeing, reg, i):
    """One step of an operation that a map serves by itself: ask the map, then take its answer."""
    if reg[i, R_PHASE] == 0:
        reg[i, R_PHASE] = 1
        reg[i, R_BYTES] = (reg[i, R_SIZE] + PAGE - 1) & -PAGE
        reg[i, R_ALIGN] = PAGE
        if freeing:
            reg[i, R_BASE] = reg[i, R_ADDR]
            return MAP_FREE
        return MAP_ALLOC
    if not freeing:
        reg[i, R_ADDR] = reg[i, R_BASE]
    return FAILED if reg[i, R_BASE] < 0 else DONE


@template
def map_step(arena, answer, account, server, reg, i, counters, op):
    """Carry out what a step asked of the map: MAP_ALLOC, MAP_FREE or WIRE. Refusals are told apart and counted."""
    m, nbytes, cpu = reg[i, R_MAP], reg[i, R_BYTES], reg[i, R_CPU]
    if answer == MAP_ALLOC:
        counters[A_MAP_OPS] += 1
        addr = map_alloc(arena, m, nbytes, reg[i, R_ALIGN], map_attr(reg[i, R_ATTR], server, reg, i), cpu)
        reg[i, R_BASE] = addr
        if addr >= 0:
            counters[account] += nbytes
        elif addr == NO_ENTRY:
            reg[i, R_PANIC] = P_ENTRIES
        elif addr == RECURSES:
            reg[i, R_PANIC] = P_RECURSION
        elif map_free_bytes(arena, m) >= nbytes:
            counters[A_FRAGMENTED] += 1
        else:
            counters[A_EXHAUSTED] += 1
    elif answer == MAP_FREE:
        counters[A_MAP_OPS] += 1
        answer = map_free(arena, m, reg[i, R_BASE], nbytes, cpu)
        if answer < 0:
            note_panic(counters, P_RECURSION if answer == RECURSES else P_ENTRIES, op)
        else:
            counters[account] -= nbytes
    else:
        reg[i, R_BASE] = 0
        counters[account] += nbytes
    if counters[A_HELD] > counters[A_HELD_PEAK]:
        counters[A_HELD_PEAK] = counters[A_HELD]
        counters[A_REQUESTED_AT_PEAK] = counters[A_REQUESTED]


@template
def note_panic(counters, panic, op):
    """Count a panic and remember the first."""
    if counters[A_PANICS] == 0:
        counters[A_PANIC] = panic
        counters[A_PANIC_OP] = op
    counters[A_PANICS] += 1


@template
def remember(objects, s, server, reg, i, counters):
    """Enter a new object in row `s` of the table and in the totals."""
    size, granted = reg[i, R_SIZE], reg[i, R_GRANTED]
    objects[s, O_ADDR] = reg[i, R_ADDR]
    objects[s, O_SIZE] = size
    counters[A_ALLOCS] += 1
    if server == SERVER_MAP:
        return
    objects[s, O_GRANTED] = granted
    counters[A_REQUESTED] += size
    counters[A_GRANTED] += granted
    counters[A_REQUESTED_TOTAL] += size
    counters[A_GRANTED_TOTAL] += granted
    if counters[A_REQUESTED] > counters[A_REQUESTED_PEAK]:
        counters[A_REQUESTED_PEAK] = counters[A_REQUESTED]
        counters[A_HELD_AT_PEAK] = counters[A_HELD]


@template
def forget(objects, s, server, counters):
    """Take an object out of the table and of the totals."""
    objects[s, O_ADDR] = ABSENT
    counters[A_FREES] += 1
    if server != SERVER_MAP:
        counters[A_REQUESTED] -= objects[s, O_SIZE]
        counters[A_GRANTED] -= objects[s, O_GRANTED]
