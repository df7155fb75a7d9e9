"""What an allocator's step says to the driver, spelled out once; what an arena says that has nothing special to say.

What a kernel here returns is the answer that the step gives, unless its docstring says otherwise.
"""

from typing import Any

from kmemexp.jit import kernel
from kmemexp.sim import slots
from kmemexp.sim.aliases import Address, Bytes, MapNo, Registers
from kmemexp.sim.tables import flag, obj, panics, regs


@kernel
def hand_out(reg: Registers, i: int, addr: Address, granted: int) -> int:
    """End an allocation with a chunk of `granted` bytes."""
    reg[i, regs.ADDR] = addr
    reg[i, regs.GRANTED] = granted
    return slots.DONE


@kernel
def go_on(reg: Registers, i: int, phase: int, lock: int) -> int:
    """Go on in `phase` under another lock (regs.LOCK)."""
    reg[i, regs.PHASE] = phase
    reg[i, regs.LOCK] = lock
    return slots.AGAIN


@kernel
def sleep_on(reg: Registers, i: int, phase: int, lock: int, channel: int, within_ns: int) -> int:
    """Sleep until somebody frees what `channel` stands for, then go on in `phase` under a lock (-1: the first one)."""
    reg[i, regs.PHASE] = phase
    reg[i, regs.LOCK] = lock
    reg[i, regs.CHANNEL] = channel
    reg[i, regs.WITHIN] = within_ns
    return slots.SLEEP


@kernel
def let_go(reg: Registers, i: int, channel: int, how_many: int) -> None:
    """Let sleepers of a channel go on when the operation ends: so many more, or regs.WAKE_*."""
    if reg[i, regs.WAKE] == channel + 1 and reg[i, regs.WAKES] > 0 and how_many > 0:
        reg[i, regs.WAKES] += how_many
    else:
        reg[i, regs.WAKE] = channel + 1
        reg[i, regs.WAKES] = how_many


@kernel
def refused(reg: Registers, i: int, panic: int) -> int:
    """Fail because a map has refused: without space the kernel dies of `panic`, if the request may wait."""
    if not out_of_entries(reg, i) and reg[i, regs.BASE] == slots.NO_SPACE and reg[i, regs.FLAGS] & flag.NOWAIT == 0:
        reg[i, regs.PANIC] = panic
    return slots.FAILED


@kernel
def out_of_entries(reg: Registers, i: int) -> bool:
    """Return whether the map had no entry left. If so, note the panic: any kernel dies of it."""
    if reg[i, regs.BASE] != slots.NO_ENTRY:
        return False
    reg[i, regs.PANIC] = panics.ENTRIES
    return True


@kernel
def ask_wired(reg: Registers, i: int, phase: int, map_no: MapNo, nbytes: Bytes, align: int) -> int:
    """Ask map `map_no` for wired memory; the operation goes on in `phase`."""
    reg[i, regs.PHASE] = phase
    reg[i, regs.MAP] = map_no
    reg[i, regs.BYTES] = nbytes
    reg[i, regs.ALIGN] = align
    reg[i, regs.ATTR] = slots.ATTR_WIRED
    return slots.MAP_ALLOC


@kernel
def ask_kept(reg: Registers, i: int, phase: int, map_no: MapNo, nbytes: Bytes, align: int) -> int:
    """Ask as `ask_wired` does, for memory that will never be given back."""
    ask_wired(reg, i, phase, map_no, nbytes, align)
    reg[i, regs.ATTR] = slots.ATTR_WIRED | slots.ATTR_NOFREE
    return slots.MAP_ALLOC


@kernel
def in_kmem_object(reg: Registers, i: int, answer: int) -> int:
    """Enter what has just been asked of a map in kmem_object, as kmem_malloc() does, and not in kernel_object."""
    reg[i, regs.ATTR] = (reg[i, regs.ATTR] & slots.ATTR_NOFREE) | slots.ATTR_KMEM
    return answer


@kernel
def ask_unmap(reg: Registers, i: int, phase: int, map_no: MapNo, base: Address, nbytes: Bytes) -> int:
    """Ask map `map_no` to take memory back; the operation goes on in `phase`."""
    reg[i, regs.PHASE] = phase
    reg[i, regs.MAP] = map_no
    reg[i, regs.BASE] = base
    reg[i, regs.BYTES] = nbytes
    return slots.MAP_FREE


@kernel
def never_fast_alloc(st: Any, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """`fast_alloc` of an allocator that has none."""
    return obj.ABSENT, 0


@kernel
def never_fast_free(st: Any, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """`fast_free` of an allocator that has none."""
    return False


@kernel
def every_free_flushes(st: Any, map_no: MapNo) -> int:
    """`map_flushes` of an arena that flushes the TLB at every free."""
    return slots.EACH_FREE


@kernel
def moves_none(st: Any, map_no: MapNo) -> int:
    """`map_moved` of an arena that always works under its map's lock."""
    return 0


@kernel
def sort_alone(reg: Registers, i: int, attr: int, server: int) -> int:
    """`map_attr` of an arena to which all who ask are alike, and all objects."""
    sort = attr & slots.ATTR_SORT
    return slots.ATTR_WIRED if sort == slots.ATTR_KMEM else sort
