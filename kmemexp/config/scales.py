"""Ranges by their bounds: `log(100, 100000, 4)` is 100, 1000, 10000 and 100000.

In sweep files and on the command line; `interval(low, high)` and `log(low, high)` are ranges to sample from
(planning/sampling.py).
"""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmemexp.errors import ConfigError
from kmemexp.sim.slots import PAGE
from kmemexp.values import at_least, byte_count

MOST = 100_000  # points of a scale, rows of a sample
CALL = re.compile(r"\s*(log|interval)\(\s*([^,()]+?)\s*,\s*([^,()]+?)\s*(?:,\s*(\d+)\s*)?\)\s*")

Unit = NDArray[np.float64]


def written_out(text: str) -> str:
    """Write the points of a `key=log(low, high, points)` as a list, which Hydra's grammar knows. Raises ConfigError."""
    key, equals, value = text.partition("=")
    points = log_points(key.lstrip("+"), value) if equals else None
    return f"{key}={','.join(map(str, points))}" if points else text


def log_points(key: str, text: str) -> list[Any] | None:
    """Points of `log(low, high, points)`; None for other texts. Raises ConfigError."""
    call = CALL.fullmatch(text)
    if call is None or call[1] != "log" or call[4] is None:
        return None
    points = int(at_least(f"{key}: points of {text}", int(call[4]), 2))
    if points > MOST:
        raise ConfigError(f"{key}: {text} has {points} points; at most {MOST} can be planned")
    return spread(key, text, np.arange(points) / (points - 1))


def spread(where: str, text: str, u: Unit, key: str = "") -> list[Any]:
    """Put numbers from 0 to 1 into a range; both ends belong to a range of whole numbers."""
    call = CALL.fullmatch(text)
    assert call is not None  # noqa: S101 - the callers have looked
    low, high = (_number(where, key or where, bound) for bound in (call[2], call[3]))
    if not low < high or (call[1] == "log" and low <= 0):
        raise ConfigError(
            f"{where}={text}: the bounds must be in order" + (", and above 0" if call[1] == "log" else "")
        )
    whole = isinstance(low, int) and isinstance(high, int)
    step = PAGE if whole and (key or where).endswith("_bytes") and low % PAGE == high % PAGE == 0 else 1
    drawn = bool(key)  # a draw from 0 to 1 without 1, not a point of a scale
    if call[1] == "log":
        x = low * (high / low) ** u
    elif whole and drawn:
        x = low + u * (high - low + step) - step / 2
    else:
        x = low + u * (high - low)
    if not whole:
        return [float(f"{value:.12g}") for value in x]
    return [min(max(step * math.floor(value / step + 0.5), low), high) for value in x.tolist()]


def _number(where: str, key: str, text: str) -> int | float:
    if key.endswith("_bytes"):
        return byte_count(where, text)
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {text} is not a number") from error
    return int(value) if value.is_integer() and "." not in text else value
