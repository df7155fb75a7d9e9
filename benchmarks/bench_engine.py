"""Speed of the engine with a clock: operations per second and core, with interrupts, histograms and wait graph on.

python benchmarks/bench_engine.py [TRACE] [--cpus 1,4,64,1024] [--designs mail2003_bare] [--few]
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from kmemexp.boot import timed
from kmemexp.lane.timed import advance
from kmemexp.planning.plan import plan_from
from kmemexp.sim.engine.tables import glob
from kmemexp.sim.tables import tally
from kmemexp.workload.build import build

SHARED = Path(__file__).resolve().parents[2] / "shared" / "traces" / "compile.txt.zst"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", default=str(SHARED) if SHARED.exists() else "filetree")
    parser.add_argument("--cpus", default="1,4,64,1024")
    parser.add_argument("--designs", default="mail2003_bare")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="further overrides")
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how fast")
    args = parser.parse_args()
    if args.few:
        args.trace, args.cpus, args.rounds = "filetree", "1", 1
    for design in args.designs.split(","):
        for cpus in map(int, args.cpus.split(",")):
            measure(design, args.trace, cpus, args.rounds, args.set)


def measure(design: str, trace: str, cpus: int, rounds: int, more: list[str]) -> None:
    """Print the rate of one design on so many CPUs: a copy of the trace for every pair of CPUs, up to 16 copies."""
    copies = max(1, min(cpus // 2, 16))
    window = 0.0 if copies == 1 else 18.3 / copies
    plan = plan_from([f"design={design}", "cost=opteron2003", f"machine.cpus={cpus}", "machine.ram_bytes=2GiB",
                      "machine.kva_bytes=1021MiB", "workload=filetree", f"workload.trace={trace}",
                      f"workload.copies={copies}", f"workload.window_s={window}", "workload.shift_s=0.5",
                      *more])[0]  # fmt: skip
    config = json.loads(plan.cells["config"].iloc[0])
    load = build(config["workload"], cpus=cpus, seed=0, replicas=(0,))
    stream = load.streams[0]
    rates, events = [], 0
    for _ in range(rounds + 1):
        t = timed.boot(config, load.kinds, stream, 0)
        started = time.process_time()
        t = advance(t, 10**13)
        seconds = time.process_time() - started
        rates.append(int(t.world.counters[tally.OPS]) / seconds / 1e6)
        events = int(t.wired.m[glob.EVENTS])
    rates = sorted(rates[1:])
    per = events / stream.length
    memory = (t.wired.m.nbytes + t.world.objects.nbytes + t.world.reg.nbytes) / 2**20
    print(
        f"{design:18} {cpus:5} CPUs  {statistics.median(rates):6.2f} M operations/s (best {rates[-1]:.2f}), "
        f"{stream.length:,} operations, {per:.2f} events each, machine {memory:.1f} MiB"
    )


if __name__ == "__main__":
    main()
