"""Run the missing rows of a plan: submit batches, commit results as they come, stop cleanly."""

import json
import sys
import time
import uuid
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kmemexp.parts import outside
from kmemexp.store.schema import DONE, FAILED
from kmemexp.store.store import Row, Store
from kmemexp.sweep import batches, provenance
from kmemexp.sweep.ahead import Ahead
from kmemexp.sweep.batches import Target
from kmemexp.sweep.driver import Driver, Work
from kmemexp.sweep.limits import Limits
from kmemexp.sweep.progress import make_progress
from kmemexp.sweep.runners import make_runner
from kmemexp.sweep.stopping import GRACE_SECONDS, GiveUp, Stop

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

LEAST_COMPILE_SECONDS = 600.0  # before a cell is simulated though its code has not been compiled yet


class Outcome(NamedTuple):
    """What came of a plan."""

    done: int  # rows simulated now
    failed: int  # rows of the plan that stand as failed, from now or from earlier
    skipped: int  # rows that were done already
    interrupted: bool  # by a signal, with rows still missing
    seconds: float
    root: str
    signal: int = 0  # by which


def execute(
    plan: "Plan", *, progress: bool | None = None, elsewhere: Sequence[str] = (), only: Container[Row] | None = None
) -> Outcome:
    """Simulate the rows of a plan that are missing (and the failed ones, if it says so) and commit them.

    Rows that one of the results folders `elsewhere` has are copied from there; `only` limits what is simulated.

    Ctrl-C, SIGTERM and SIGHUP drain: nothing more is submitted, what is in work is committed. A second one gives that
    up too. `progress` is None for a bar or lines on stderr, False for silence. Raises InputError where the user must do
    something first.
    """
    started = time.monotonic()
    store = Store(plan.root, write=True)
    for path in store.strays:
        sys.stderr.write(f"{store.root}: no manifest names {path}; it is in _quarantine/ now\n")
    try:
        rows = plan.rows
        for root in elsewhere:
            store.adopt(Store(root), rows, plan.axes)
        before = store.done()
        if before:
            store.note_axes(plan.axes)
        kept = {row for row, status in before.items() if status == DONE or not plan.retry_failed}
        if only is not None:
            kept.update(row for row in rows if row not in only)
        stop = Stop(plan.cluster.get("grace_s", GRACE_SECONDS))
        if any(row not in kept for row in rows):
            _run(plan, store, kept, stop, progress)
    finally:
        store.close()
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
        signal=stop.signal,
    )


def _run(plan: "Plan", store: Store, kept: set[Row], stop: Stop, progress: bool | None) -> None:
    """Simulate what is missing, with its record in `_run.json`."""
    replicas = range(plan.replicas)
    keys = plan.columns["cell_key"]
    lanes = [sum((key, r) not in kept for r in replicas) for key in keys]
    amount = sum(n * ops for n, ops in zip(lanes, plan.columns["est_ops"], strict=True))
    configs = [json.loads(text) for n, text in zip(lanes, plan.columns["config"], strict=True) if n]
    record = provenance.new_run(plan.name, uuid.uuid4().hex, keys, replicas)
    provenance.put(store, record)
    for name, text in {name: text for config in configs for name, text in outside.texts(config).items()}.items():
        store.write_text(name, text)
    limits = Limits(plan.limits.get("seconds"), plan.limits.get("memory"), plan.limits.get("steps_per_operation"))
    target = Target(store.uri, store.writer, limits)
    runner = make_runner(plan.cluster, target)
    with make_progress(progress, sum(lanes), amount) as shown, stop.listening():
        ahead = Ahead(plan.simulate, configs, shown)
        try:
            ahead.start()
            runner.start()
            stop.listen()  # Ray has taken signals for itself
            todo = batches.make_batches(
                plan.cells, replicas, kept, cpus=runner.cpus(), simulate=plan.simulate,
                target_seconds=plan.cluster.get("batch_s") or batches.TARGET_SECONDS,
            )  # fmt: skip
            work = Work(
                runner, store, target, record["id"], stop, shown, plan.max_failures,
                max(limits.seconds or 0.0, LEAST_COMPILE_SECONDS),
            )  # fmt: skip
            Driver(work).drive(todo, ahead)
        except GiveUp:
            pass
        finally:
            ahead.stop()
            runner.close()
    record |= {
        "ended": provenance.now(),
        "outcome": stop.reason or "complete",
        "rows": shown.done,
        "failed": shown.failed,
    }
    provenance.put(store, record)
