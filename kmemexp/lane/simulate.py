"""Run one lane: play a stream in chunks between samples, look at the maps at each sample, sum up the metrics."""

import functools
import json
from collections.abc import Mapping, Sequence

from kmemexp.boot import timed
from kmemexp.boot.machine import boot
from kmemexp.lane import timed as timed_lane
from kmemexp.lane.model import Lane, Sampling
from kmemexp.lane.replayed import run, watching
from kmemexp.workload import stability
from kmemexp.workload.build import build
from kmemexp.workload.stream import Load


def simulate_lanes(config: Mapping, replicas: Sequence[int]) -> list[Lane]:
    """Simulate replicas of a cell (its canonical configuration as a plain dict), one lane each. Raises ConfigError."""
    config = stability.routed(config)
    load = _load(json.dumps(config["workload"], sort_keys=True), config["machine"]["cpus"], config["seed"],
                 tuple(replicas))  # fmt: skip
    load = stability.protect(load, config, replicas, reads=not timed.is_timed(config))
    sampling = Sampling(**config["sample"])
    if timed.is_timed(config):
        handlers = load.handlers or (None,) * len(replicas)
        return [
            timed_lane.run(config, load.kinds, stream, sampling, replica, recorded)
            for replica, stream, recorded in zip(replicas, load.streams, handlers, strict=True)
        ]
    lanes = []
    watched = load.watched or (None,) * len(replicas)
    for replica, stream, references in zip(replicas, load.streams, watched, strict=True):
        machine = watching(boot(config, load.kinds, stream.slots), references, config["machine"]["kva_bytes"])
        lanes.append(run(machine, stream, sampling, replica, config["policy"]))
    return lanes


@functools.lru_cache(maxsize=2)
def _load(workload: str, cpus: int, seed: int, replicas: tuple[int, ...]) -> Load:
    """Streams of the cells last simulated: the designs of a group of cells see the same ones."""
    return build(json.loads(workload), cpus=cpus, seed=seed, replicas=replicas)
