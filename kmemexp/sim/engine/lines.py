"""Cache lines of objects: whose cache an object's first line is in, and what it costs to fetch it from another CPU's.

An allocator writes a link into what it frees and reads it when it hands that out again; between the two the object is
used, by the CPU that asked for it. So an object that one CPU frees and another one gets, or that another CPU frees than
got it, moves once each time, as a lock does. The caches of all CPUs together are one direct-mapped table: what is not
in it has to come from memory, whoever asks, and costs no more than the allocator's own figures say. Left out: further
lines of an object, headers of slabs apart from what their locks cost.
"""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Address, Cpu, Memory, Ns
from kmemexp.sim.engine import costs
from kmemexp.sim.engine.tables import cpu, glob

LINES = 1 << 15  # 2 MiB in all
LINE_SHIFT = 6
CPU_BITS = 12  # of an entry; the rest is the line's number


@kernel
def place_of(m: Memory, line: int) -> int:
    """Where the table holds a line, if it does."""
    return m[glob.LINES] + ((line ^ (line >> 15)) & (LINES - 1))


@kernel
def fetch_line(m: Memory, c: Cpu, addr: Address) -> Ns:
    """CPU `c` touches the object at `addr`. Returns ns, if its line was in another CPU's cache."""
    line, number = addr >> LINE_SHIFT, m[c + cpu.NUMBER]
    at = place_of(m, line)
    was = m[at]
    m[at] = line << CPU_BITS | number
    last = was & ((1 << CPU_BITS) - 1)
    if was >> CPU_BITS != line or last == number:
        return 0
    return m[costs.MOVE_NEAR if last // m[costs.SOCKET_CPUS] == number // m[costs.SOCKET_CPUS] else costs.MOVE_FAR]
