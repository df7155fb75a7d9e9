"""Running several sweeps, one after the other."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kmemexp.sweep import execute

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan


def run(plans: "Sequence[Plan]") -> "Iterator[tuple[Plan, execute.Outcome]]":
    """Run each plan and yield what came of it; what an earlier one has simulated is copied. Ends after Ctrl-C.

    Raises InputError.
    """
    earlier: list[str] = []
    for plan in plans:
        outcome = execute.execute(plan, progress=None if plan.progress else False, elsewhere=earlier)
        yield plan, outcome
        if outcome.interrupted:
            return
        earlier.append(plan.root)
