"""Interrupts of a trace: from the events of entry and exit to handlers that used a CPU for a while."""

from typing import NamedTuple

import numpy as np

from kmemexp.sim.tables import flag
from kmemexp.workload.stream import Handlers
from kmemexp.workload.traces import schema as sc

CONTEXT_FLAGS = np.array([0, flag.SOFT, flag.HARD, flag.HARD], np.uint8)
"""Flags of an operation, by the context it ran in (schema.CONTEXTS)."""


class Interrupts(NamedTuple):
    """Entries and exits in the order of the trace; fields as in track.Rows."""

    time_ns: np.ndarray  # int64[n], on the trace's own clock
    cpu: np.ndarray  # int16[n]
    context: np.ndarray  # int8[n]
    op: np.ndarray  # int8[n], schema.IRQ_ENTER or schema.IRQ_EXIT


def handlers(interrupts: Interrupts, origin_ns: int) -> Handlers:
    """Pair each exit with the last entry of its CPU and context; time begins at `origin_ns`.

    A handler that interrupts another one of its context ends first; what has no entry or no exit is left out, and so
    is what began before `origin_ns`.
    """
    begun: dict[tuple[int, int], list[int]] = {}
    found = []
    columns = (
        interrupts.time_ns - origin_ns,
        interrupts.cpu,
        interrupts.context,
        interrupts.op == sc.IRQ_ENTER,
    )
    for at, cpu, context, enters in zip(*(column.tolist() for column in columns), strict=True):
        stack = begun.setdefault((cpu, context), [])
        if enters:
            stack.append(at)
        elif stack and (start := stack.pop()) >= 0:
            found.append((start, cpu, context, max(at - start, 1)))
    rows = np.array(sorted(found), np.int64).reshape(-1, 4)
    flags = CONTEXT_FLAGS[rows[:, 2]]
    return Handlers(rows[:, 0], rows[:, 1].astype(np.int16), flags, rows[:, 3].astype(np.int32))
