"""What a sweep costs beside simulating: very many empty cells, through Ray and in one process; going on; reading.

An empty cell is one whose simulation takes no time, and that still has its rows: all its metrics, and a sample of its
series. What is left is this program's own: planning, batches, Ray, files, commits. Goals: 10 000 empty cells/s through
Ray on two cores, its start left out; a rerun with nothing to do within 3 s at 10⁵ cells, all told; 10⁶ rows read within
2 s. `--real` asks what Ray takes of a sweep of 2 000 cells that are simulated (goal: 5 % at most).

python benchmarks/bench_sweep.py [--cells 100000] [--real [--rounds 4]] [--few]
"""

import argparse
import contextlib
import dataclasses
import importlib
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import kmemexp
from kmemexp.lane.model import Lane
from kmemexp.metrics import NAMES, SERIES
from kmemexp.planning.plan import Plan, plan_from
from kmemexp.sweep.execute import execute

ROOT = Path(__file__).resolve().parents[1]
METRICS = np.random.default_rng(1).random(len(NAMES))
SAMPLE = np.ones((1, len(SERIES)), np.int64)
TABLES = 100_000  # cells: comparing more takes minutes
OPERATIONS = 1_000  # of an empty cell, for the size of batches: 50 µs
GRID = ["design=freebsd4,mail2003_bare", "workload=server2003", "sweep.reps.max=1"]
REAL = ["design=freebsd4,mail2003_bare", "workload=server2003", "workload.scale=0.5"]
SEEDS = 50  # of one round: 500 rows
LOOK_SECONDS = 0.5  # each look at all processes takes some 10 ms
TWO = "cluster.num_cpus=2"


def nothing(config: dict[str, Any], replicas: Sequence[int]) -> list[Lane]:
    """Lanes that take no time."""
    return [Lane(r, METRICS * (r + 1), "", SAMPLE, [], ()) for r in replicas]


def used() -> float:
    """CPU time of this process and of those that it has started and that have ended."""
    each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in each)


@contextlib.contextmanager
def timed(what: str) -> Iterator[list[float]]:
    """Print wall and CPU time of a block; yields a list that has the two when it ends."""
    found: list[float] = []
    wall, cpu = time.perf_counter(), used()
    yield found
    found += [time.perf_counter() - wall, used() - cpu]
    print(f"{what:44} {found[0]:8.2f} s wall, {found[1]:8.2f} s CPU", flush=True)


def empty(plan: Plan) -> Plan:
    """The same plan of empty cells."""
    columns = plan.columns | {"est_ops": [OPERATIONS] * len(plan.columns["est_ops"])}
    return dataclasses.replace(plan, simulate="bench_sweep:nothing", columns=columns)


def planned(folder: str, name: str, count: int, *more: str) -> tuple[list[str], Plan]:
    """Plan so many cells; returns the command's words too."""
    words = [*GRID, f"store.root={folder}", f"sweep.name={name}", f"seed=range({max(count // 2, 1)})", *more]
    (plan,) = plan_from(words)
    return words, plan


def cost(found: list[float], start: list[float], count: int) -> str:
    """What a cell costs beyond the start."""
    wall, cpu = (max(one - other, 1e-9) for one, other in zip(found, start, strict=True))
    return f"{count / wall:,.0f} cells/s, {1e6 * cpu / count:.0f} us CPU each"


def many(count: int) -> None:
    """Print what empty cells cost."""
    with tempfile.TemporaryDirectory() as folder:
        with timed(f"plan of {count:,} cells"):
            words, plan = planned(folder, "many", count, TWO)
        for name, more, cells in (("serial", "cluster=serial", count // 10), ("ray", TWO, count)):
            with timed(f"{name}: two cells") as start:
                execute(empty(planned(folder, f"few_{name}", 1, more)[1]), progress=False)
            with timed(f"{name}: {cells:,} cells") as found:
                execute(empty(plan if name == "ray" else planned(folder, name, cells, more)[1]), progress=False)
            print(f"empty cells, {name}, beyond the start: {cost(found, start, cells)}", flush=True)
        if count <= TABLES:
            for what in ("the command again: tables, report", "and again, nothing to do"):
                with timed(what):
                    subprocess.run([sys.executable, "-m", "kmemexp", *words], cwd=ROOT, check=True, capture_output=True)
        with timed(f"nothing to do for {count:,} cells: plan, run"):
            execute(empty(planned(folder, "many", count, TWO)[1]), progress=False)
        again = [sys.executable, __file__, "--cells", str(count), "--read", plan.root]  # without a plan in memory
        print(subprocess.run(again, check=True, capture_output=True, text=True).stdout, end="", flush=True)
        if count <= TABLES:  # configurations of many more are more text than a column holds
            with timed(f"load {count:,} rows, all metrics"):
                assert len(kmemexp.load(plan.root).metrics) == count


def read(root: str, count: int) -> None:
    """Print what it takes to load one metric of so many rows."""
    importlib.import_module("kmemexp.report.results")  # a notebook has imported pandas before
    with timed(f"load {count:,} rows, one metric"):
        assert len(kmemexp.load(root, metrics=["held_peak_bytes"]).metrics) == count


def real(overrides: Sequence[str], replicas: int, rounds: int) -> None:
    """Print what Ray takes of a sweep of real cells, on as many CPUs as this process has with `cluster=serial`: one.

    Both by turns, since other work on the machine comes and goes. Each has run two cells before its own two are timed:
    what is compiled and loaded for the first time must not count as what a start takes.
    """
    spent: dict[str, list[list[float]]] = {"serial": [], "ray": []}
    with tempfile.TemporaryDirectory() as folder, Everyone() as everyone:
        for turn in range(rounds):
            for name, more in (("serial", "cluster=serial"), ("ray", "cluster.num_cpus=1")):
                words = [*overrides, f"store.root={folder}", more, f"sweep.reps.max={replicas}"]
                seeds = [f"seed=range({turn * SEEDS},{(turn + 1) * SEEDS})"] if replicas > 1 else ["seed=0"]
                few = [*words[:-1], "seed=9999", "sweep.reps.max=1"]
                for what, those in (("warm", few), ("few", few), ("all", [*words, *seeds])):
                    (plan,) = plan_from([*those, f"sweep.name={name}_{what}_{turn}"])
                    before = everyone.used()
                    with timed(f"{name}: {what}, {plan.lanes:,} rows") as found:
                        execute(plan, progress=False)
                    took = [found[0], everyone.used() - before]
                    if what == "few":
                        start = took
                spent[name].append([one - other for one, other in zip(took, start, strict=True)])
    (wall, cpu), (ray_wall, ray_cpu) = (np.sum(spent[name], axis=0) for name in ("serial", "ray"))
    print(f"Ray takes x{ray_wall / wall:.3f} wall, x{ray_cpu / cpu:.3f} CPU beyond its start (all of its processes)")


class Everyone:
    """CPU time of this process and of all that descend from it, also of those that nobody waits for: Ray's workers."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], float] = {}
        self._end = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Everyone":
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._watcher.join()

    def used(self) -> float:
        """Seconds so far; what a process does within its last half second may be missing."""
        self._look()
        return sum(self._seen.values()) / os.sysconf("SC_CLK_TCK")

    def _watch(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        parent, ticks = {}, {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                pid = int(folder.name)
                parent[pid], ticks[pid] = int(fields[1]), ((pid, fields[19]), int(fields[11]) + int(fields[12]))
        for pid, (process, spent) in ticks.items():
            above = pid
            while above not in (0, os.getpid()):
                above = parent.get(above, 0)
            if above:
                self._seen[process] = spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--real", action="store_true", help="cells that are simulated, instead of empty ones")
    parser.add_argument("--rounds", type=int, default=4, help="of 500 rows each, of cells that are simulated")
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how fast")
    parser.add_argument("--read", metavar="FOLDER", help="only load the results of so many cells")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    if args.read:
        read(args.read, args.cells)
    elif args.real:
        real(REAL, 1 if args.few else 5, 1 if args.few else args.rounds)
    else:
        many(100 if args.few else args.cells)


if __name__ == "__main__":
    sys.modules["bench_sweep"] = sys.modules["__main__"]
    main()
