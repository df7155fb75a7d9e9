"""How long planning takes, and a rerun with nothing to do, process start included (goal: 3 s each); what of it is what.

`action=plan` of 20 000 cells and of the main job's sweep; a small sweep that is complete, whose tables are shown again.

python benchmarks/bench_plan.py [--repeat N] [--few]
"""

import argparse
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OVERRIDES = [
    "design=freebsd4,freebsd4_unified,dragonfly_2003aug25,mail2003_bare",
    "workload=filetree,server2003",
    "machine.kva_bytes=256MiB,384MiB,512MiB,768MiB,1GiB",
    "machine.cpus=range(1,6)",
    "seed=range(100)",
]
FEW = [*OVERRIDES[:-1], "seed=range(2)"]  # 400 cells


def process(what: str, words: list[str], repeats: int) -> None:
    """Time a command, best of several."""
    best = (float("inf"), 0.0)
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        run(words)
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, (wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    print(f"{what}: {best[0]:.2f} s wall, {best[1]:.2f} s CPU (best of {repeats}, load {os.getloadavg()[0]:.1f})")


def run(words: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "kmemexp", *words], cwd=ROOT, check=True, capture_output=True)


def rerun(repeats: int) -> None:
    """Simulate a small sweep, then time the same command."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["+sweep=smoke", "cluster=serial", f"store.root={folder}"]
        run(words)
        process("rerun of +sweep=smoke", words, repeats)


def stages(overrides: list[str]) -> None:
    """CPU time of the import, of the first plan and of a second one."""
    sys.path.insert(0, str(ROOT))
    marks = [time.process_time()]
    from kmemexp.planning.plan import plan_from  # noqa: PLC0415 (its import is timed)

    marks.append(time.process_time())
    cells = []
    for asked in (overrides[:2], overrides):
        (plan,) = plan_from(asked)
        cells.append(f"{plan.lanes // plan.replicas:,}")
        marks.append(time.process_time())
    spans = [after - before for before, after in itertools.pairwise(marks)]
    print(f"CPU time: import {spans[0]:.2f} s, {cells[0]} cells {spans[1]:.2f} s, {cells[1]} cells {spans[2]:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how fast")
    args = parser.parse_args()
    overrides = FEW if args.few else OVERRIDES
    repeats = 1 if args.few else args.repeat
    plan = ["action=plan", "store.root=/nowhere"]
    process("plan of 400 cells" if args.few else "plan of 20,000 cells", [*overrides, *plan], repeats)
    if not args.few:
        process("plan of +sweep=fragmentation", ["+sweep=fragmentation", *plan], repeats)
        rerun(repeats)
    stages(overrides)


if __name__ == "__main__":
    main()
