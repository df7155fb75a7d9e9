"""What is said below a table of recorded loads: of what the replicas are a sample, and what the recordings lack.

Besides, which ranks of designs hold in every stream of a recording.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from kmemexp.planning.nodes import nodes, value
from kmemexp.report.layout import axis_value

STREAM = "stream"
STREAMS = ("recorded", "law", "reconciled")
"""All that a recording may be played as: a rank is certain where it is the same in each."""
_WARNINGS = 5


def remarks(configs: Iterable[str], frame: pd.DataFrame, metrics: Sequence[str], axes: Sequence[str]) -> list[str]:
    """Write the remarks on the cells with these configurations (JSON); none without a recorded load.

    `frame` has the cells' metrics, `axes` are its columns in which they differ.
    """
    texts = {text for config in configs if (text := nodes(config).get("workload"))}
    loads = [load for text in sorted(texts) if (load := value(text)).get("source") == "trace"]
    found = [line for load in loads for line in _of(load)]
    return [*dict.fromkeys(found), *_ranks(frame, metrics, axes)]


def _of(load: Mapping[str, Any]) -> list[str]:
    name, stream = load["name"], load.get("stream", "recorded")
    differ = []
    if load["copies"] > 1 and load["shift_s"] > 0:
        differ.append(f"when its {load['copies']} copies begin")
    if stream != "recorded":
        differ.append("which objects died without an event, and when, as far as that is a guess")
    what = " and ".join(differ) or "nothing: an interval of width 0 is no certainty"
    lines = [
        f"{name} (stream {stream}) is one recording: its replicas differ in {what}. They are no sample of other runs "
        "of that load."
    ]
    return lines + [f"{name}: {text}" for text in load.get("warnings", ())[:_WARNINGS]]


def _ranks(frame: pd.DataFrame, metrics: Sequence[str], axes: Sequence[str]) -> list[str]:
    """Say of each metric whether the designs rank alike under all streams of a recording that were simulated."""
    if STREAM not in frame.columns or frame[STREAM].nunique() < 2 or "design" not in frame.columns:
        return []
    others = [axis for axis in axes if axis not in (STREAM, "design")]
    sure, unsure = [], []
    for metric in (m for m in metrics if m in frame.columns):
        means = frame.groupby([*others, STREAM, "design"], observed=True, dropna=False)[metric].mean()
        table = means.reset_index().pivot_table(metric, [*others, STREAM], "design", observed=True).dropna(axis=1)
        if table.shape[1] < 2 or (table.nunique(axis=1) < 2).all():
            continue
        ranks = table.rank(axis=1, method="min")
        by = ranks.groupby(level=others, observed=True, dropna=False) if others else [((), ranks)]
        moved = {str(design) for _, part in by for design in part.columns[(part != part.iloc[0]).any()]}
        if moved:
            unsure.append(f"{metric} ({', '.join(sorted(moved))})")
        else:
            sure.append(metric)
    there = [axis_value(STREAM, s) for s in frame[STREAM].unique()]
    streams, lacking = ", ".join(there), [s for s in STREAMS if s not in there]
    certain = "Ranks that are the same under the streams" if lacking else "Certain ranks, the same under the streams"
    lines = [f"{certain} {streams}: {', '.join(sure)}."] if sure else []
    lines += [f"Not certain, as they differ under the streams {streams}: {', '.join(unsure)}."] if unsure else []
    if lines and lacking:
        lines.append(
            f"No rank is certain without all three streams: {', '.join(lacking)} was not simulated (workload.stream="
            f"{','.join(STREAMS)}; reconciled needs the kernel's counts from before and after the recording)."
        )
    return lines
