"""Samples of a space of several keys.

    sample:
      method: sobol                                           # or lhs
      n: 64
      seed: 0
      space: {machine.kva_bytes: "log(128MiB, 1GiB)", workload.scale: "interval(0.5, 2)", machine.cpus: [1, 2, 4]}

A sample is a zip block of n rows. It is prefix-stable: a greater n keeps the rows that there are. `sobol` is Sobol's
sequence, scrambled by Owen's method (`scipy.stats.qmc`); `lhs` a nested Latin hypercube (Qian 2009), each doubling of
which is one again: scipy's is drawn anew for every n. Both are balanced best where n is a power of two. Bounds that are
whole numbers give whole numbers, both bounds included; sizes whose bounds are whole pages give whole pages.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmemexp.config.scales import CALL, MOST, spread
from kmemexp.errors import ConfigError
from kmemexp.values import at_least, known, one_of

METHODS = ("sobol", "lhs")
KEYS = ("method", "n", "seed", "space")

Unit = NDArray[np.float64]


def sample(where: str, entry: Mapping[str, Any], space: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Rows of a sample as a zip block: values by key. `space` has dotted keys. Raises ConfigError."""
    for name in entry:
        known(where, "key", name, KEYS)
    method = entry.get("method", METHODS[0])
    one_of(f"{where}.method", method, METHODS)
    n = at_least(f"{where}.n", entry.get("n", 0), 1)
    if n > MOST:
        raise ConfigError(f"{where}.n={n}: at most {MOST} rows can be planned")
    seed = at_least(f"{where}.seed", entry.get("seed", 0), 0)
    if not space:
        raise ConfigError(f"{where}.space: is missing; it has a range for each key that is sampled")
    drawn = _sobol(n, len(space), seed) if method == "sobol" else _nested(n, len(space), seed)
    return {
        key: _values(f"{where}.space.{key}", key, given, drawn[:, i]) for i, (key, given) in enumerate(space.items())
    }


def _values(where: str, key: str, given: Any, u: Unit) -> list[Any]:
    if isinstance(given, Sequence) and not isinstance(given, str):
        if not given:
            raise ConfigError(f"{where}: has no values to choose from")
        return [given[int(i)] for i in u * len(given)]
    call = CALL.fullmatch(str(given))
    if call is None or call[4] is not None:
        raise ConfigError(f"{where}={given}: must be interval(low, high), log(low, high), or a list of values")
    return spread(where, str(given), u, key)


def _sobol(n: int, keys: int, seed: int) -> Unit:
    from scipy.stats import qmc  # noqa: PLC0415 - slow to import, and most plans sample nothing

    # Whole powers of two are drawn: their prefix is the same, and it is balanced as far as it goes.
    drawn: Unit = qmc.Sobol(keys, scramble=True, rng=np.random.default_rng(seed)).random_base2(math.ceil(math.log2(n)))
    return drawn[:n]


def _nested(n: int, keys: int, seed: int) -> Unit:
    """Latin hypercube that is doubled until it has n rows: new rows take the strata that are free yet."""
    rng = np.random.default_rng(seed)
    rows = rng.random((1, keys))
    while len(rows) < n:
        count = 2 * len(rows)
        new = np.empty_like(rows)
        for key in range(keys):
            free = np.setdiff1d(np.arange(count), (rows[:, key] * count).astype(np.int64))
            new[:, key] = (rng.permutation(free) + rng.random(len(free))) / count
        rows = np.concatenate([rows, new])
    return rows[:n]
