"""Operations that do not come to an end: an allocator that answers step after step."""

from collections.abc import Mapping
from typing import Any

from kmemexp.sim.aliases import Words
from kmemexp.sim.engine.machine import Stream as Queued
from kmemexp.sim.ops import ALLOC
from kmemexp.sim.tables import tally
from kmemexp.workload.stream import Stream


class RunawayError(RuntimeError):
    """An allocator does not come to the end of an operation."""


def limit_steps(counters: Words, config: Mapping[str, Any]) -> None:
    """Tell a machine that has just booted how many steps an operation may take."""
    counters[tally.MOST_STEPS] = config.get("limits", {}).get("steps_per_operation") or 0


def check_steps(counters: Words, stream: Stream | Queued) -> None:
    """Raise RunawayError where an operation, or an allocator's upkeep, took more steps than it may."""
    if not (found := int(counters[tally.RUNAWAY])):
        return
    what = "an allocator's upkeep" if found == -1 else "an operation of an interrupt's handler or of a task"
    if found > 0:
        verb = "an allocation" if stream.op[found - 1] == ALLOC else "a free"
        what = f"operation {found - 1} ({verb} of kind {stream.kind[found - 1]}, {stream.size[found - 1]} bytes)"
    raise RunawayError(f"{what} took more than limits.steps_per_operation={counters[tally.MOST_STEPS]} steps")
