"""Disturb sweeps at random instants, let them go on, and compare every row with an undisturbed serial run.

python benchmarks/reliability.py [KIND …] [--trials 20] [--seed 0] [--runner ray]

Kinds: worker (SIGKILL to a worker), driver (SIGKILL to the driver and all that it has started), term, hup, int (the
driver gets that signal), two (two drivers at once), bits, cut, gone, swapped (files of a finished folder are damaged
and repaired). Each trial ends with the same questions: is every (cell, replica) there exactly once, and are all five
tables, bit by bit, those of the undisturbed run? docs/reliability.md says what came out.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from kmemexp.lane.model import Lane
from kmemexp.metrics import NAMES, SERIES
from kmemexp.planning.plan import Plan
from kmemexp.store import checking
from kmemexp.store.schema import SCHEMAS
from kmemexp.store.store import Store
from kmemexp.sweep.execute import execute

HERE = Path(__file__).resolve().parent
CELLS, REPLICAS = 30, 3
DRIVE = "import sys, json, reliability as r; r.drive(json.loads(sys.argv[1]))"
SIGNALS = {"term": signal.SIGTERM, "hup": signal.SIGHUP, "int": signal.SIGINT}


def simulate(config: dict, replicas: tuple[int, ...]) -> list[Lane]:
    """Lanes that take as long as they are told, and say by a file that their process is at work."""
    return [_lane(config, replica) for replica in replicas]


def _lane(config: dict, replica: int) -> Lane:
    Path(config["workers"], str(os.getpid())).touch()
    time.sleep(config["pause"])
    rng = np.random.default_rng([config["n"], replica])
    series = rng.integers(0, 1 << 40, (4, len(SERIES)))
    pictures = [(0, "kernel_map", rng.integers(0, 256, 8, np.uint8))]
    caches = ((0, "peak", "slub", "dentry", 192, *rng.integers(0, 99, 5).tolist()),)
    waits = (("wait", 7, *rng.random(5).tolist()),)
    return Lane(replica, rng.random(len(NAMES)), "", series, pictures, waits, caches=caches)


def make_plan(root: Path, workers: Path, cluster: dict, pause: float = 0.0) -> Plan:
    """Plan the sweep that is disturbed."""
    columns: dict[str, list] = {
        "cell_key": [f"{n:032x}" for n in range(CELLS)],
        "config": [json.dumps({"n": n, "workers": str(workers), "pause": pause, "seed": 0}) for n in range(CELLS)],
        "axes": [json.dumps({"n": n}) for n in range(CELLS)],
        "design": ["d"] * CELLS, "workload": ["w"] * CELLS, "cpus": [2] * CELLS, "ram_bytes": [1 << 27] * CELLS,
        "kva_bytes": [1 << 28] * CELLS, "stream_key": [f"s{n // 3}" for n in range(CELLS)],
        "est_ops": [2_000_000] * CELLS, "timed": [False] * CELLS,
    }  # fmt: skip
    return Plan(
        name="trial", description="", columns=columns, replicas=REPLICAS, excluded=0, collapsed=0, baseline={},
        metrics=[], root=str(root), cluster=cluster, action="run", retry_failed=False, max_failures=None,
        progress=False, simulate="reliability:simulate",
    )  # fmt: skip


def drive(given: dict) -> None:
    """Be a driver."""
    outcome = execute(make_plan(Path(given["root"]), Path(given["workers"]), given["cluster"], 0.05), progress=False)
    sys.exit(3 if outcome.failed else 128 + outcome.signal if outcome.interrupted else 0)


class Trial:
    """A results folder, the drivers that work on it, and what is asked in the end."""

    def __init__(self, folder: Path, rng: random.Random, cluster: dict, expected: dict) -> None:
        self.root, self.workers = folder / "r", folder / "workers"
        self.workers.mkdir(parents=True)
        self.rng, self.cluster, self.expected = rng, cluster, expected

    def start(self) -> subprocess.Popen:
        """Start a driver."""
        given = {"root": str(self.root), "workers": str(self.workers), "cluster": self.cluster}
        path = os.pathsep.join([str(HERE), str(HERE.parent)])
        environ = os.environ | {"PYTHONPATH": path, "RELIABILITY": str(self.root)}
        return subprocess.Popen(
            [sys.executable, "-c", DRIVE, json.dumps(given)],
            env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def begun(self, driver: subprocess.Popen) -> None:
        """Wait until something is simulated, and then some."""
        while driver.poll() is None and not any(self.workers.iterdir()):
            time.sleep(0.01)
        time.sleep(self.rng.uniform(0, 2.5))

    def end(self, driver: subprocess.Popen, allowed: tuple[int, ...] = (0,)) -> None:
        """Wait for a driver. What it writes may not be a stack dump."""
        _, said = driver.communicate(timeout=120)
        assert driver.returncode in allowed, (driver.returncode, said)
        assert not any(word in said for word in ("Traceback", "*** SIG", "stack trace", "RuntimeError")), said

    def check(self) -> None:
        """Let a run finish what is left, and compare."""
        plan = make_plan(self.root, self.workers, {"runner": "serial"})
        outcome = execute(plan, progress=False)
        assert outcome.done + outcome.skipped == CELLS * REPLICAS, outcome
        rows = pd.read_parquet(self.root)[["cell_key", "replica"]]
        assert len(rows) == CELLS * REPLICAS == len(rows.drop_duplicates())
        for table in SCHEMAS:
            assert comparable(Store(str(self.root)), table).equals(self.expected[table]), table
        assert not checking.examine(str(self.root))[1]
        for _ in range(50):  # a worker may outlive a killed driver for seconds, and stage what nobody waits for
            Store(str(self.root), write=True).close()
            if not any(p.is_file() for p in (self.root / "_staging").rglob("*")):
                return
            time.sleep(0.2)
        raise AssertionError("something is left in _staging")


def comparable(store: Store, table: str) -> object:
    """A table without what differs from trial to trial: the folder that the configuration names."""
    found = store.read(table)
    return found.drop(["config"]) if table == "metrics" else found


def killed_worker(trial: Trial) -> None:
    driver = trial.start()
    trial.begun(driver)
    for path in trial.rng.sample(sorted(trial.workers.iterdir()), 1):
        if trial.cluster["runner"] == "ray":
            kill(int(path.name))
    trial.end(driver)


def killed_driver(trial: Trial) -> None:
    driver = trial.start()
    trial.begun(driver)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    driver.stderr.close()


def signalled(number: int) -> Callable[[Trial], None]:
    def run(trial: Trial) -> None:
        driver = trial.start()
        trial.begun(driver)
        driver.send_signal(number)
        if trial.rng.random() < 0.3:
            time.sleep(trial.rng.uniform(0, 0.3))
            driver.send_signal(number)
        trial.end(driver, (0, 128 + number))

    return run


def two_drivers(trial: Trial) -> None:
    drivers = [trial.start(), trial.start()]
    for driver in drivers:
        trial.end(driver)


def damaged(how: str) -> Callable[[Trial], None]:
    def run(trial: Trial) -> None:
        execute(make_plan(trial.root, trial.workers, {"runner": "serial", "batch_s": 0.2}), progress=False)
        paths = sorted(p for p in trial.root.rglob("*") if p.is_file() and p.parent.name in WITH_DIGEST)
        one = trial.rng.choice(paths)
        data = bytearray(one.read_bytes())
        if how == "bits":
            at = trial.rng.randrange(8 * len(data))
            data[at // 8] ^= 1 << at % 8
            one.write_bytes(bytes(data))
        elif how == "cut":
            one.write_bytes(bytes(data[: trial.rng.randrange(len(data))]))
        elif how == "gone":
            one.unlink()
        else:
            other = trial.rng.choice([p for p in paths if p.parent == one.parent and p != one])
            one.write_bytes(other.read_bytes())
        _, found = checking.examine(str(trial.root))
        last = one.name == f"{len([p for p in paths if p.parent.name == '_manifest']) - 1:08}.json"
        assert found or (how in ("gone", "swapped") and last), one
        checking.repair(str(trial.root))

    return run


WITH_DIGEST = ("data", "_series", "_latency", "_snapshots", "_caches", "_manifest")
KINDS: dict[str, Callable[[Trial], None]] = {
    "worker": killed_worker, "driver": killed_driver, "two": two_drivers,
    **{name: signalled(number) for name, number in SIGNALS.items()},
    **{how: damaged(how) for how in ("bits", "cut", "gone", "swapped")},
}  # fmt: skip


def kill(pid: int) -> None:
    """Kill a process, if it is there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runner", default="ray", choices=["ray", "serial"])
    parser.add_argument("--few", action="store_true", help="one trial of two kinds that need no further process")
    args = parser.parse_args()
    sys.modules["reliability"] = sys.modules["__main__"]
    kinds = args.kinds or (["bits", "gone"] if args.few else list(KINDS))
    cluster = {"runner": args.runner, "num_cpus": 2, "batch_s": 0.2}
    with tempfile.TemporaryDirectory() as temporary:
        whole = Trial(Path(temporary, "whole"), random.Random(0), cluster, {})
        execute(make_plan(whole.root, whole.workers, {"runner": "serial"}), progress=False)
        expected = {table: comparable(Store(str(whole.root)), table) for table in SCHEMAS}
        for kind in kinds:
            started, trials = time.monotonic(), 1 if args.few else args.trials
            for number in range(trials):
                rng = random.Random(f"{kind}/{args.seed}/{number}")
                trial = Trial(Path(temporary, f"{kind}{number}"), rng, cluster, expected)
                KINDS[kind](trial)
                trial.check()
                shutil.rmtree(trial.root.parent)
            print(f"{kind:8} {trials} trials, all the same in the end, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
