"""Run the missing rows of a plan: submit batches, commit results as they come, stop cleanly."""

import json
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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
        before = _count(plan, store)
        left = _left(plan, store, only)
        stop = Stop(plan.cluster.get("grace_s", GRACE_SECONDS))
        if any(left):
            target = Target(store.uri, store.writer, _limits(plan), layout)
            _run(plan, store, target, left, stop, progress)
    finally:
        store.close()
    now = _count(plan, store) if any(left) else before
    missing = plan.lanes - now[DONE] - now[FAILED]
    if stop.reason and missing:
        sys.stderr.write(
            f"{stop.reason}: {plan.lanes - missing:,} of {plan.lanes:,} rows are in {store.root}. To go on from there:"
            f"\n  {provenance.command()}\n"
        )
    return Outcome(
        done=now[DONE] - before[DONE],
        failed=now[FAILED],
        skipped=before[DONE],
        interrupted=stop.interrupted and missing > 0,
        seconds=time.monotonic() - started,
        root=store.root,
        signal=stop.signal,
    )


def _left(plan: "Plan", store: Store, only: Container[Row] | None) -> list[tuple[int, ...]]:
    """Replicas of each cell that are to be simulated: asked for by now, and not there."""
    enough = (DONE,) if plan.retry_failed else (DONE, FAILED)
    keys = plan.columns["cell_key"]
    left = store.missing([(key, plan.count_of(key)) for key in keys], enough)
    if only is not None:
        return [tuple([r for r in each if (key, r) in only]) for key, each in zip(keys, left, strict=True)]
    return left


def _count(plan: "Plan", store: Store) -> Counter[str]:
    """Count the rows of a plan by their status in the folder."""
    return store.counts_of((key, plan.count_of(key)) for key in plan.columns["cell_key"])


def _needed(plan: "Plan", left: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Configurations of the cells with lanes, one for each code that they need."""
    texts = plan.columns["config"]
    if isinstance(texts, Texts):
        return list(map(json.loads, texts.distinct(NODES, np.array([bool(each) for each in left]))))
    return [json.loads(text) for each, text in zip(left, texts, strict=True) if each]


def _seconds(plan: "Plan", left: Sequence[Sequence[int]]) -> float:
    """Time that these lanes of each cell take, before any of them has been simulated."""
    each = zip(left, plan.columns["est_ops"], plan.columns["timed"], strict=True)
    cpus = 1 if plan.cluster.get("runner") == "serial" else plan.cluster.get("num_cpus") or os.cpu_count() or 1
    lanes = sum([len(some) * batches.work(ops, timed=timed) for some, ops, timed in each if some])
    return float(lanes) / batches.RATE_OPS / cpus


def _limits(plan: "Plan") -> Limits:
    return Limits(plan.limits.get("seconds"), plan.limits.get("memory"), plan.limits.get("steps_per_operation"))


def _run(
    plan: "Plan", store: Store, target: Target, left: Sequence[Sequence[int]], stop: Stop, progress: bool | None
) -> None:
    """Simulate what is missing (`left`: replicas of each cell), with its record in `_run.json`."""
    limits = target.limits
    lanes = sum(map(len, left))
    amount = sum([len(each) * ops for each, ops in zip(left, plan.columns["est_ops"], strict=True)])
    configs = _needed(plan, left)
    record = provenance.new_run(plan.name, uuid.uuid4().hex, plan.columns["cell_key"], range(plan.replicas))
    provenance.put(store, record)
    for name, text in {name: text for config in configs for name, text in outside.texts(config).items()}.items():
        store.write_text(name, text)
    runner = make_runner(plan.cluster, target)
    with make_progress(progress, lanes, amount, _seconds(plan, left)) as shown, stop.listening():
        ahead = Ahead(plan.simulate, configs, shown)
        try:
            ahead.start()
            runner.start()
            stop.listen()  # Ray has taken signals for itself
            coming = batches.batched(
                plan.columns, left, cpus=runner.cpus(), simulate=plan.simulate,
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
