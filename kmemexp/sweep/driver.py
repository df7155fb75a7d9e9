"""Keeps a runner busy and commits what it gives back."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kmemexp.errors import StoreError
from kmemexp.store.store import Store
from kmemexp.sweep import batches, verdicts, worker
from kmemexp.sweep.ahead import Ahead
from kmemexp.sweep.batches import Batch, Target
from kmemexp.sweep.progress import Quiet
from kmemexp.sweep.runners import Finished, Runner
from kmemexp.sweep.stopping import GiveUp, Stop
from kmemexp.sweep.worker import BatchResult

POLL_SECONDS = 0.2
TRIES = 2  # crashes of a batch before it is cut in two, and of a lane before it counts as failed
LOOK_AHEAD = 1000  # batches in which one is sought whose code is there
LOSSES = 5  # times that a batch's staged files may vanish before the run ends
ERRORS_SHOWN = 5  # different ones

Settled = tuple[Batch, BatchResult]


class Work(NamedTuple):
    """What a driver works with."""

    runner: Runner
    store: Store
    target: Target
    run: str  # its id
    stop: Stop
    shown: Quiet
    max_failures: int | None
    compile_seconds: float = float("inf")  # after which cells are simulated though their code is not there


class Driver:
    """Keeps a runner busy and commits what it gives back."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.waiting: deque[Batch] = deque()
        self.coming: Iterator[Batch] = iter(())
        self.running = self.lanes = 0  # batches in work, and their rows
        self.crashes: dict[str, int] = {}  # by batch id
        self.losses: dict[str, int] = {}
        self.errors: set[str] = set()
        self.crashed: set[str] = set()  # kinds of crashes

    def drive(self, todo: Iterable[Batch], ahead: Ahead) -> None:
        """Work until everything is committed, or until `stop` is set and what is in work is committed.

        While designs are being compiled, batches wait whose code is not there. Raises InputError for one refused.
        """
        runner, stop = self.work.runner, self.work.stop
        self.coming = iter(todo)
        try:
            while self.running or (not stop.reason and not ahead.refused and self._more(1)):
                self._submit(ahead)
                self.work.store.beat(self.work.shown.state(self.lanes))
                self.work.shown.tick()
                with stop.interruptible():
                    if not self.running:
                        ahead.wait(POLL_SECONDS)
                        continue
                    finished = runner.poll(POLL_SECONDS)
                self.running -= len(finished)
                self.lanes -= sum(f.batch.lanes for f in finished)
                self._commit([done for f in finished if (done := self._settled(f))])
        except GiveUp:  # what has come back already is kept
            self._commit([done for f in runner.collected() if (done := self._settled(f))])
        if ahead.refused:
            raise ahead.refused

    def _submit(self, ahead: Ahead) -> None:
        work = self.work
        while self.running < work.runner.window() and (batch := self._next(ahead)):
            if not (self.running or work.shown.done):
                work.shown.begin()
            work.runner.submit(batch, self.crashes.get(batch.id, 0))
            self.running += 1
            self.lanes += batch.lanes

    def _next(self, ahead: Ahead) -> Batch | None:
        """Take the next batch that can be simulated; of one that can in part, that part."""
        if self.work.stop.reason or ahead.refused:
            return None
        if ahead.done or ahead.seconds > self.work.compile_seconds:
            return self.waiting.popleft() if self._more(1) else None
        self._more(LOOK_AHEAD)
        for place, batch in enumerate(self.waiting):
            now, later = batches.divided(batch, ahead.ready)
            if now:
                del self.waiting[place]
                if later:
                    self.waiting.insert(place, later)
                return now
        return None

    def _more(self, count: int) -> bool:
        """Take so many batches from those that come, if there are. Whether any waits."""
        while len(self.waiting) < count and (batch := next(self.coming, None)):
            self.waiting.append(batch)
        return bool(self.waiting)

    def _settled(self, finished: Finished) -> Settled | None:
        """Give the batch back with its result; without one, queue again what is not known to kill its worker."""
        batch, target = finished.batch, self.work.target
        if finished.result:
            return batch, finished.result
        attempt = self.crashes.get(batch.id, 0)
        if verdict := verdicts.take(target, batch, attempt):
            guilty, others = batches.divided_by(batch, verdict.cells)
            self._again([*([others] if others else []), *(batches.single(guilty) if guilty.lanes > 1 else [])], 0)
            return (guilty, worker.stage_failures(guilty, target, verdict.error)) if guilty.lanes == 1 else None
        self._note_crash(finished.crash)
        if attempt + 1 >= TRIES and batch.lanes == 1:
            return batch, worker.stage_failures(batch, target, finished.crash)
        self._again(batches.halves(batch) if attempt + 1 >= TRIES else (batch,), 1)
        return None

    def _again(self, again: Sequence[Batch], crashes: int) -> None:
        self.crashes.update((each.id, crashes) for each in again)
        self.waiting.extendleft(reversed(again))

    def _commit(self, settled: Sequence[Settled]) -> None:
        if not settled:
            return
        work = self.work
        committed = work.store.commit([staged for _, result in settled for staged in result.staged], work.run)
        lost = {each.id: each for each in committed.lost}
        for batch, result in settled:
            gone = [lost[staged.id] for staged in result.staged if staged.id in lost]
            for each in gone:
                self._lost(batches.divided_by(batch, each.cells)[0])
            errors = result.errors[: sum(f.lanes for f in result.staged if f.id not in lost and f.status == "failed")]
            rows = batch.lanes - sum(each.lanes for each in gone)
            work.shown.advance(rows, len(errors), batch.est_ops * rows // batch.lanes)
            self._note(errors)
        work.store.merge_small(work.run)
        if work.max_failures and work.shown.failed >= work.max_failures and not work.stop.reason:
            work.stop.reason = f"stopped after {work.shown.failed} failed rows (max_failures={work.max_failures})"

    def _lost(self, batch: Batch) -> None:
        """Queue again what has been staged and is gone."""
        self.losses[batch.id] = self.losses.get(batch.id, 0) + 1
        if self.losses[batch.id] >= LOSSES:
            raise StoreError(
                f"{self.work.store.root}: files vanish from _staging/ again and again, before they are committed. Is "
                "something else deleting them?"
            )
        self.work.shown.note("staged files are gone before they were committed; their rows are simulated again")
        self._again([batch], self.crashes.get(batch.id, 0))

    def _note_crash(self, crash: str) -> None:
        """Say once of each kind that workers die, and where more is told."""
        kind, log = crash.partition(":")[0], self.work.runner.log()
        if kind not in self.crashed:
            self.crashed.add(kind)
            more = f"; {self.work.store.root}/{log} tells more" if log else ""
            self.work.shown.note(f"a worker died ({kind}); what it had in work is simulated again{more}")

    def _note(self, errors: Sequence[str]) -> None:
        for error in errors:
            if error not in self.errors and len(self.errors) < ERRORS_SHOWN:
                self.errors.add(error)
                self.work.shown.note(f"failed: {error}")
