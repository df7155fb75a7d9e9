"""Rows that an import adds: null where nothing is said."""

import numpy as np

from kmemexp.workload.traces import track
from kmemexp.workload.traces.track import Rows


def filled(**columns: np.ndarray) -> Rows:
    """Rows with these columns; the others are null."""
    n = len(columns["time_ns"])
    given = {"context": np.zeros(n), "nowait": np.zeros(n), **columns}
    filled = {name: given.get(name, np.full(n, -1)) for name in Rows._fields}
    return Rows(*(c.astype(t) for c, t in zip(filled.values(), track.ROW_TYPES, strict=True)))


def together(parts: list[Rows]) -> Rows:
    """Put added rows in the order of time; what comes first in `parts` is first among equals."""
    joined = Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    order = np.argsort(joined.time_ns, kind="stable")
    return Rows(*(column[order] for column in joined))
