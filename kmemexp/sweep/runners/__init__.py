"""Runners: where batches are simulated. Each is a module with a `Runner` class of the form given here."""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from kmemexp.errors import ConfigError
from kmemexp.sweep.batches import Batch, Target
from kmemexp.sweep.worker import BatchResult

MODULES = {"serial": "serial", "ray": "ray_runner"}


class Finished(NamedTuple):
    """A batch that has come back: with a result, or with the reason why its worker died."""

    batch: Batch
    result: BatchResult | None
    crash: str = ""


class Runner(Protocol):
    """What the driver asks of a runner. Calls come from one thread, `start` first, `close` last."""

    def __init__(self, cluster: Mapping[str, Any], target: Target) -> None:
        """`cluster` is that node of the configuration, `target` where rows are staged."""

    def start(self) -> None:
        """Get ready. Raises InputError where that takes something from the user."""

    def cpus(self) -> int:
        """CPUs that simulate, now."""

    def window(self) -> int:
        """How many batches may be with the runner at a time, now."""

    def log(self) -> str:
        """Name of the file in the results folder that tells more of a crash; "" for none."""

    def submit(self, batch: Batch, attempt: int) -> None:
        """Take a batch."""

    def poll(self, timeout: float) -> list[Finished]:
        """Batches that have finished since; waits up to `timeout` seconds for the first one.

        Raises what a worker raised outside a cell's simulation: the store is full, a module is missing.
        """

    def collected(self) -> list[Finished]:
        """Batches that have finished and that no `poll` has returned, because it was interrupted."""

    def close(self) -> None:
        """Give back everything, including batches still in work."""


def make_runner(cluster: Mapping[str, Any], target: Target) -> Runner:
    """Make the runner that the configuration names."""
    name = cluster.get("runner", "ray")
    if name not in MODULES:
        raise ConfigError(f"cluster.runner={name}: there are {', '.join(sorted(MODULES))}")
    runner: Runner = importlib.import_module(f"{__name__}.{MODULES[name]}").Runner(cluster, target)
    return runner
