"""A plan around a table of cells that a test has made."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from kmemexp.planning.plan import Plan


def small_plan(cells: "pd.DataFrame", root: object, **given: Any) -> "Plan":
    """Make a plan of these cells, run in this process; `given` are further fields of `Plan`."""
    from kmemexp.planning.plan import Plan

    fields = {
        "name": "made_up", "description": "", "replicas": 2, "excluded": 0, "collapsed": 0, "baseline": {},
        "metrics": [], "cluster": {"runner": "serial"}, "action": "run", "retry_failed": False, "max_failures": None,
        "progress": False,
    }  # fmt: skip
    return Plan(columns={name: cells[name].tolist() for name in cells}, root=str(root), **(fields | given))
