"""Host memory of a lane on a large machine whose load touches little of it, per design.

    python benchmarks/bench_memory.py [--designs NAME,NAME] [--ram 256GiB] [--few]

The machine has 128 TiB of KVA; the load makes 1.6 million objects, 2 GiB together, of which nothing is freed. Each
design runs in a process of its own, after another one that has put the compiled code on disk. `process` is the peak of
its resident set; of that are `modules` what importing took, `code` what a lane of four objects on 4 GiB added (compiled
code, more modules), and `lane` what came then: the load, and the machine's state.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from kmemexp.lane import simulate_lanes
from kmemexp.metrics import NAMES
from kmemexp.planning.plan import plan_from

DESIGNS = "linux_6_12,linux_6_18,linux_7_1,illumos_amd64,freebsd15"
BAR_MIB = 600
OBJECTS = {  # by kind: class, bytes, how many
    "inode": ("zone", 1120, 1_150_000),
    "name": ("zone", 192, 340_000),
    "page": ("malloc", 4096, 100_000),
    "buffer": ("malloc", 65536, 6_500),
}


def configuration(design: str, ram: str, share: float) -> dict:
    """Configuration of the cell, with that share of the objects."""
    given = [f"design={design}", "machine=amd64_64g", f"machine.ram_bytes={ram}", "workload=idle"]
    (plan,) = plan_from(given)
    config = json.loads(plan.cells["config"].iloc[0])
    kinds = {
        name: {
            **config["workload"]["kinds"]["nothing"],
            "class": klass,
            "size": {"law": "fixed", "bytes": nbytes},
            "start": max(int(count * share), 1),
            "growth": 1,
        }
        for name, (klass, nbytes, count) in OBJECTS.items()
    }
    return config | {"workload": config["workload"] | {"kinds": kinds}}


def peak_mib() -> int:
    """Peak of this process' resident set; not ru_maxrss, which begins with what the parent had."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) >> 10 if found else 0


def measure(design: str, ram: str, share: float) -> None:
    """Print what a lane takes in this process."""
    modules = peak_mib()
    simulate_lanes(configuration(design, "4GiB", 0.0), [0])
    before = peak_mib()
    (lane,) = simulate_lanes(configuration(design, ram, share), [0])
    held = lane.metrics[NAMES.index("held_peak_bytes")] / 2**20
    word = "" if peak_mib() <= BAR_MIB else f" (bar: {BAR_MIB})"
    print(
        f"{design:20} process {peak_mib():5} MiB{word}: modules {modules:4} MiB, code {before - modules:4} MiB, "
        f"lane {peak_mib() - before:5} MiB; touched {held:7.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--designs", default=DESIGNS)
    parser.add_argument("--ram", default="256GiB")
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how much it takes")
    parser.add_argument("--here", default="", help="measure this design in this process")
    parser.add_argument("--warm", default="", help="compile this design, if need be")
    given = parser.parse_args()
    if given.warm:
        simulate_lanes(configuration(given.warm, "4GiB", 0.0), [0])
        return
    if given.here:
        measure(given.here, given.ram, 0.01 if given.few else 1.0)
        return
    for design in ["linux_6_18"] if given.few else given.designs.split(","):
        again = [sys.executable, __file__, "--ram", given.ram, *(["--few"] if given.few else [])]
        subprocess.run([*again, "--warm", design], check=True)
        subprocess.run([*again, "--here", design], check=True)


if __name__ == "__main__":
    main()
