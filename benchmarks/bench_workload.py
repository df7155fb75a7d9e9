"""Operations that the workload generates per second and core.

python benchmarks/bench_workload.py [--replicas 6] [--few]
"""

import argparse
import time
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from kmemexp.workload import merge
from kmemexp.workload.build import build
from kmemexp.workload.stream import stream_of

FOLDER = Path(__file__).resolve().parents[1] / "conf" / "workload"
ROUNDS = 5
SHARE = 0.01  # of the usual load, with --few


def best(function, rounds):
    """Least CPU seconds of several rounds, after one that compiles; and the last result."""
    function()
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        result = function()
        spent.append(time.process_time() - began)
    return min(spent), result


def report(label, seconds, operations):
    print(f"{label:32} {operations:>12,} operations {seconds:8.3f} CPU s {operations / seconds / 1e6:8.1f} M/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=6)
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how fast")
    args = parser.parse_args()
    replicas, rounds = (range(1), 1) if args.few else (range(args.replicas), ROUNDS)
    for name in ("server2003", "berkeley1988"):
        workload = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
        if args.few:
            workload["scale"] *= SHARE
        seconds, load = best(lambda w=workload: build(w, cpus=2, seed=0, replicas=replicas), rounds)
        report(f"{name}, {len(replicas)} replicas", seconds, sum(s.length for s in load.streams))
    lane = load.streams[0]
    shift_ns, counts = np.array([0, 10**9]), np.array([lane.length] * 2)

    def overlay():
        out = stream_of((np.empty(2 * lane.length, column.dtype) for column in lane.arrays), 2 * lane.slots)
        merge.overlay(lane, shift_ns, counts, 2, 2, lane.slots, out, *np.empty((2, 2), np.int64))
        return out

    seconds, out = best(overlay, rounds)
    report("overlay of two copies", seconds, out.length)


if __name__ == "__main__":
    main()
