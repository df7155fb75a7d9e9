"""What things cost on a machine: places in the cost table (int64[K_COUNT], ns unless said otherwise).

The numbers come from conf/cost/, one file per era, each line with its source. A machine without costs is all zeros.
"""

from collections.abc import Mapping

import numpy as np

from kmemexp.sim.engine.machine import G_COST0

NAMES = (
    "alloc", "free", "item", "spl", "critical", "lock", "move_near", "move_far", "switch", "interrupt", "ipi_send",
    "ipi", "ipi_cpu", "map", "walk", "page", "shootdown", "shootdown_cpu", "shootdown_page", "socket_cpus",
)  # fmt: skip
(
    K_ALLOC,  # one step of an allocation, without its lock
    K_FREE,  # one step of a free
    K_ITEM,  # each item that a step threads on a list beyond the one that it hands out (R_WORK)
    K_SPL,  # raising and lowering the software interrupt mask
    K_CRITICAL,  # entering and leaving a critical section
    K_LOCK,  # taking and releasing a lock that was last held on this CPU
    K_MOVE_NEAR,  # more, if it was last held on another CPU of the same socket
    K_MOVE_FAR,  # more, if on another socket
    K_SWITCH,  # switching to a thread that had slept
    K_INTERRUPT,  # entering and leaving an interrupt handler
    K_IPI_SEND,  # sending a message to another CPU, at the sender
    K_IPI,  # until it arrives, with two CPUs
    K_IPI_CPU,  # more, for each further CPU of the machine
    K_MAP,  # an operation on a map, without searching
    K_WALK,  # each map entry that a linear search passes
    K_PAGE,  # allocating or freeing a physical page and entering it in the page tables
    K_SHOOTDOWN,  # TLB shootdown, with one other CPU
    K_SHOOTDOWN_CPU,  # more, for each further CPU
    K_SHOOTDOWN_PAGE,  # more, for each page
    K_SOCKET_CPUS,  # CPUs per socket, a count
) = range(G_COST0, G_COST0 + len(NAMES))
K_COUNT = len(NAMES)


def table(cost: Mapping[str, float], cpus: int) -> np.ndarray:
    """Return the cost table, int64[K_COUNT], for a machine of `cpus` CPUs.

    `cost` holds NAMES with the suffix `_ns` (`socket_cpus` without). What grows with the number of CPUs is added up
    here: a message's way (K_IPI) and a shootdown (K_SHOOTDOWN; none on one CPU).
    """
    row = np.array([round(cost.get(n if n == "socket_cpus" else f"{n}_ns", 0)) for n in NAMES], np.int64)
    at = {name: i for i, name in enumerate(NAMES)}
    row[at["ipi"]] += row[at["ipi_cpu"]] * max(cpus - 2, 0)
    row[at["shootdown"]] += row[at["shootdown_cpu"]] * max(cpus - 2, 0)
    if cpus == 1:
        row[[at["shootdown"], at["shootdown_page"]]] = 0
    row[at["socket_cpus"]] = max(row[at["socket_cpus"]], 1)
    return row
