"""Run the missing rows of a plan: submit batches, commit results as they come, stop cleanly."""

import json
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from kmemexp.parts import outside
from kmemexp.planning.texts import Texts
from kmemexp.store.layout import layout_of
from kmemexp.store.schema import DONE, FAILED
from kmemexp.store.store import Row, Store
from kmemexp.sweep import batches, provenance
from kmemexp.sweep.ahead import NODES, Ahead
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
        layout = store.take_axes(plan.axes, layout_of(plan.members or plan.columns["axes"]))
        for root in elsewhere:
            store.adopt(Store(root), plan.rows, plan.axes)
        skipped = _count(plan, store)[DONE]
        kept = _Kept(plan, store, only)
        stop = Stop(plan.cluster.get("grace_s", GRACE_SECONDS))
        lanes = [sum((key, r) not in kept for r in range(plan.replicas)) for key in plan.columns["cell_key"]]
        if any(lanes):
            target = Target(store.uri, store.writer, _limits(plan), layout)
            _run(plan, store, target, (kept, lanes), stop, progress)
    finally:
        store.close()
    now = _count(plan, store)
    missing = plan.lanes - now[DONE] - now[FAILED]
    if stop.reason and missing:
        sys.stderr.write(
            f"{stop.reason}: {plan.lanes - missing:,} of {plan.lanes:,} rows are in {store.root}. To go on from there:"
            f"\n  {provenance.command()}\n"
        )
    return Outcome(
        done=now[DONE] - skipped,
        failed=now[FAILED],
        skipped=skipped,
        interrupted=stop.interrupted and missing > 0,
        seconds=time.monotonic() - started,
        root=store.root,
        signal=stop.signal,
    )


class _Kept:
    """Rows that are not to be simulated."""

    def __init__(self, plan: "Plan", store: Store, only: Container[Row] | None) -> None:
        self._status, self._only, self._wanted = store.status, only, plan.count_of
        self._enough = (DONE,) if plan.retry_failed else (DONE, FAILED)

    def __contains__(self, row: object) -> bool:
        key, replica = cast(Row, row)
        if replica >= self._wanted(key):
            return True  # not asked for, or not yet
        return self._status(key, replica) in self._enough or (self._only is not None and row not in self._only)


def _count(plan: "Plan", store: Store) -> Counter[str | None]:
    """Count the rows of a plan by their status in the folder."""
    status = store.status
    return Counter(status(key, r) for key in plan.columns["cell_key"] for r in range(plan.count_of(key)))


def _needed(plan: "Plan", lanes: Sequence[int]) -> list[dict[str, Any]]:
    """Configurations of the cells with lanes, one for each code that they need."""
    texts = plan.columns["config"]
    if isinstance(texts, Texts):
        return list(map(json.loads, texts.distinct(NODES, np.array(lanes) > 0)))
    return [json.loads(text) for n, text in zip(lanes, texts, strict=True) if n]


def _seconds(plan: "Plan", lanes: Sequence[int]) -> float:
    """Time that so many lanes of each cell take, before any of them has been simulated."""
    each = zip(lanes, plan.columns["est_ops"], plan.columns["timed"], strict=True)
    cpus = 1 if plan.cluster.get("runner") == "serial" else plan.cluster.get("num_cpus") or os.cpu_count() or 1
    return float(sum(n * batches.work(ops, timed=timed) for n, ops, timed in each)) / batches.RATE_OPS / cpus


def _limits(plan: "Plan") -> Limits:
    return Limits(plan.limits.get("seconds"), plan.limits.get("memory"), plan.limits.get("steps_per_operation"))


def _run(
    plan: "Plan", store: Store, target: Target, todo: tuple[_Kept, Sequence[int]], stop: Stop, progress: bool | None
) -> None:
    """Simulate what is missing (`todo`: what is not, and lanes of each cell), with its record in `_run.json`."""
    kept, lanes = todo
    limits = target.limits
    replicas = range(plan.replicas)
    keys = plan.columns["cell_key"]
    amount = sum(n * ops for n, ops in zip(lanes, plan.columns["est_ops"], strict=True))
    configs = _needed(plan, lanes)
    record = provenance.new_run(plan.name, uuid.uuid4().hex, keys, replicas)
    provenance.put(store, record)
    for name, text in {name: text for config in configs for name, text in outside.texts(config).items()}.items():
        store.write_text(name, text)
    runner = make_runner(plan.cluster, target)
    with make_progress(progress, sum(lanes), amount, _seconds(plan, lanes)) as shown, stop.listening():
        ahead = Ahead(plan.simulate, configs, shown)
        try:
            ahead.start()
            runner.start()
            stop.listen()  # Ray has taken signals for itself
            coming = batches.make_batches(
                plan.columns, replicas, kept, cpus=runner.cpus(), simulate=plan.simulate,
                target_seconds=plan.cluster.get("batch_s") or batches.TARGET_SECONDS,
            )  # fmt: skip
            work = Work(
                runner, store, target, record["id"], stop, shown, plan.max_failures,
                max(limits.seconds or 0.0, LEAST_COMPILE_SECONDS),
            )  # fmt: skip
            Driver(work).drive(coming, ahead)
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
