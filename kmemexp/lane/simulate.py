"""Simulate replicas of a cell, one lane each.

The story of a lane: `prepare` builds its stream of operations; `timed.run` (with a clock) or `replayed.run` (without)
boots a machine and lets `sampled` take it from sample to sample; `memory.metrics`, and with a clock `latency.metrics`,
sum up what was seen; all of it together is a `Lane`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kmemexp.boot.clock import is_timed
from kmemexp.lane import replayed, timed
from kmemexp.lane.model import Lane
from kmemexp.lane.replica import prepare


def simulate_lanes(config: Mapping[str, Any], replicas: Sequence[int]) -> list[Lane]:
    """Simulate replicas of a cell (its canonical configuration as a plain dict), one lane each. Raises ConfigError."""
    run = timed.run if is_timed(config) else replayed.run
    return [run(replica) for replica in prepare(config, replicas)]
