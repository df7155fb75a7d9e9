"""Simulates in this process, one batch after the other: for debugging, profiling and machines without Ray."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from kmemexp.store.store import Store
from kmemexp.sweep.batches import Batch, Target, divided_by
from kmemexp.sweep.runners import Finished
from kmemexp.sweep.verdicts import Verdict
from kmemexp.sweep.worker import run_batch, stage_failures

EXIT_FAILED = 2


def _end_here(batch: Batch, target: Target, attempt: int, verdict: Verdict) -> None:
    """Commit the failure of a cell that cannot be stopped, and end this process, the driver's own."""
    try:
        guilty = divided_by(batch, verdict.cells)[0]
        Store(target.root, write=True).commit(stage_failures(guilty, target, verdict.error).staged)
        sys.stderr.write(
            f"\nerror: cell {min(verdict.cells)[:8]}: {verdict.error}. It cannot be stopped within this process, "
            "which ends here; it is a failed row now. Run the same command again for the rest; cluster=local goes on "
            "by itself.\n"
        )
        sys.stderr.flush()
    finally:
        os._exit(EXIT_FAILED)


class Runner:
    """See `runners.Runner`. A batch is simulated by the `poll` after its `submit`."""

    def __init__(self, cluster: Mapping[str, Any], target: Target) -> None:
        self._target = target
        self._waiting: list[tuple[Batch, int]] = []

    def start(self) -> None:
        """Nothing to do."""

    def cpus(self) -> int:
        """One: this process."""
        return 1

    def window(self) -> int:
        """One batch at a time, so that the driver can commit and stop between any two."""
        return 1

    def log(self) -> str:
        """None."""
        return ""

    def submit(self, batch: Batch, attempt: int) -> None:
        """Keep the batch for `poll`."""
        self._waiting.append((batch, attempt))

    def poll(self, timeout: float) -> list[Finished]:
        """Simulate the batch that is waiting, however long it takes."""
        if not self._waiting:
            return []
        batch, attempt = self._waiting.pop(0)
        return [Finished(batch, run_batch(batch, self._target, attempt, _end_here))]

    def collected(self) -> list[Finished]:
        """None: what is given up here has not finished."""
        return []

    def close(self) -> None:
        """Drop what is waiting."""
        self._waiting.clear()
