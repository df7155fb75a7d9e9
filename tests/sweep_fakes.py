"""A plan and a simulator for the tests of the store and the runners: quick, deterministic, and able to misbehave."""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from small_plan import small_plan

from kmemexp.errors import InputError
from kmemexp.metrics import NAMES, SERIES

SIMULATE = "sweep_fakes:simulate"


class Lane(NamedTuple):
    replica: int
    metrics: np.ndarray
    panic: str
    series: np.ndarray
    snapshots: list[tuple[int, str, np.ndarray]]
    latency: tuple[tuple, ...]
    deadlock: str
    caches: tuple[tuple, ...] = ()


def make_plan(root: object, configs: Sequence[dict], **given: Any) -> Any:
    """Make a plan of a cell per configuration, simulated here."""
    return small_plan(make_cells(configs), root, **({"simulate": SIMULATE} | given))


def simulate(config: dict, replicas: Sequence[int]) -> list[Lane]:
    """Random numbers that depend on the cell and the replica; `config` may ask for trouble in some replicas."""
    return [_lane(config, replica) for replica in replicas]


def _lane(config: dict, replica: int) -> Lane:
    if replica in config.get("fail", ()):
        raise ValueError(f"cell {config['n']} cannot do replica {replica}")
    if (path := config.get("fail_until")) and not Path(path).exists():
        raise RuntimeError("not yet")
    if replica in config.get("signals", ()):
        for number in config["numbers"]:
            os.kill(os.getpid(), number)
    if replica in config.get("stay", ()):
        time.sleep(60)
    if replica in config.get("poison", ()):
        POISONS[config.get("how", "kill")]()
    if (path := config.get("kill_once")) and not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if path := config.get("gate"):
        Path(path, f"started-{config['n']}-{replica}").touch()
        while not Path(path, "go").exists():
            time.sleep(0.01)
    if replica in config.get("meddle", ()):
        config["design"]["meddled"] = [replica]
    if path := config.get("touch"):
        Path(path).touch()
    rng = np.random.default_rng([config["n"], replica, config["seed"], *config["design"].get("meddled", [])])
    shots = [(i, name, rng.integers(0, 256, 4, np.uint8)) for i in range(2) for name in ("kernel_map", "kmem_map")]
    series = rng.integers(0, 1 << 40, (5, len(SERIES)))
    latency = (("alloc_main", 7, *rng.random(5).tolist()),)
    caches = ((0, "peak", "slub", "dentry", 192, *rng.integers(0, 99, 5).tolist()),)
    return Lane(replica, rng.random(len(NAMES)), "", series, shots, latency, "", caches)


def _loop_in_python() -> None:
    while True:
        pass


def _loop_in_kernel() -> None:
    import numba

    @numba.njit(nogil=True)
    def forever(a: np.ndarray) -> None:
        while a[0] != 1:
            a[1] += 1

    forever(np.zeros(2, np.int64))


def _hog() -> None:
    """Take 1 GiB at once, and hold it: time is to be no limit, however busy the machine."""
    held = np.ones(1 << 27)
    while held[0]:
        time.sleep(0.01)


POISONS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "vanish": lambda: os._exit(0),
    "exit": lambda: sys.exit(3),
    "interrupt": lambda: _raise(KeyboardInterrupt("in a cell")),
    "exception": lambda: _raise(ZeroDivisionError("in a cell")),
    "wild write": lambda: ctypes.memset(8, 0, 64),
    "loop in Python": _loop_in_python,
    "loop in a kernel": _loop_in_kernel,
    "hog": _hog,
}


def _raise(error: BaseException) -> None:
    raise error


def warm(configs: list[dict], left=None, ready=None, stopped=None) -> None:
    """Note how many were asked for, where the configuration names a file; refuse, wait or fail where it says so."""
    cold = [config for config in configs if not config.get("compiled")]
    left(len(cold), len(configs))
    for config in configs:
        if path := config.get("warmed"):
            with Path(path).open("a") as log:
                log.write(f"{len(configs)}\n")
        if config.get("refuse"):
            raise InputError("this design cannot be")
        if not config.get("warm_after"):
            ready(config)
    for config in configs:
        if path := config.get("warm_after"):
            while not Path(path).exists() and not stopped():
                time.sleep(0.01)
            ready(config)
        if config.get("refuse_at_last"):
            raise InputError("this design cannot be, as it turns out")


def make_cells(configs: Sequence[dict], streams: int = 3, est_ops: int = 3_000_000) -> Any:
    """The table of a plan: a cell per configuration, neighbours share a stream."""
    import pandas as pd

    rows = []
    for i, given in enumerate(configs):
        config = {"n": i, "seed": 7, "design": {"name": f"design{i % 2}"}} | given
        rows.append(
            {
                "cell_key": f"{i:032x}",
                "config": json.dumps(config, sort_keys=True),
                "axes": json.dumps({"design": i % 2}),
                "design": f"design{i % 2}",
                "workload": f"load{i // streams}",
                "cpus": 2,
                "ram_bytes": 128 << 20,
                "kva_bytes": 256 << 20,
                "stream_key": f"stream{i // streams}",
                "est_ops": est_ops,
                "timed": False,
            }
        )
    return pd.DataFrame(rows)
