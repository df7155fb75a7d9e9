"""Deadlocked lanes simulated again with a log, for the swim lanes of the report."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kmemexp.planning.plan import Plan
from kmemexp.report.html.witness import Witness
from kmemexp.values import visible

if TYPE_CHECKING:
    import pandas as pd

MOST = 2
LOG_ROWS = 4096  # events kept
SHOWN = 60
RECENT = 40  # spans drawn, the last ones


def of(plan: Plan, frame: "pd.DataFrame") -> Sequence[Witness]:
    """Simulate the first deadlocked lane of each of the first designs again. `frame`: metrics of the plan's cells."""
    hits = frame[(frame["deadlock"].fillna("") != "").to_numpy()]
    return [_of_lane(row) for row in hits.drop_duplicates("design").head(MOST).to_dict("records")]


def _of_lane(row: Mapping[Any, Any]) -> Witness:
    from kmemexp.lane import timed, witness  # noqa: PLC0415 - with them come Numba and the machine
    from kmemexp.lane.replica import prepare  # noqa: PLC0415

    (replica,) = prepare(json.loads(row["config"]), (int(row["replica"]),))
    t = timed.run_out(timed.booted(replica, log_rows=LOG_ROWS), replica)
    spans = sorted(witness.tracks(t.wired), key=lambda span: span["end_ns"])[-RECENT:]
    events = [visible(line) for line in witness.timeline(t.wired, SHOWN)]
    title = f"{row['design']}, cell {str(row['cell_key'])[:8]}, replica {row['replica']}"
    return Witness(title, witness.summary(t.wired), spans, events, max((s["end_ns"] for s in spans), default=0))
