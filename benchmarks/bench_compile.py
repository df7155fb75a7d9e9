"""How long a design takes to compile, and a process to its first operation: each in a process of its own.

    python benchmarks/bench_compile.py [--designs freebsd4,mail2003_bare] [--cost none,opteron2003] [--job] [--few]

In an empty cache the first design also compiles the kernels that all designs share; the ones after it do not. Of
several costs one process compiles the drivers of each. `--job` runs the README's main job from an empty cache instead.
`--few` loads one design from the usual cache, or compiles it into that.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
from kmemexp.lane.compiling import warm_one
from kmemexp.planning.plan import plan_from
loaded = time.process_time() - cpu
plans = [plan_from([f"design={sys.argv[1]}", f"cost={cost}"])[0] for cost in sys.argv[2].split(",")]
configs = [json.loads(plan.cells["config"].iloc[0]) for plan in plans]
cpu = time.process_time()
for config in configs:
    warm_one(config)
print(f"{time.process_time() - cpu:.2f} s CPU to compile or load,",
      f"{time.perf_counter() - wall:.2f} s from start to the first operation")
"""


def job() -> str:
    """Run the main job from nothing. Returns when its first row was stored, and when the last code was."""
    with tempfile.TemporaryDirectory() as folder:
        cache, results = Path(folder, "cache"), Path(folder, "results")
        run = [sys.executable, "-m", "kmemexp", "+sweep=fragmentation", f"store.root={results}", "output=quiet"]
        begin = time.time()
        subprocess.run(run, env=os.environ | {"NUMBA_CACHE_DIR": str(cache)}, check=True)
        end = time.time()
        rows = sorted(path.stat().st_mtime for path in results.rglob("*.parquet"))
        code = [path.stat().st_mtime for path in cache.rglob("*.nbc")]
    return (
        f"first row after {rows[0] - begin:.1f} s, last code after {max(code) - begin:.1f} s, all {end - begin:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--designs", default="mail2003_bare,freebsd4,mail2003_bare,freebsd4")
    parser.add_argument("--cost", default="opteron2003")
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how fast")
    parser.add_argument("--job", action="store_true", help="the main job: first row, last code, end")
    args = parser.parse_args()
    if args.job:
        print(job())
        return
    designs = args.designs.split(",")[: 1 if args.few else None]
    with tempfile.TemporaryDirectory() as cache:
        kept = {} if args.few else {"NUMBA_CACHE_DIR": cache}
        for n, design in enumerate(designs):
            run = [sys.executable, "-c", SCRIPT, design, args.cost]
            said = subprocess.run(run, env=os.environ | kept, capture_output=True, text=True, check=True)
            print(f"{n + 1}. {design:18} {said.stdout.strip()}")


if __name__ == "__main__":
    main()
