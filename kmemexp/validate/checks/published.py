"""What others have published, beside ours: never judged, since of their setups only parts are known. C1994 … F18.

Shore 1975 and Bays 1977 measured sequential fits in a saturated memory of 32 K; the numbers beside ours are of a rerun
written apart, since their tables were not to be had, and the signs are theirs.
"""

import heapq
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kmemexp.lane import simulate_lanes
from kmemexp.metrics import INDEX
from kmemexp.planning.plan import plan_from
from kmemexp.sim.aliases import Words
from kmemexp.sim.arenas import sequential
from kmemexp.validate.chains import POLICIES
from kmemexp.validate.check import Check
from kmemexp.validate.churn import Churn
from kmemexp.validate.placement import Arena
from kmemexp.validate.rows import Row, Wanted
from kmemexp.validate.setting import Setting

MEMORY = 32_768
Law = Callable[[np.random.Generator, int], Any]


def _hyper(rng: np.random.Generator, n: int) -> Any:
    p = 0.5 * (1 + np.sqrt(3 / 5))  # CV 2, balanced means
    return rng.exponential(1, n) / (2 * np.where(rng.random(n) < p, p, 1 - p))


SHORE: dict[str, tuple[Law, float]] = {  # sizes by their mean, and FF - BF at a mean of M/128
    "normal, CV .25": (lambda rng, n: rng.normal(1, 0.25, n), -0.0139),
    "uniform": (lambda rng, n: rng.uniform(0, 2, n), -0.0142),
    "exponential": (lambda rng, n: rng.exponential(1, n), 0.0079),
    "hyperexponential, CV 2": (_hyper, 0.0352),
}


def _efficiency(arena: Arena, sizes: Words, stays: Words, until: float, warm: float) -> float:
    """Mean share of the memory in use, with a queue that is never empty and whose head waits until it fits."""
    now, area, k = 0.0, 0.0, 0
    leaving: list[tuple[float, int]] = []
    while now < until:
        while (address := arena.alloc(int(sizes[k]))) >= 0:
            heapq.heappush(leaving, (now + float(stays[k]), address))
            k += 1
        end, address = heapq.heappop(leaving)
        area += max(0.0, min(end, until) - max(now, warm)) * arena.live_cells
        now = end
        arena.free(address)
    return area / (until - warm) / arena.cells


def shore(s: Setting) -> Iterator[Row]:
    """F18: the sign of first fit less best fit by the law of the sizes (Shore 1975)."""
    of = Wanted("F18", "Shore, CACM 18 (1975); rerun", "C")
    until, mean = s.long(400, 2000), MEMORY // 128
    for law, (draw, published) in SHORE.items():
        n = round(until * 30 + 3000)
        sizes = np.clip(np.rint(draw(s.rng, n) * mean), 1, MEMORY).astype(np.int64)
        stays = s.rng.uniform(5, 15, n)
        first, best = (_efficiency(fit_in(policy), sizes, stays, until, until / 5) for policy in ("FF", "BF"))
        note = "the sign is Shore's" if (first > best) == (published > 0) else "the sign is not Shore's"
        yield of.beside(f"{law}, mean M/128: efficiency of first fit less best fit ({note})", published, first - best)


def fit_in(policy: str) -> Arena:
    """An arena of MEMORY cells without a tail to be used last."""
    return Arena(sequential, MEMORY, policy=POLICIES[policy])


def systematic(s: Setting) -> Iterator[Row]:
    """F7: who leaves first in, first out breaks the fifty-percent rule (Shore 1977)."""
    of, blocks = Wanted("F7", "Shore, CACM 20 (1977); rerun", "C"), 300
    pages = 3 * blocks * 500
    for victims, published in (("first in, first out", 0.0737), ("at random", 0.4930)):
        churn = Churn(sequential, blocks, pages, policy=POLICIES["FF"], tail_last=1)
        churn.play(s.rng.integers(1, 1001, blocks), np.arange(blocks))
        for steps, every in ((30_000, 0), (round(s.long(50_000, 250_000)), 4)):
            order = np.arange(steps) % blocks if victims.startswith("first") else s.rng.integers(0, blocks, steps)
            holes, *_ = churn.play(s.rng.integers(1, 1001, steps), order, every)
        yield of.beside(f"first fit, sizes 1 … 1000, leave {victims}: holes by blocks", published, holes / blocks)


def magazine_scaling(s: Setting) -> Iterator[Row]:
    """B01: magazines let allocation scale with the CPUs (Bonwick and Adams 2001, 3.5: linear to 16 CPUs)."""
    of = Wanted("B01", "Bonwick and Adams, USENIX 2001", "D")
    rates = {}
    for cpus in (1, 8):
        plan = plan_from(["design=illumos", "workload=kernel_loop", "cost=opteron2003", "interrupts/sources=none",
                          f"machine.cpus={cpus}", "machine.ram_bytes=4GiB", "machine.kva_bytes=2GiB",
                          f"workload.scale={s.long(0.05, 1.0)}", f"seed={s.seed()}"])  # fmt: skip
        (lane,) = simulate_lanes(json.loads(plan[0].columns["config"][0]), (0,))
        rates[cpus] = float(lane.metrics[INDEX["throughput_hz"]])
    yield of.beside("illumos, kernel_loop: 8 CPUs by one", 8.0, rates[8] / rates[1], "published: linear")


def bonwick1994(s: Setting) -> Iterator[Row]:
    """B94: total fragmentation of four kernel allocators after boot, a spike, find and kenbus (Bonwick 1994, 5.2)."""
    of = Wanted("B94", "Bonwick, USENIX Summer 1994, 5.2", "C")
    published, ours = {"slab1994": 14.0, "fast_fits": 27.0, "buckets": 45.0, "lazy_buddy": 46.0}, {}
    for objects, percent in published.items():
        plan = plan_from(["+sweep=bonwick1994", "workload=bonwick1994_sar", f"objects={objects}", f"seed={s.seed()}"])
        (lane,) = simulate_lanes(json.loads(plan[0].columns["config"][0]), (0,))
        ours[objects] = 100 * float(lane.metrics[INDEX["total_frag_ratio"]])
        yield of.beside(f"{objects}, after kenbus: total fragmentation, %", percent, ours[objects],
                        "sizes and numbers of objects are assumptions")  # fmt: skip
    yield of.beside("buckets by slab1994: the same", 45 / 14, ours["buckets"] / ours["slab1994"])


CHECKS = (
    Check("F18", shore, 5),
    Check("F7", systematic, 2),
    Check("B01", magazine_scaling, 6),
    Check("B94", bonwick1994, 10),
)
