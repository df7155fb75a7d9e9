"""Where results come from: what is written to `_run.json` each time a sweep simulates something."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from kmemexp.errors import StoreError
from kmemexp.store.files import DamageError
from kmemexp.store.store import Store

NAME = "_run.json"
PACKAGES = ("kmemexp", "numpy", "numba", "llvmlite", "pyarrow", "obstore", "pandas", "ray", "hydra-core")


def new_run(name: str, run_id: str, keys: Iterable[str], replicas: Sequence[int]) -> dict[str, Any]:
    """Record of a run that begins now: `name` of the sweep, keys of all cells of the plan."""
    return {
        "id": run_id,
        "sweep": name,
        "command": command(),
        "plan": plan_digest(keys, replicas),
        "started": now(),
        "ended": None,
        "outcome": None,
        "python": platform.python_version(),
        "versions": {package: version for package in PACKAGES if (version := _version(package))},
        "git": _git(),
        "host": {
            "name": platform.node(),
            "system": platform.platform(),
            "cpu": _cpu_model(),
            "cpus": os.cpu_count(),
        },
    }


def put(store: Store, run: Mapping[str, Any]) -> None:
    """Put a run's record last in `_run.json`, in place of an earlier one of the same id."""
    try:
        runs = read(store)
    except StoreError:  # kept, but it must not be in the way of results
        store.set_aside(NAME)
        runs = []
    runs = [other for other in runs if other.get("id") != run["id"]]
    store.write_text(NAME, json.dumps({"runs": [*runs, run]}, indent=1) + "\n")


def read(store: Store) -> list[dict[str, Any]]:
    """Records of the runs, the last one last. Raises DamageError."""
    try:
        runs = json.loads(store.read_text(NAME) or "{}").get("runs", [])
        return [dict(run) for run in runs]
    except (ValueError, AttributeError, TypeError) as error:
        raise DamageError(
            f"{store.root}/{NAME} is damaged: {error}. It tells where results come from; they do not depend on it. The "
            "next run moves it to _quarantine/ and begins a new one."
        ) from error


def command() -> str:
    """Write the command line of this process so that it can be typed again."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return shlex.join(["python", "-m", program.parent.name, *sys.argv[1:]])
    return shlex.join([program.name, *sys.argv[1:]])


def plan_digest(keys: Iterable[str], replicas: Sequence[int]) -> str:
    """Digest of what the plan asks for; the order of its cells does not matter."""
    return hashlib.sha256(json.dumps([sorted(keys), list(replicas)]).encode()).hexdigest()[:32]


def now() -> str:
    """Write this instant in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git() -> dict[str, Any] | None:
    """Commit of the checkout that the package runs from, and whether it was changed; None outside a checkout."""
    top = Path(__file__).resolve().parents[2]
    if not (top / ".git").exists():
        return None
    try:
        commit = _git_says(top, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git_says(top, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git_says(top: Path, *arguments: str) -> str:
    answer = subprocess.run(  # noqa: S603 (fixed arguments)
        ["git", "-C", str(top), *arguments],  # noqa: S607 (the user's own git)
        capture_output=True, text=True, check=True, timeout=10,
    )  # fmt: skip
    return answer.stdout.strip()
