"""What things cost on a machine: places in the cost table (int64[costs.COLUMNS], ns unless said otherwise).

The numbers come from conf/cost/, one file per era, each line with its source. A machine without costs is all zeros.
"""

from collections.abc import Mapping

import numpy as np

from kmemexp.sim.aliases import Array
from kmemexp.sim.engine.tables import glob

NAMES = (
    "alloc", "free", "item", "spl", "critical", "lock", "move_near", "move_far", "switch", "preempt",
    "interrupt", "ipi_send",
    "ipi", "ipi_cpu", "map", "walk", "page", "shootdown", "shootdown_cpu", "shootdown_page",
    "shootdown_answer", "socket_cpus",
)  # fmt: skip
(
    ALLOC,  # one step of an allocation, without its lock
    FREE,  # one step of a free
    ITEM,  # each item that a step threads on a list beyond the one that it hands out (regs.WORK)
    SPL,  # raising and lowering the software interrupt mask
    CRITICAL,  # entering and leaving a critical section
    LOCK,  # taking and releasing a lock that was last held on this CPU
    MOVE_NEAR,  # more, if it was last held on another CPU of the same socket
    MOVE_FAR,  # more, if on another socket
    SWITCH,  # switching to a thread that had slept
    PREEMPT,  # switching to a thread of the kernel without a full switch: LWKT, illumos' interrupt threads
    INTERRUPT,  # entering and leaving an interrupt handler
    IPI_SEND,  # sending a message to another CPU, at the sender
    IPI,  # until it arrives, with two CPUs
    IPI_CPU,  # more, for each further CPU of the machine
    MAP,  # an operation on a map, without searching
    WALK,  # each map entry that a linear search passes
    PAGE,  # allocating or freeing a physical page and entering it in the page tables
    SHOOTDOWN,  # TLB shootdown, at the CPU that asks one other CPU: to its answer
    SHOOTDOWN_CPU,  # more, for each further CPU
    SHOOTDOWN_PAGE,  # more, for each page
    SHOOTDOWN_ANSWER,  # what a CPU that is asked loses, besides INTERRUPT
    SOCKET_CPUS,  # CPUs per socket, a count
) = range(glob.COST0, glob.COST0 + len(NAMES))
COLUMNS = len(NAMES)


def table(cost: Mapping[str, float], cpus: int) -> Array:
    """Return the cost table, int64[costs.COLUMNS], for a machine of `cpus` CPUs.

    `cost` holds NAMES with the suffix `_ns` (`socket_cpus` without). What grows with the number of CPUs is added up
    here: a message's way (costs.IPI) and a shootdown (costs.SHOOTDOWN; none on one CPU).
    """
    row = np.array([round(cost.get(n if n == "socket_cpus" else f"{n}_ns", 0)) for n in NAMES], np.int64)
    at = {name: i for i, name in enumerate(NAMES)}
    row[at["ipi"]] += row[at["ipi_cpu"]] * max(cpus - 2, 0)
    row[at["shootdown"]] += row[at["shootdown_cpu"]] * max(cpus - 2, 0)
    if cpus == 1:
        row[[at["shootdown"], at["shootdown_page"]]] = 0
    row[at["socket_cpus"]] = max(row[at["socket_cpus"]], 1)
    return row


def of_dispatch(row: Array, how: str) -> int:
    """Ns to dispatch an interrupt thread, and as long again to go back; `how`: one of machine.DISPATCH."""
    names = {"borrow": "", "preempt": "preempt", "switch": "switch"}
    return int(row[NAMES.index(names[how])]) if names[how] else 0
