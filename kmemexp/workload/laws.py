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
    "fill_to": ("bytes",),  # until so many bytes of its kind are younger: a cache that fills to a target, oldest out
}

Law = Mapping[str, Any]


def draw_sizes(rng: np.random.Generator, law: Law, n: int) -> np.ndarray:
    """Sizes in bytes of n requests, int32[n]."""
    sizes: np.ndarray
    match law["law"]:
        case "fixed":
            sizes = np.full(n, law["bytes"], np.int32)
        case "uniform":
            sizes = rng.integers(law["low_bytes"], law["high_bytes"], n, np.int32, endpoint=True)
        case "choice":
            sizes = np.asarray(law["bytes"], np.int32)[_branches(rng, law["weights"], n)]
        case _:
            drawn = rng.lognormal(math.log(law["median_bytes"]), law["sigma"], n)
            sizes = np.clip(np.rint(drawn), law["low_bytes"], law["high_bytes"]).astype(np.int32)
    return sizes


def usual_size(law: Law) -> int:
    """Bytes of a typical request under a size law."""
    size: int
    match law["law"]:
        case "fixed":
            size = law["bytes"]
        case "uniform":
            size = (law["low_bytes"] + law["high_bytes"]) // 2
        case "choice":
            size = law["bytes"][int(np.argmax(law["weights"]))]
        case _:
            size = round(min(max(law["median_bytes"], law["low_bytes"]), law["high_bytes"]))
    return size


def draw_lifetimes(rng: np.random.Generator, law: Law, n: int) -> np.ndarray:
    """Lifetimes in seconds of n objects, float64[n]; infinite for the permanent, and for `fill_to` (`evicted`)."""
    lifetimes: np.ndarray
    match law["law"]:
        case "exponential":
            lifetimes = rng.exponential(law["mean_s"], n)
        case "hyperexponential":
            means = np.asarray(law["means_s"], float)
            lifetimes = rng.standard_exponential(n) * means[_branches(rng, law["weights"], n)]
        case "lognormal":
            lifetimes = rng.lognormal(math.log(law["median_s"]), law["sigma"], n)
        case "fixed":
            lifetimes = np.full(n, float(law["seconds"]))
        case _:
            lifetimes = np.full(n, math.inf)
    return lifetimes


def evicted(start: np.ndarray, size: np.ndarray, target: int) -> np.ndarray:
    """When each object of a kind goes that keeps `target` bytes: the least of the times of younger ones, or infinite.

    `start`: times of the allocations, int64[n]; `size`: bytes. An object goes when the bytes that are younger than it,
    with its own, would be more than the target. Returns float64[n].
    """
    order = np.argsort(start, kind="stable")
    total = size[order].cumsum(dtype=np.int64)
    before = total - size[order]
    follower = np.searchsorted(total, before + target, side="right")
    times = np.append(start[order].astype(float), math.inf)
    ends = np.empty(len(start))
    ends[order] = times[np.maximum(follower, np.arange(len(start)) + 1).clip(max=len(start))]
    return ends


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
            total: float = sum(law["weights"])
            branches = zip(law["means_s"], law["weights"], strict=True)
            return float(sum(weight / total * _exponential_ended(mean, x) for mean, weight in branches))
        case "lognormal":
            return _lognormal_ended(math.log(law["median_s"]), law["sigma"], x)
        case "fixed":
            return max(0.0, x - float(law["seconds"]))
        case "fill_to":
            return x  # one goes for each that comes; less so until the target is reached
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
