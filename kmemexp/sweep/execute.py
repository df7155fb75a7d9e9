"""Run the missing rows of a plan: submit batches, commit results as they come, stop cleanly."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kmemexp.parts import outside
from kmemexp.store.schema import DONE, FAILED
from kmemexp.store.store import Row, Store
from kmemexp.sweep import batches, provenance, worker
from kmemexp.sweep.ahead import Ahead
from kmemexp.sweep.batches import Batch
from kmemexp.sweep.progress import Quiet, make_progress
from kmemexp.sweep.runners import Finished, Runner, make_runner
from kmemexp.sweep.worker import BatchResult

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

POLL_SECONDS = 0.2
TRIES = 2  # crashes of a batch before it is cut in two, and of a lane before it counts as failed
ERRORS_SHOWN = 5  # different ones


class Outcome(NamedTuple):
    """What came of a plan."""

    done: int  # rows simulated now
    failed: int  # rows of the plan that stand as failed, from now or from earlier
    skipped: int  # rows that were done already
    interrupted: bool  # by Ctrl-C, with rows still missing
    seconds: float
    root: str


class _Stop:
    """Whether to submit no more batches, and why."""

    def __init__(self) -> None:
        self.reason = ""
        self.interrupted = False


def execute(plan: "Plan", *, progress: bool | None = None, elsewhere: Sequence[str] = ()) -> Outcome:
    """Simulate the rows of a plan that are missing (and the failed ones, if it says so) and commit them.

    Rows that one of the results folders `elsewhere` has are copied from there.

    Ctrl-C drains: nothing more is submitted, what is in work is committed. A second one gives that up too. `progress`
    is None for a bar or lines on stderr, False for silence. Raises InputError where the user must do something first.
    """
    started = time.monotonic()
    store = Store(plan.root, write=True)
    rows = plan.rows
    for root in elsewhere:
        store.adopt(Store(root), rows, plan.axes)
    before = store.done()
    kept = {row for row, status in before.items() if status == DONE or not plan.retry_failed}
    stop = _Stop()
    if any(row not in kept for row in rows):
        _run(plan, store, kept, stop, progress)
    after = store.done()
    now = [after.get(row) for row in rows]
    skipped = sum(before.get(row) == DONE for row in rows)
    missing = now.count(None)
    if stop.reason and missing:
        sys.stderr.write(
            f"{stop.reason}: {len(rows) - missing:,} of {len(rows):,} rows are in {store.root}. To go on from there:\n"
            f"  {provenance.command()}\n"
        )
    return Outcome(
        done=now.count(DONE) - skipped,
        failed=now.count(FAILED),
        skipped=skipped,
        interrupted=stop.interrupted and missing > 0,
        seconds=time.monotonic() - started,
        root=store.root,
    )


def _run(plan: "Plan", store: Store, kept: set[Row], stop: _Stop, progress: bool | None) -> None:
    """Simulate what is missing, with its record in `_run.json`."""
    replicas = range(plan.replicas)
    keys = plan.columns["cell_key"]
    lanes = [sum((key, r) not in kept for r in replicas) for key in keys]
    work = sum(n * ops for n, ops in zip(lanes, plan.columns["est_ops"], strict=True))
    configs = [json.loads(text) for n, text in zip(lanes, plan.columns["config"], strict=True) if n]
    record = provenance.new_run(plan.name, uuid.uuid4().hex, keys, replicas)
    store.write_text("_run.json", provenance.appended(store.read_text("_run.json"), record))
    for name, text in {name: text for config in configs for name, text in outside.texts(config).items()}.items():
        store.write_text(name, text)
    runner = make_runner(plan.cluster, store.uri)
    with make_progress(progress, sum(lanes), work) as shown, _draining(stop):
        ahead = Ahead(plan.simulate, configs, shown)
        try:
            ahead.start()
            runner.start()
            todo = batches.make_batches(
                plan.cells, replicas, kept, cpus=runner.cpus(), simulate=plan.simulate,
                target_seconds=plan.cluster.get("batch_s") or batches.TARGET_SECONDS,
            )  # fmt: skip
            _Driver(runner, store, record["id"], stop, shown, plan.max_failures).drive(todo, ahead)
        except KeyboardInterrupt:
            stop.reason, stop.interrupted = "interrupted", True
        finally:
            ahead.stop()
            runner.close()
    record |= {
        "ended": provenance.now(),
        "outcome": stop.reason or "complete",
        "rows": shown.done,
        "failed": shown.failed,
    }
    store.write_text("_run.json", provenance.appended(store.read_text("_run.json"), record))


@contextlib.contextmanager
def _draining(stop: _Stop) -> Iterator[None]:
    """Turn the first Ctrl-C into a request to stop; the second one is a KeyboardInterrupt as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return

    def on_signal(number: int, frame: Any) -> None:
        if stop.interrupted:
            raise KeyboardInterrupt
        stop.reason, stop.interrupted = "interrupted", True
        os.write(2, b"\nstopping when the batches in work are done; Ctrl-C again gives them up\n")

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Driver:
    """Keeps a runner busy and commits what it gives back."""

    def __init__(
        self, runner: Runner, store: Store, run: str, stop: _Stop, shown: Quiet, max_failures: int | None
    ) -> None:
        self.runner, self.store, self.run = runner, store, run
        self.stop, self.shown, self.max_failures = stop, shown, max_failures
        self.waiting: deque[Batch] = deque()
        self.running = 0
        self.crashes: dict[str, int] = {}  # by batch id
        self.errors: set[str] = set()

    def drive(self, todo: Sequence[Batch], ahead: Ahead) -> None:
        """Work until everything is committed, or until `stop` is set and what is in work is committed.

        While designs are being compiled, batches wait whose code is not there. Raises InputError for one refused.
        """
        self.waiting.extend(todo)
        while self.running or (self.waiting and not self.stop.reason and not ahead.refused):
            while self.running < self.runner.window() and (batch := self._next(ahead)):
                if not (self.running or self.shown.done):
                    self.shown.begin()
                self.runner.submit(batch, self.crashes.get(batch.id, 0))
                self.running += 1
            if not self.running:
                ahead.wait(POLL_SECONDS)
                continue
            finished = self.runner.poll(POLL_SECONDS)
            self.running -= len(finished)
            self._commit([done for f in finished if (done := self._settled(f))])
        if ahead.refused:
            raise ahead.refused

    def _next(self, ahead: Ahead) -> Batch | None:
        """Take the next batch that can be simulated; of one that can in part, that part."""
        if self.stop.reason or ahead.refused:
            return None
        if ahead.done:
            return self.waiting.popleft() if self.waiting else None
        for place, batch in enumerate(self.waiting):
            now, later = batches.divided(batch, ahead.ready)
            if now:
                del self.waiting[place]
                if later:
                    self.waiting.insert(place, later)
                return now
        return None

    def _settled(self, finished: Finished) -> tuple[Batch, BatchResult] | None:
        """Give the batch back with its result; without one, queue it again, whole or in halves, and give None."""
        batch = finished.batch
        if finished.result:
            return batch, finished.result
        crashes = self.crashes.get(batch.id, 0) + 1
        if crashes >= TRIES and batch.lanes == 1:
            return batch, worker.stage_failures(batch, self.store.uri, finished.crash)
        again = batches.halves(batch) if crashes >= TRIES else (batch,)
        self.crashes.update((each.id, 1) for each in again)
        self.waiting.extendleft(reversed(again))
        return None

    def _commit(self, settled: Sequence[tuple[Batch, BatchResult]]) -> None:
        if not settled:
            return
        self.store.commit([staged for _, result in settled for staged in result.staged], self.run)
        for batch, result in settled:
            self.shown.advance(batch.lanes, len(result.errors), batch.est_ops)
            for error in result.errors:
                if error not in self.errors and len(self.errors) < ERRORS_SHOWN:
                    self.errors.add(error)
                    self.shown.note(f"failed: {error}")
        if self.max_failures and self.shown.failed >= self.max_failures and not self.stop.reason:
            self.stop.reason = f"stopped after {self.shown.failed} failed rows (max_failures={self.max_failures})"
