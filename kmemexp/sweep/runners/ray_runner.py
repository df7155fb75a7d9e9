"""Simulates on Ray: one task per batch, on this machine or on a cluster.

Ray's own retries are off: the driver sees every crash, and cuts the batch in two to find the lane that causes it.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # else `uv run` makes Ray upload the working directory
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else each start warns about GPUs
if (Path.home() / ".ray" / "auth_token").exists():
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # `ray start` does so by itself, a Ray client does not

import ray
from ray import exceptions as ray_errors

from kmemexp.errors import InputError
from kmemexp.sweep.batches import Batch, Target
from kmemexp.sweep.runners import Finished, own_ray, ray_log
from kmemexp.sweep.worker import run_batch

PER_CPU = 3  # batches in flight per CPU: one in work, the next ones on their way
OBJECT_STORE_BYTES = 100 << 20  # results do not pass through it
CRASHES = (
    ray_errors.WorkerCrashedError,
    ray_errors.OutOfMemoryError,
    ray_errors.NodeDiedError,
    ray_errors.LocalRayletDiedError,
    ray_errors.ObjectLostError,
)
PROBE_SECONDS = 10.0
COUNT_SECONDS = 1.0  # between two looks at how many CPUs there are: each asks Ray's server
PASSED_ON = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK")


class Runner:
    """See `runners.Runner`. Uses the Ray that this process is connected to already, if it is."""

    def __init__(self, cluster: Mapping[str, Any], target: Target) -> None:
        self._address = cluster.get("address") or "local"
        self._num_cpus = cluster.get("num_cpus")
        self._window = cluster.get("window")
        self._target = target
        self._running: dict[Any, Batch] = {}
        self._ours = False
        self._own = contextlib.ExitStack()
        self._there = (0, -COUNT_SECONDS)  # CPUs, and when they were counted

    def start(self) -> None:
        """Start a Ray on this machine, or connect to the cluster at `address`."""
        options: dict[str, Any] = {"max_retries": 0, "num_cpus": 1}
        if ray.is_initialized():
            options["runtime_env"] = {"env_vars": _environment()}
        else:
            _probe(self._address)
            self._ours = True  # also where it fails halfway
            self._own.enter_context(ray_log.logged(self._target.root))
            if self._address == "local":
                folder = own_ray.folder()
                self._own.callback(own_ray.remove, folder)
                self._own.enter_context(own_ray.secured())
                _connect(self._address, self._num_cpus, {"_temp_dir": str(folder)} if folder else {})
            else:
                _connect(self._address, self._num_cpus, {})
        self._task: Any = ray.remote(run_batch).options(**options)  # whose type would forget the arguments

    def cpus(self) -> int:
        """CPUs of all nodes that are up, or as many of them as the configuration allows."""
        there = self._cpus_there()
        return max(1, min(there, self._num_cpus or there))

    def window(self) -> int:
        """Follow the cluster as nodes come and go: more batches than CPUs, or an autoscaler would see no demand.

        Where only some of its CPUs may be used, as many batches as those.
        """
        allowed = self.cpus()
        return self._window or (allowed if allowed < self._cpus_there() else PER_CPU * allowed)

    def log(self) -> str:
        """What Ray says of a dead worker: a Ray that was there before prints it."""
        return ray_log.NAME if self._ours else ""

    def submit(self, batch: Batch, attempt: int) -> None:
        """Hand the batch to Ray."""
        self._running[self._task.remote(batch, self._target, attempt)] = batch

    def poll(self, timeout: float) -> list[Finished]:
        """Collect what has finished. A dead worker or node is a crash; what a worker raised is raised."""
        if not self._running:
            return []
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout)
        return self.collected() if ready else []

    def collected(self) -> list[Finished]:
        """Collect what has finished, without waiting."""
        if not self._running:
            return []
        ready, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._collect(ref) for ref in ready]

    def close(self) -> None:
        """Stop tasks in work, and Ray if it was started or connected to here."""
        if self._ours:
            ray.shutdown()
            self._own.close()
        else:
            for ref in self._running:
                ray.cancel(ref, force=True)
        self._running.clear()

    def _cpus_there(self) -> int:
        if time.monotonic() - self._there[1] >= COUNT_SECONDS:
            found: Any = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray does not annotate it
            self._there = int(found.get("CPU", 0)), time.monotonic()
        return self._there[0]

    def _collect(self, ref: Any) -> Finished:
        batch = self._running.pop(ref)
        try:
            return Finished(batch, ray.get(ref))
        except CRASHES as error:
            return Finished(batch, None, f"{type(error).__name__}: the worker died while it simulated this row")
        except ray_errors.RayTaskError as error:
            raise _cause(error) from None


def _cause(error: ray_errors.RayTaskError) -> Exception:
    """Find what the worker raised, with its traceback there unless it is a message to the user."""
    if isinstance(error.cause, InputError):
        return error.cause
    cause: Exception = error.as_instanceof_cause()  # type: ignore[no-untyped-call]  # Ray does not annotate it
    return cause


def _environment() -> dict[str, str]:
    """Variables of every worker: one thread each, and this process's settings of Numba."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"} | passed_on


def _connect(address: str, num_cpus: int | None, more: Mapping[str, Any]) -> None:
    package = Path(__file__).resolve().parents[2]
    environment: dict[str, Any] = {"env_vars": _environment()}
    how = dict(more)
    if address == "local":
        environment["env_vars"]["PYTHONPATH"] = _python_path(package.parent)
        how |= {"num_cpus": num_cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    else:
        environment["py_modules"] = [str(package)]  # every node simulates with the driver's own code
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR, **how)
    except Exception as error:  # of no type of its own where, say, the machine is too busy for Ray to start in time
        ray.shutdown()
        raise InputError(_advice(address, error)) from error


def _probe(address: str) -> None:
    """Raise InputError if nothing listens at HOST:PORT: Ray itself would wait for minutes."""
    target = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    host, _, port = target.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise InputError(_advice(address, error)) from error


def _python_path(first: Path) -> str:
    return os.pathsep.join(filter(None, [str(first), os.environ.get("PYTHONPATH")]))


def _advice(address: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if address == "local":
        return f"Ray does not start on this machine: {reason}. cluster=serial runs the same sweep without it."
    return (
        f"no Ray cluster at cluster.address={address}: {reason}. Start one with `ray start --head` and use "
        "cluster.address=auto on that machine or ray://HOST:10001 from another (pip install 'kmemexp[cluster]'; its "
        "token, if it wants one, belongs in ~/.ray/auth_token); or use cluster=local or cluster=serial."
    )
