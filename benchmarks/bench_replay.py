"""Speed of the replay driver, per design, on a real trace; and how soon a new process simulates its first operation.

    python benchmarks/bench_replay.py [TRACE] [--designs NAME,NAME] [--repeat N] [--few]

TRACE is a shipped trace's name or a file (default: the compile trace beside the checkout, else pgbench).
Rates are operations per CPU second of the driver alone: no sampling, no stream building.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import kmemexp
from kmemexp.boot.machine import boot
from kmemexp.planning.plan import plan_from
from kmemexp.workload import roles
from kmemexp.workload.stream import Kinds, Stream, columns
from kmemexp.workload.traces import library

COMPILE = Path(__file__).resolve().parents[2] / "shared" / "traces" / "compile.txt.zst"


def configuration(design: str) -> dict:
    (plan,) = plan_from([f"design={design}", "machine.ram_bytes=512MiB", "machine.kva_bytes=1021MiB"])
    return json.loads(plan.cells["config"].iloc[0])


def rate(design: str, kinds: Kinds, stream: Stream, repeat: int) -> list[float]:
    config = configuration(design)
    kinds = roles.cast(kinds, config.get("roles"))
    rates = []
    for _ in range(repeat + 1):
        machine = boot(config, kinds, stream.slots)
        begin = time.process_time()
        machine.replay(machine.world, *columns(stream), 0, stream.length)
        rates.append(stream.length / (time.process_time() - begin))
    return rates[1:]


def first_operation(design: str) -> float:
    """Wall seconds from the start of a new process to its first simulated operation (the compiled code is on disk)."""
    program = (
        "import json, sys, numpy as np\n"
        "from kmemexp.boot.machine import boot\n"
        "from kmemexp.workload.stream import Kinds, columns, one_allocation\n"
        "none = np.zeros(1, np.int32)\n"
        "kinds = Kinds(('malloc',), none.astype(np.int8), none, none, none)\n"
        "machine = boot(json.loads(sys.argv[1]), kinds, 1)\n"
        "assert machine.replay(machine.world, *columns(one_allocation(0, 100)), 0, 1) == 1\n"
    )
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, json.dumps(configuration(design))], check=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", default=str(COMPILE) if COMPILE.exists() else "pgbench")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--designs", default="", help="default: all")
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how fast")
    given = parser.parse_args()
    if given.few:
        given.trace, given.repeat, given.designs = "filetree", 1, "mail2003_bare"
    designs = given.designs.split(",") if given.designs else kmemexp.designs()["design"]
    trace = library.load(given.trace)
    kinds, stream = trace.kinds, trace.stream
    print(f"{given.trace}: {stream.length:,} operations")
    for design in designs:
        rates = rate(design, kinds, stream, given.repeat)
        first = min(first_operation(design) for _ in range(1 if given.few else 3))
        print(
            f"{design:20} {statistics.median(rates) / 1e6:6.2f} M operations/s (best {max(rates) / 1e6:.2f}), "
            f"first operation of a new process after {first:.2f} s"
        )


if __name__ == "__main__":
    main()
