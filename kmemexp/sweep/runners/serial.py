"""Simulates in this process, one batch after the other: for debugging, profiling and machines without Ray."""

from collections.abc import Mapping
from typing import Any

from kmemexp.sweep.batches import Batch
from kmemexp.sweep.runners import Finished
from kmemexp.sweep.worker import run_batch


class Runner:
    """See `runners.Runner`. A batch is simulated by the `poll` after its `submit`."""

    def __init__(self, cluster: Mapping[str, Any], root: str) -> None:
        self._root = root
        self._waiting: list[tuple[Batch, int]] = []

    def start(self) -> None:
        """Nothing to do."""

    def cpus(self) -> int:
        """One: this process."""
        return 1

    def window(self) -> int:
        """One batch at a time, so that the driver can commit and stop between any two."""
        return 1

    def submit(self, batch: Batch, attempt: int) -> None:
        """Keep the batch for `poll`."""
        self._waiting.append((batch, attempt))

    def poll(self, timeout: float) -> list[Finished]:
        """Simulate the batch that is waiting, however long it takes."""
        if not self._waiting:
            return []
        batch, attempt = self._waiting.pop(0)
        return [Finished(batch, run_batch(batch, self._root, attempt))]

    def close(self) -> None:
        """Drop what is waiting."""
        self._waiting.clear()
