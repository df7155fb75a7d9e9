import numpy as np
import pytest
from scipy import integrate, stats

from kmemexp.workload import laws

N = 100_000
EXPONENTIAL = {"law": "exponential", "mean_s": 0.2}
HYPEREXPONENTIAL = {"law": "hyperexponential", "means_s": [0.1, 3.0], "weights": [9, 1]}
LOGNORMAL = {"law": "lognormal", "median_s": 2.0, "sigma": 1.2}
FIXED = {"law": "fixed", "seconds": 1.5}
PERMANENT = {"law": "permanent"}
SPREAD = [EXPONENTIAL, HYPEREXPONENTIAL, LOGNORMAL]


def cdf(law):
    """Distribution function of a lifetime law, from SciPy."""
    match law["law"]:
        case "exponential":
            return stats.expon(scale=law["mean_s"]).cdf
        case "hyperexponential":
            return lambda t: 0.9 * stats.expon(scale=0.1).cdf(t) + 0.1 * stats.expon(scale=3.0).cdf(t)
        case "lognormal":
            return stats.lognorm(law["sigma"], scale=law["median_s"]).cdf
        case "fixed":
            return lambda t: float(t >= law["seconds"])
        case _:
            return lambda t: 0.0


@pytest.mark.parametrize("law", SPREAD, ids=lambda law: law["law"])
def test_lifetimes_follow_their_law(law):
    drawn = laws.draw_lifetimes(np.random.default_rng(1), law, N)
    assert stats.kstest(drawn, cdf(law)).pvalue > 0.01


def test_fixed_and_permanent_lifetimes():
    rng = np.random.default_rng(1)
    assert np.all(laws.draw_lifetimes(rng, FIXED, 5) == 1.5)
    assert np.all(np.isinf(laws.draw_lifetimes(rng, PERMANENT, 5)))


@pytest.mark.parametrize("law", [*SPREAD, FIXED, PERMANENT], ids=lambda law: law["law"])
@pytest.mark.parametrize("x", [0.0, 0.05, 1.0, 7.0])
def test_ended_time_is_the_integral_of_the_distribution_function(law, x):
    expected, _ = integrate.quad(cdf(law), 0.0, x, points=[min(x, 1.5)], limit=200)
    assert laws.ended_time(law, x) == pytest.approx(expected, abs=1e-7)


def test_uniform_sizes_include_both_ends():
    drawn = laws.draw_sizes(np.random.default_rng(1), {"law": "uniform", "low_bytes": 1, "high_bytes": 191}, N)
    assert (drawn.min(), drawn.max()) == (1, 191)
    assert stats.chisquare(np.bincount(drawn)[1:]).pvalue > 0.01


def test_choice_of_sizes_has_the_shares_of_its_weights():
    law = {"law": "choice", "bytes": [4096, 16384, 65536], "weights": [5, 0, 3]}
    sizes, counts = np.unique(laws.draw_sizes(np.random.default_rng(1), law, N), return_counts=True)
    assert sizes.tolist() == [4096, 65536]
    assert counts[0] / N == pytest.approx(5 / 8, abs=4 * np.sqrt(15 / 64 / N))


def test_lognormal_sizes_are_clipped():
    law = {"law": "lognormal", "median_bytes": 1000, "sigma": 1.0, "low_bytes": 100, "high_bytes": 5000}
    drawn = laws.draw_sizes(np.random.default_rng(1), law, N)
    assert (drawn.min(), drawn.max()) == (100, 5000)
    assert np.median(drawn) == pytest.approx(1000, rel=0.02)
    share = stats.lognorm(1.0, scale=1000).sf(4999.5)
    assert np.mean(drawn == 5000) == pytest.approx(share, abs=4 * np.sqrt(share / N))


@pytest.mark.parametrize(
    ("law", "size"),
    [
        ({"law": "fixed", "bytes": 412}, 412),
        ({"law": "uniform", "low_bytes": 40, "high_bytes": 92}, 66),
        ({"law": "choice", "bytes": [16, 24, 32], "weights": [3, 4, 3]}, 24),
        ({"law": "lognormal", "median_bytes": 20000, "sigma": 1.3, "low_bytes": 8193, "high_bytes": 1048576}, 20000),
    ],
)
def test_usual_size(law, size):
    assert laws.usual_size(law) == size


def test_a_cache_keeps_its_target_and_lets_the_oldest_go():
    start, size = np.array([10, 30, 20, 50, 40]), np.array([4, 4, 4, 8, 4])
    # In order 4 4 4 4 8 at 10 … 50, of a target of 12: the fourth drives out the first, the fifth the next three.
    assert laws.evicted(start, size, 12).tolist() == [40.0, 50.0, 50.0, np.inf, np.inf]
    assert laws.evicted(start, size, 100).tolist() == [np.inf] * 5
    assert laws.evicted(start, size, 1).tolist() == [20.0, 40.0, 30.0, np.inf, 50.0]
    assert laws.evicted(start[:0], size[:0], 1).tolist() == []
