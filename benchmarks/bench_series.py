"""What the series of samples and the snapshots cost: lanes of a recording with and without them, by turns.

    python benchmarks/bench_series.py [TRACE] [--designs NAME,NAME] [--rounds N] [--few]

Medians of CPU seconds: of the stream's operations alone, and of whole lanes, which boot a machine and sum up their
metrics as well. The first replica is looked at more closely: who uses the maps, what is in each cache.
"""

import argparse
import statistics
import time

from bench_replay import COMPILE, configuration

from kmemexp.boot.machine import boot
from kmemexp.lane import replayed
from kmemexp.lane.model import Sampling
from kmemexp.lane.replica import Replica
from kmemexp.workload import roles
from kmemexp.workload.traces import library
from kmemexp.workload.traces.playing import Recording

NOTHING = {"points": 1, "snapshots": 0, "bins": 1}
LOOKS = {"series": NOTHING | {"points": 96}, "and snapshots": {"points": 96, "snapshots": 8, "bins": 256}}


def seconds(trace: Recording, config: dict, sample: dict[str, int], number: int, *, whole: bool) -> float:
    config = config | {"sample": sample}
    kinds = roles.cast(trace.kinds, config.get("roles"))
    machine = None if whole else boot(config, kinds, trace.stream.slots)
    begin = time.process_time()
    if machine is None:
        replayed.run(Replica(number, config, kinds, trace.stream, None, None))
    else:
        replayed.play(machine, trace.stream, Sampling(**sample), number, config["policy"])
    return time.process_time() - begin


def costs(trace: Recording, design: str, rounds: int, number: int, *, whole: bool) -> str:
    """Milliseconds without samples, and what each kind of them adds, as a share."""
    config = configuration(design)
    ways = {"alone": NOTHING, **LOOKS}
    took = {way: [seconds(trace, config, sample, number, whole=whole)] for way, sample in ways.items()}
    for way in [*ways] * rounds:
        took[way].append(seconds(trace, config, ways[way], number, whole=whole))
    alone, *more = (statistics.median(each[1:]) for each in took.values())
    return f"{alone * 1e3:6.1f} ms" + "".join(
        f", {way} {x / alone - 1:+.1%}" for way, x in zip(LOOKS, more, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", default=str(COMPILE) if COMPILE.exists() else "pgbench")
    parser.add_argument("--designs", default="freebsd4_unified,mail2003_bare,illumos,linux_6_18")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how fast")
    given = parser.parse_args()
    if given.few:
        given.trace, given.rounds, given.designs = "filetree", 1, "mail2003_bare"
    trace = library.load(given.trace)
    print(f"{given.trace}: {trace.stream.length:,} operations")
    for design in given.designs.split(","):
        print(f"{design:18} operations  {costs(trace, design, given.rounds, 1, whole=False)}")
        print(f"{'':18} whole lane  {costs(trace, design, given.rounds, 1, whole=True)}")
        print(f"{'':18} the first   {costs(trace, design, given.rounds, 0, whole=True)}")


if __name__ == "__main__":
    main()
