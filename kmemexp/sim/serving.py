"""What both drivers do for an operation: call its server, carry out map steps, keep the table of objects.

Register row `i` belongs to the operation (0 in the driver without a clock, the context's number in the timed one).
"""

from typing import Any

from kmemexp.jit import kernel, template
from kmemexp.sim import slots
from kmemexp.sim.aliases import Address, Bytes, Registers, Table, Words
from kmemexp.sim.asking import let_go, sleep_on
from kmemexp.sim.maps import EXEC
from kmemexp.sim.probes import SERVER_A, SERVER_B, SERVER_MAP
from kmemexp.sim.slots import (
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
from kmemexp.sim.tables import flag, obj, panics, regs, tally

SLEPT = 2  # phase of `direct`


@template
def step(state_a: Any, state_b: Any, state_c: Any, reg: Registers, i: int, server: int, freeing: int) -> int:
    """Let the server of the operation take one step. Returns its answer."""
    if server == SERVER_MAP:
        return direct(reg, i, freeing)
    if freeing:
        if server == SERVER_A:
            return free_a(state_a, reg, i)
        if server == SERVER_B:
            return free_b(state_b, reg, i)
        return free_c(state_c, reg, i)
    if server == SERVER_A:
        return alloc_a(state_a, reg, i)
    if server == SERVER_B:
        return alloc_b(state_b, reg, i)
    return alloc_c(state_c, reg, i)


@template
def tend_step(state_a: Any, state_b: Any, state_c: Any, reg: Registers, i: int, server: int) -> int:
    """Let an allocator take one step of its upkeep. Returns its answer."""
    if server == SERVER_A:
        return tend_a(state_a, reg, i)
    if server == SERVER_B:
        return tend_b(state_b, reg, i)
    return tend_c(state_c, reg, i)


@kernel
def moved(objects: Table, counters: Words, reg: Registers, i: int, freeing: int) -> None:
    """Enter the new address of an object that an allocator has moved; refuse (regs.BASE = -1) if it is being freed."""
    row = reg[i, regs.OBJECT]
    if objects[row, obj.ADDR] == reg[i, regs.ADDR] and not freeing:
        objects[row, obj.ADDR] = reg[i, regs.BASE]
        counters[tally.MOVES] += 1
        counters[tally.MOVED] += objects[row, obj.SIZE]
    else:
        reg[i, regs.BASE] = -1


@template
def direct(reg: Registers, i: int, freeing: int) -> int:
    """One step of an operation that a map serves by itself: ask the map, then take its answer.

    regs.ITEM: 0, or log2 of the unit that the size is counted in. In exec_map who finds no room sleeps until somebody
    leaves it: kmem_alloc_wait(), kmem_free_wakeup().
    """
    if reg[i, regs.PHASE] == SLEPT and reg[i, regs.FLAGS] & flag.NOWAIT:
        return slots.FAILED
    if reg[i, regs.PHASE] != 1:
        reg[i, regs.PHASE] = 1
        reg[i, regs.BYTES] = ((reg[i, regs.SIZE] << reg[i, regs.ITEM]) + slots.PAGE - 1) & -slots.PAGE
        reg[i, regs.ALIGN] = slots.PAGE
        if freeing:
            reg[i, regs.BASE] = reg[i, regs.ADDR]
            return slots.MAP_FREE
        return slots.MAP_ALLOC
    if reg[i, regs.MAP] == EXEC:
        if freeing:
            let_go(reg, i, EXEC, regs.WAKE_ALL)
        elif reg[i, regs.BASE] == slots.NO_SPACE and not reg[i, regs.FLAGS] & flag.NOWAIT:
            return sleep_on(reg, i, SLEPT, -1, EXEC, 0)
    if not freeing:
        reg[i, regs.ADDR] = reg[i, regs.BASE]
    return slots.FAILED if reg[i, regs.BASE] < 0 else slots.DONE


@template
def map_step(
    arena: Any, counters: Words, reg: Registers, i: int, answer: int, account: int, server: int, op: int
) -> None:
    """Carry out what a step asked of the map: MAP_ALLOC, MAP_FREE or WIRE. Refusals are told apart and counted."""
    map_no, nbytes, cpu = reg[i, regs.MAP], reg[i, regs.BYTES], reg[i, regs.CPU]
    if answer == slots.MAP_ALLOC:
        counters[tally.MAP_OPS] += 1
        addr = map_alloc(arena, map_no, nbytes, reg[i, regs.ALIGN], map_attr(reg, i, reg[i, regs.ATTR], server), cpu)
        reg[i, regs.BASE] = addr
        if addr >= 0:
            counters[account] += nbytes
        elif addr == slots.NO_ENTRY:
            reg[i, regs.PANIC] = panics.ENTRIES
        elif addr == slots.RECURSES:
            reg[i, regs.PANIC] = panics.RECURSION
        elif map_free_bytes(arena, map_no) >= nbytes:
            counters[tally.FRAGMENTED] += 1
        else:
            counters[tally.EXHAUSTED] += 1
    elif answer == slots.MAP_FREE:
        counters[tally.MAP_OPS] += 1
        answer = map_free(arena, map_no, reg[i, regs.BASE], nbytes, cpu)
        if answer < 0:
            note_panic(counters, panics.RECURSION if answer == slots.RECURSES else panics.ENTRIES, op)
        else:
            counters[account] -= nbytes
    else:
        reg[i, regs.BASE] = 0
        counters[account] += nbytes
    if counters[tally.HELD] > counters[tally.HELD_PEAK]:
        counters[tally.HELD_PEAK] = counters[tally.HELD]
        counters[tally.REQUESTED_AT_PEAK] = counters[tally.REQUESTED]


@template
def note_panic(counters: Words, panic: int, op: int) -> None:
    """Count a panic and remember the first."""
    if counters[tally.PANICS] == 0:
        counters[tally.PANIC] = panic
        counters[tally.PANIC_OP] = op
    counters[tally.PANICS] += 1


@template
def remember(objects: Table, counters: Words, reg: Registers, i: int, row: int, server: int) -> None:
    """Enter a new object in row `row` of the table and in the totals, as the registers say."""
    if server == SERVER_MAP:
        objects[row, obj.ADDR] = reg[i, regs.ADDR]
        objects[row, obj.SIZE] = reg[i, regs.SIZE]
        counters[tally.ALLOCS] += 1
    else:
        enter(objects, counters, row, reg[i, regs.ADDR], reg[i, regs.SIZE], reg[i, regs.GRANTED])


@template
def enter(objects: Table, counters: Words, row: int, addr: Address, size: Bytes, granted: Bytes) -> None:
    """Enter an object of an allocator in row `row` of the table and in the totals."""
    objects[row, obj.ADDR] = addr
    objects[row, obj.SIZE] = size
    objects[row, obj.GRANTED] = granted
    counters[tally.ALLOCS] += 1
    counters[tally.REQUESTED] += size
    counters[tally.GRANTED] += granted
    counters[tally.REQUESTED_TOTAL] += size
    counters[tally.GRANTED_TOTAL] += granted
    if counters[tally.REQUESTED] > counters[tally.REQUESTED_PEAK]:
        counters[tally.REQUESTED_PEAK] = counters[tally.REQUESTED]
        counters[tally.HELD_AT_PEAK] = counters[tally.HELD]


@template
def forget(objects: Table, counters: Words, row: int, server: int) -> None:
    """Take an object out of the table and of the totals."""
    objects[row, obj.ADDR] = obj.ABSENT
    counters[tally.FREES] += 1
    if server != SERVER_MAP:
        counters[tally.REQUESTED] -= objects[row, obj.SIZE]
        counters[tally.GRANTED] -= objects[row, obj.GRANTED]
