"""Running several sweeps, one after the other."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kmemexp.sweep import execute

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan


def run(
    plans: "Sequence[Plan]", grow: "Callable[[Plan], bool] | None" = None
) -> "Iterator[tuple[Plan, execute.Outcome]]":
    """Run each plan and yield what came of it; what an earlier one has simulated is copied. Ends after Ctrl-C.

    `grow` gives a plan that has been run further replicas where its results call for them, and says whether it did.
    Raises InputError.
    """
    earlier: list[str] = []
    for plan in plans:
        pool = [plan.pool] if plan.pool and (Path(plan.pool) / "_manifest").is_dir() else []
        outcome = _whole(plan, [*earlier, *pool], grow)
        yield plan, outcome
        if outcome.interrupted:
            return
        earlier.append(plan.root)


def _whole(plan: "Plan", earlier: Sequence[str], grow: "Callable[[Plan], bool] | None") -> execute.Outcome:
    """Run a plan, and again for as long as it grows and its seconds last."""
    shown = None if plan.progress else False
    started = time.monotonic()
    outcome = execute.execute(plan, progress=shown, elsewhere=earlier)
    skipped, done = outcome.skipped, outcome.done
    last = plan.reps["budget"]["seconds"] if plan.reps else None
    while plan.reps and grow and not outcome.interrupted and (last is None or time.monotonic() - started < last):
        if not grow(plan):
            break
        outcome = execute.execute(plan, progress=shown, elsewhere=earlier)
        done += outcome.done
    return outcome._replace(done=done, skipped=skipped, seconds=time.monotonic() - started)
