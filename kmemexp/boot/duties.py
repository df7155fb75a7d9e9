"""What happens by the clock in a lane beside its operations: the allocators' own upkeep, and a policy's (conf/policy/).

A policy may ask the allocators to give back what they can spare every `trim_s` seconds, or look at kernel_map every
`watch_s` seconds and ask them only when its largest free run is below `floor_bytes`; or move ranges every `move_s`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

TICK, TRIM, WATCH, SHRINK, LOOK, MOVE = range(6)
STEPS = 4  # in which a period of `move_s` passes with a clock: choosing, taking, giving back, and one to spare
SHRINK_NS = 100_000_000  # HZ / 10, for which kswapd and throttled requests wait


class Duty(NamedTuple):
    """Something that recurs."""

    what: int  # TICK, TRIM, WATCH, SHRINK, LOOK or MOVE
    place: int  # TICK, LOOK: of the allocator
    every_ns: int


def duties(ticks: tuple[int, ...], policy: Mapping[str, Any], looks: tuple[int, ...] = ()) -> list[Duty]:
    """List what recurs: the ticks of the allocators, by place, when threads of theirs look, and a policy's duties."""
    each = ((TICK, ticks), (LOOK, looks))
    found = [Duty(what, place, ns) for what, every in each for place, ns in enumerate(every) if ns]
    for what, key in ((TRIM, "trim_s"), (WATCH, "watch_s"), (MOVE, "move_s")):
        if ns := round(policy.get(key, 0) * 1e9):
            found.append(Duty(what, 0, ns))
    return found
