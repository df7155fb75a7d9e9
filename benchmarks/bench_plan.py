"""How long `action=plan` takes for 20 000 cells, process start included (goal: 3 s), and where the time goes.

python benchmarks/bench_plan.py [repeats]
"""

import itertools
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OVERRIDES = [
    "design=freebsd4,freebsd4_unified,dragonfly_nokmem,dragonfly_slab",
    "workload=filetree,server2003",
    "machine.kva_bytes=256MiB,384MiB,512MiB,768MiB,1GiB",
    "machine.cpus=range(1,6)",
    "seed=range(100)",
]


def process(repeats: int) -> None:
    """Time the whole command, best of several."""
    words = [sys.executable, "-m", "kmemexp", *OVERRIDES, "action=plan", "store.root=/nowhere"]
    best = (float("inf"), 0.0)
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        run = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, (wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    cells = next(line for line in run.stdout.splitlines() if line.startswith("cells"))
    print(
        f"{cells.strip()}: {best[0]:.2f} s wall, {best[1]:.2f} s CPU (best of {repeats}, load {os.getloadavg()[0]:.1f})"
    )


def stages() -> None:
    """CPU time of the import, of the first plan and of a second one."""
    sys.path.insert(0, str(ROOT))
    marks = [time.process_time()]
    from kmemexp.plan.plan import plan_from  # noqa: PLC0415 (its import is timed)

    marks.append(time.process_time())
    for overrides in (OVERRIDES[:2], OVERRIDES):
        plan_from(overrides)
        marks.append(time.process_time())
    spans = [after - before for before, after in itertools.pairwise(marks)]
    print(f"CPU time: import {spans[0]:.2f} s, plan of 8 cells {spans[1]:.2f} s, of 20 000 cells {spans[2]:.2f} s")


if __name__ == "__main__":
    process(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    stages()
