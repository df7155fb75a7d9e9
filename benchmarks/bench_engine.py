"""Speed of the engine with a clock: operations per second and core, with interrupts, histograms and wait graph on.

python benchmarks/bench_engine.py [TRACE] [--cpus 1,4,64,1024] [--designs mail2003_bare] [--today linux_6_18] [--few]

A kernel of 2003 is saturated on 1 024 CPUs (docs/performance.md): it is measured for two seconds of simulated time, in
which few operations end, and what counts are its events. What a machine does that is not, `--today` shows.
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
from kmemexp.workload import roles
from kmemexp.workload.build import build

MANY = 64  # CPUs, beyond which a kernel of 2003 is stopped after SECONDS
SECONDS = 2.0  # of simulated time
ENOUGH = 1e4  # of it, for the whole stream
OF_2003 = ("cost=opteron2003", "machine.ram_bytes=2GiB", "machine.kva_bytes=1021MiB")
OF_TODAY = ("cost=epyc2024", "machine=amd64_64g")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "traces" / "compile.txt.zst"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", default=str(SHARED) if SHARED.exists() else "filetree")
    parser.add_argument("--cpus", default="1,4,64,1024")
    parser.add_argument("--designs", default="mail2003_bare")
    parser.add_argument("--today", default="linux_6_18", help="design on more than 64 CPUs of a machine of today")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="further overrides")
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how fast")
    args = parser.parse_args()
    if args.few:
        args.trace, args.cpus, args.rounds = "filetree", "1", 1
    counts = list(map(int, args.cpus.split(",")))
    for design in args.designs.split(","):
        for cpus in counts:
            until_s = SECONDS if cpus > MANY else ENOUGH
            measure(design, args.trace, cpus, args.rounds, [*OF_2003, *args.set], until_s)
    for cpus in counts:
        if cpus > MANY and args.today:
            measure(args.today, args.trace, cpus, args.rounds, [*OF_TODAY, *args.set], ENOUGH)


def measure(design: str, trace: str, cpus: int, rounds: int, more: list[str], until_s: float) -> None:
    """Print the rate of one design on so many CPUs: a copy of the trace for every pair of CPUs, up to 16 copies."""
    copies = max(1, min(cpus // 2, 16))
    window = 0.0 if copies == 1 else 18.3 / copies
    plan = plan_from([f"design={design}", f"machine.cpus={cpus}", "workload=filetree", f"workload.trace={trace}",
                      f"workload.copies={copies}", f"workload.window_s={window}", "workload.shift_s=0.5",
                      *more])[0]  # fmt: skip
    config = json.loads(plan.cells["config"].iloc[0])
    load = build(config["workload"], cpus=cpus, seed=0, replicas=(0,))
    kinds, stream = roles.cast(load.kinds, config.get("roles")), load.streams[0]
    rates, speeds = [], []
    for _ in range(rounds + 1):
        t = timed.boot(config, kinds, stream, 0)
        started = time.process_time()
        t = advance(t, round(until_s * 1e9))
        seconds = time.process_time() - started
        operations, events = int(t.world.counters[tally.OPS]), int(t.wired.m[glob.EVENTS])
        rates.append(operations / seconds / 1e6)
        speeds.append(events / seconds / 1e6)
    rates, speed = sorted(rates[1:]), statistics.median(speeds[1:])
    memory = (t.wired.m.nbytes + t.world.objects.nbytes + t.world.reg.nbytes) / 2**20
    print(
        f"{design:18} {cpus:5} CPUs  {statistics.median(rates):6.2f} M operations/s (best {rates[-1]:.2f}), "
        f"{operations:,} operations, {events / operations:.2f} events each, at {speed:.2f} M/s, "
        f"machine {memory:.1f} MiB"
    )


if __name__ == "__main__":
    main()
