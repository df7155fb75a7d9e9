"""How long a design takes to compile, and a process to its first operation: each in a process of its own.

    python benchmarks/bench_compile.py [--designs freebsd4,mail2003_bare] [--cost opteron2003] [--few]

In an empty cache the first design also compiles the kernels that all designs share; the ones after it do not.
`--few` loads one design from the usual cache, or compiles it into that.
"""

import argparse
import os
import subprocess
import sys
import tempfile

SCRIPT = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
from kmemexp.lane.compiling import warm_one
from kmemexp.planning.plan import plan_from
loaded = time.process_time() - cpu
(plan,) = plan_from([f"design={sys.argv[1]}", f"cost={sys.argv[2]}"])
config = json.loads(plan.cells["config"].iloc[0])
cpu = time.process_time()
warm_one(config)
print(f"{time.process_time() - cpu:.2f} s CPU to compile or load,",
      f"{time.perf_counter() - wall:.2f} s from start to the first operation")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--designs", default="mail2003_bare,freebsd4,mail2003_bare,freebsd4")
    parser.add_argument("--cost", default="opteron2003")
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how fast")
    args = parser.parse_args()
    designs = args.designs.split(",")[: 1 if args.few else None]
    with tempfile.TemporaryDirectory() as cache:
        kept = {} if args.few else {"NUMBA_CACHE_DIR": cache}
        for n, design in enumerate(designs):
            run = [sys.executable, "-c", SCRIPT, design, args.cost]
            said = subprocess.run(run, env=os.environ | kept, capture_output=True, text=True, check=True)
            print(f"{n + 1}. {design:18} {said.stdout.strip()}")


if __name__ == "__main__":
    main()
