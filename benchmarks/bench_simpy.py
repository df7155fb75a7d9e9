"""The engine against SimPy 4.1 on one model, both in one run.

CPUs pause (exponential), take one of eight FIFO locks at random, hold it while they allocate or free, and give it back.

In kmemexp the model is a closed load on eight zones, each with a lock of its own, through the real allocator and with
histograms and wait graph; in SimPy only the locks are modelled, nothing is allocated.

    pip install -e '.[test]' && python benchmarks/bench_simpy.py [--cpus 4] [--seconds 3] [--few]
"""

import argparse
import json
import random
import time

import simpy

from kmemexp.boot import timed
from kmemexp.lane.timed import advance
from kmemexp.planning.plan import plan_from
from kmemexp.sim.engine.tables import seen
from kmemexp.workload.build import build

LOCKS, PAUSE, HOLD = 8, 1000, 20  # ns
OPERATIONS = 2_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU time of each SimPy measurement")
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how fast")
    args = parser.parse_args()
    operations, seconds, rounds = (20_000, 0.05, 1) if args.few else (OPERATIONS, args.seconds, 3)
    config, load = model(args.cpus, operations)
    engine_rate(config, load)  # compiled
    pairs = [(simpy_rate(args.cpus, seconds), *engine_rate(config, load)) for _ in range(rounds)]
    for theirs, ours, waited in pairs:
        print(f"SimPy {simpy.__version__}: {theirs / 1e6:.3f} M operations/s; kmemexp: {ours / 1e6:.2f} M, "
              f"{waited:.1%} of the locks waited for; ratio {ours / theirs:.0f}")  # fmt: skip


def simpy_rate(cpus: int, seconds: float) -> float:
    """Operations per CPU second of SimPy."""
    env, rng, done = simpy.Environment(), random.Random(1), [0]
    locks = [simpy.Resource(env, 1) for _ in range(LOCKS)]

    def cpu():
        while True:
            yield env.timeout(rng.expovariate(1 / PAUSE))
            with locks[rng.randrange(LOCKS)].request() as lock:
                yield lock
                yield env.timeout(HOLD)
            done[0] += 1

    for _ in range(cpus):
        env.process(cpu())
    started, until = time.process_time(), 0
    while time.process_time() - started < seconds:
        until += 100 * PAUSE
        env.run(until)
    return done[0] / (time.process_time() - started)


def model(cpus: int, operations: int) -> tuple[dict, object]:
    """The closed load on eight zones, as a cell and its stream."""
    kind = {"class": "zone", "size": {"law": "fixed", "bytes": 64}, "rate_hz": operations / 2 / LOCKS / cpus,
            "lifetime": {"law": "exponential", "mean_s": 0.01}}  # fmt: skip
    kinds = {f"zone{n}": kind for n in range(LOCKS)}
    workload = {"name": "zones", "source": "synthetic", "duration_s": 0.0, "scale": 1.0, "pause_ns": PAUSE,
                "phases": [{"name": "all", "seconds": 1.0, "level": 1.0}], "kinds": kinds}  # fmt: skip
    (plan,) = plan_from(["workload=kernel_loop", "design=dragonfly_2003aug25", "interrupts=ithread_mp", "cost=zero",
                         "interrupts/sources=none", f"machine.cpus={cpus}", "objects.locks.zalloc=spin/item",
                         f"cost.alloc_ns={HOLD}", f"cost.free_ns={HOLD}"])  # fmt: skip
    config = json.loads(plan.cells["config"].iloc[0]) | {"workload": workload}
    return config, build(workload, cpus=cpus, seed=0, replicas=(0,))


def engine_rate(config: dict, load: object) -> tuple[float, float]:
    """Operations per CPU second of the engine, and the share of them that waited for their lock."""
    stream = load.streams[0]
    t = timed.boot(config, load.kinds, stream, 0)
    started = time.process_time()
    t = advance(t, 10**15)
    rate = stream.length / (time.process_time() - started)
    return rate, int(t.wired.m[seen.CONTENDED]) / int(t.wired.m[seen.LOCKS])


if __name__ == "__main__":
    main()
