"""The statistics that judge results: worked numbers (S1), and whether intervals hold what they say (S2)."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kmemexp.metrics import PLAIN, SKEWED_LAW, Margin
from kmemexp.report import evidence, replication, selection, small_samples, stats
from kmemexp.report.comparison import mean_bounds
from kmemexp.sim.aliases import Shares
from kmemexp.validate import machines
from kmemexp.validate.check import Check
from kmemexp.validate.machines import SERVICE
from kmemexp.validate.rows import Row, Wanted, in_batches
from kmemexp.validate.setting import Setting

POLICY_A = (126.97, 124.31, 126.68, 122.66, 127.23)  # Law and Kelton's inventory policies
POLICY_B = (118.21, 120.22, 122.45, 122.68, 119.40)
PILOT = (1.53, 1.66, 1.24, 2.34, 2.00, 1.69, 2.69, 2.86, 1.70, 2.60)
CHANCES = (0.01, 0.04, 0.03, 0.005, 0.2)


def numbers(s: Setting) -> Iterator[Row]:
    """S1: worked numbers of every method that a verdict rests on."""
    law = Wanted("S1", "Law and Kelton", "A")
    pair = stats.paired_difference(POLICY_A, POLICY_B, 0.9)
    yield law.all_equal("paired t, 90 %: difference, bounds, p", (4.978, 1.649127, 8.306873, 0.033281),
                        (pair.diff, pair.low, pair.high, pair.p), within=1e-6)  # fmt: skip
    yield law.exact("what pairing gains: ratio of variances", 0.636690, stats.variance_ratio(POLICY_A, POLICY_B),
                    within=1e-6)  # fmt: skip
    mean = stats.mean_interval(PILOT, 0.9)
    yield law.all_equal("mean of ten, 90 %: mean, variance, half-width", (2.031, 0.309099, 0.322283),
                        (mean.mean, mean.sd**2, mean.high - mean.mean), within=1e-6)  # fmt: skip
    for share, tabulated in ((10, 27), (5, 92)):
        aim = replication.half_width(f"{share}%", float(mean.mean))
        ours = int(replication.enough(float(mean.high - mean.mean), aim, len(PILOT)))
        yield law._replace(grade="C").beside(f"replicas for a mean within {share} %, 90 %", tabulated, ours,
                                             "ours keeps the t of the pilot: some more")  # fmt: skip
    holm = Wanted("S1", "Holm 1979", "A")
    yield holm.all_equal("Holm of five", (0.04, 0.09, 0.09, 0.025, 0.2), stats.holm(CHANCES), within=1e-12)
    p = s.rng.random(s.whole(5, 30)) ** 3
    order = np.argsort(p)
    told = np.empty(len(p))
    told[order] = np.minimum(np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))), 1)
    yield holm.all_equal(f"Holm of {len(p)} drawn", told, stats.holm(p), within=1e-12)
    fieller = Wanted("S1", "Fieller 1954", "A")
    a, b = s.rng.normal(120, 3, 8), s.rng.normal(100, 3, 8)
    pair = stats.paired_difference(a, b, 0.95)
    yield fieller.all_equal("ratio of 8 drawn pairs: bounds", _fieller(a, b), (pair.ratio_low, pair.ratio_high),
                            within=1e-9)  # fmt: skip
    kn = Wanted("S1", "Kim and Nelson 2001", "A")
    for k, first, eta, h2 in ((2, 10, 0.334050, 6.012905), (3, 10, 0.472944, 8.512989), (10, 20, 0.302934, 11.511485)):
        yield kn.all_equal(f"KN of {k} designs, {first} first replicas: eta, h²", (eta, h2),
                           selection.kn_constants(k, first), within=1e-6)  # fmt: skip
    ocba = selection.ocba(np.array([1.0, 2, 3, 5]), np.array([1.0, 1, 2, 3]), 1000)
    yield Wanted("S1", "Chen et al. 2000", "A").all_equal(
        "OCBA of four", (306.710535, 270.551986, 270.551986, 152.185492), ocba, within=1e-5)  # fmt: skip
    n, hits = s.whole(8, 40), s.whole(0, 8)
    yield Wanted("S1", "Wilson 1927", "A").all_equal(f"{hits} of {n}: Wilson's bounds", _wilson(hits, n),
                                                    np.array(stats.wilson(hits, n)), within=1e-9)  # fmt: skip
    up, down = s.whole(3, 12), s.whole(0, 12)
    tails = sum(math.comb(up + down, k) for k in range(min(up, down) + 1)) / 2 ** (up + down)
    yield Wanted("S1", "sign test", "A").exact(f"{up} up, {down} down: p of the signs", min(1.0, 2 * tails),
                                              small_samples.sign_p(up, down), within=1e-9)  # fmt: skip


def _fieller(a: Shares, b: Shares) -> tuple[float, float]:
    """Bounds from the textbook's quadratic in the ratio."""
    n = len(a)
    t2 = 2.364624251592784**2 / n  # Student's t, 7 degrees of freedom
    cov = np.cov(a, b)
    lead, middle = b.mean() ** 2 - t2 * cov[1, 1], a.mean() * b.mean() - t2 * cov[0, 1]
    root = math.sqrt(middle**2 - lead * (a.mean() ** 2 - t2 * cov[0, 0]))
    return float((middle - root) / lead), float((middle + root) / lead)


def _wilson(hits: int, n: int) -> tuple[float, float]:
    z = 1.959963984540054
    share, weight = hits / n, z**2 / n
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (share + weight / 2 - half) / (1 + weight), (share + weight / 2 + half) / (1 + weight)


Draw = Callable[[np.random.Generator, tuple[int, int]], Any]
LAWS: tuple[tuple[str, str, Draw, float], ...] = (
    ("normal", PLAIN, lambda rng, shape: rng.normal(10, 3, shape), 10.0),
    ("exponential", SKEWED_LAW, lambda rng, shape: rng.exponential(1.0, shape), 1.0),
)


def coverage(s: Setting) -> Iterator[Row]:
    """S2: intervals at 95 % hold what they are of; families are wrong once in twenty; M/M/1 output has its variance."""
    of = Wanted("S2", "coverage of 95 %", "B")
    samples, n = round(s.long(3000, 10_000)), s.whole(6, 20)
    off = 0.02 + 4 * math.sqrt(0.95 * 0.05 / samples)  # what an interval may be off, and four standard errors
    for name, law, draw, mean in LAWS:
        _, _, low, high = mean_bounds(draw(s.rng, (samples, n)), law, 0.95)
        covered = float(((low <= mean) & (mean <= high)).mean())
        yield of.exact(f"mean of {n} {name} replicas: covered", 0.95, covered, within=off)
        a, b = draw(s.rng, (samples, n)) + 5.0, draw(s.rng, (samples, n))
        found = evidence.weigh(a, b, law, Margin(0.01), np.zeros(samples, bool), 0.95)
        covered = float(((found.low <= 5) & (found.high >= 5)).mean())
        yield of.exact(f"difference of {n} {name} pairs: covered", 0.95, covered, within=off)
    none = evidence.weigh(s.rng.normal(0, 1, (samples, n)), s.rng.normal(0, 1, (samples, n)), PLAIN, Margin(0.01),
                          np.zeros(samples, bool), 0.95)  # fmt: skip
    tables = none.p[: samples // 10 * 10].reshape(-1, 10)
    wrong = float(np.mean([(stats.holm(row) < 0.05).any() for row in tables]))
    yield of.at_most("families of ten that do not differ: called different", 0.05, wrong,
                     within=4 * math.sqrt(0.05 * 0.95 / len(tables)))  # fmt: skip
    rho = s.uniform(0.4, 0.6)
    theory = rho * (2 + 5 * rho - 4 * rho**2 + rho**3) / (1 - rho) ** 4
    machine = machines.served("exponential", 0, rho, seed=s.seed())
    size, batches = 3000, round(s.long(500, 2000))
    until = round((batches + 1) * size / rho * SERVICE)
    waits, _ = machines.means(machine, until, ["irq_irq_start"], batches)["irq_irq_start"]
    got = (waits / SERVICE - np.mean(waits / SERVICE)) ** 2 * size
    yield Wanted("S2", "Daley 1968", "B").estimate(f"M/M/1, load {rho:g}: size x variance of batch means of the wait",
                                                  theory, in_batches(got), tolerance=0.8, bias=0.1)  # fmt: skip


CHECKS = (Check("S1", numbers), Check("S2", coverage, 3))
