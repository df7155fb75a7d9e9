"""Laws of sizes and lifetimes: a law is a dict with the key `law` and the fields listed here, as in conf/workload."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

SIZE_LAWS = {
    "fixed": ("bytes",),
    "uniform": ("low_bytes", "high_bytes"),  # integers, both ends included
    "choice": ("bytes", "weights"),
    "lognormal": ("median_bytes", "sigma", "low_bytes", "high_bytes"),  # clipped to low … high
}
LIFETIME_LAWS = {
    "exponential": ("mean_s",),
    "hyperexponential": ("means_s", "weights"),
    "lognormal": ("median_s", "sigma"),
    "fixed": ("seconds",),
    "permanent": (),
}

Law = Mapping[str, Any]


def draw_sizes(rng: np.random.Generator, law: Law, n: int) -> np.ndarray:
    """Sizes in bytes of n requests, int32[n]."""
    match law["law"]:
        case "fixed":
            return np.full(n, law["bytes"], np.int32)
        case "uniform":
            return rng.integers(law["low_bytes"], law["high_bytes"], n, np.int32, endpoint=True)
        case "choice":
            return np.asarray(law["bytes"], np.int32)[_branches(rng, law["weights"], n)]
        case _:
            sizes = rng.lognormal(math.log(law["median_bytes"]), law["sigma"], n)
            return np.clip(np.rint(sizes), law["low_bytes"], law["high_bytes"]).astype(np.int32)


def usual_size(law: Law) -> int:
    """Bytes of a typical request under a size law."""
    match law["law"]:
        case "fixed":
            return law["bytes"]
        case "uniform":
            return (law["low_bytes"] + law["high_bytes"]) // 2
        case "choice":
            return law["bytes"][int(np.argmax(law["weights"]))]
        case _:
            return round(min(max(law["median_bytes"], law["low_bytes"]), law["high_bytes"]))


def draw_lifetimes(rng: np.random.Generator, law: Law, n: int) -> np.ndarray:
    """Lifetimes in seconds of n objects, float64[n]; infinite for the permanent."""
    match law["law"]:
        case "exponential":
            return rng.exponential(law["mean_s"], n)
        case "hyperexponential":
            means = np.asarray(law["means_s"], float)
            return rng.standard_exponential(n) * means[_branches(rng, law["weights"], n)]
        case "lognormal":
            return rng.lognormal(math.log(law["median_s"]), law["sigma"], n)
        case "fixed":
            return np.full(n, float(law["seconds"]))
        case _:
            return np.full(n, math.inf)


def ended_time(law: Law, x: float) -> float:
    """Integral from 0 to x (seconds) of P(lifetime <= t) dt.

    Objects that arrive at rate r during the last x seconds of a run are freed before its end r · ended_time times.
    """
    if x <= 0.0:
        return 0.0
    match law["law"]:
        case "exponential":
            return _exponential_ended(law["mean_s"], x)
        case "hyperexponential":
            total = sum(law["weights"])
            parts = zip(law["means_s"], law["weights"], strict=True)
            return sum(w / total * _exponential_ended(m, x) for m, w in parts)
        case "lognormal":
            return _lognormal_ended(math.log(law["median_s"]), law["sigma"], x)
        case "fixed":
            return max(0.0, x - law["seconds"])
        case _:
            return 0.0


def _exponential_ended(mean: float, x: float) -> float:
    return x + mean * math.expm1(-x / mean)


def _lognormal_ended(mu: float, sigma: float, x: float) -> float:
    # x F(x) minus the mean over lifetimes below x.
    z = (math.log(x) - mu) / sigma
    return x * _normal_cdf(z) - math.exp(mu + sigma * sigma / 2) * _normal_cdf(z - sigma)


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _branches(rng: np.random.Generator, weights: list[float], n: int) -> np.ndarray:
    """Draw n indices with these weights."""
    bounds = np.cumsum(np.asarray(weights, float))
    return np.searchsorted(bounds[:-1] / bounds[-1], rng.random(n), side="right")
