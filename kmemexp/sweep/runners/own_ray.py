"""A Ray of our own on this machine: on the loopback interface only, with a token, in a folder that is cleared."""

import contextlib
import functools
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import _raylet
from ray._private import ray_constants

from kmemexp.store import writers

OWNER = "owner.json"
LONGEST = 30  # letters of the folder's parent: a socket's path has 107 at the most, and Ray adds some 70


@contextlib.contextmanager
def secured() -> Iterator[None]:
    """Inside, a Ray that starts listens on 127.0.0.1, and asks whoever connects for a token.

    The token is in this process's environment, and in that of the processes which Ray starts.
    """
    token = {"RAY_AUTH_MODE": "token"}
    if not any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        token["RAY_AUTH_TOKEN"] = _token()
    before = {name: os.environ.get(name) for name in token}
    # Ray takes the address of the network's interface in place of 127.0.0.1, unless it may form no clusters.
    clusters, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    os.environ.update(token)
    _read_again()
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_again()


def _read_again() -> None:
    """Let Ray look at the environment: it did when it was imported, and keeps what it saw."""
    compiled: Any = _raylet  # whose names no annotation tells
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()


@functools.cache
def _token() -> str:
    """Make this process's token: workers that still end may ask with the one before."""
    return secrets.token_hex(32)


def folder() -> Path | None:
    """Make a folder for this process's Ray; those of processes that are dead are removed. None: Ray's own."""
    home = Path(tempfile.gettempdir())
    if len(str(home)) > LONGEST:
        return None
    home /= f"kray-{os.getuid()}"
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        state = home.lstat()
        if home.is_symlink() or state.st_uid != os.getuid() or state.st_mode & 0o077:
            return None
        _clear(home)
        mine = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=home))
        (mine / OWNER).write_text(json.dumps(writers.me()), "utf-8")
    except OSError:
        return None
    return mine


def remove(mine: Path | None) -> None:
    """Remove the folder of a Ray that has ended."""
    if mine is not None:
        shutil.rmtree(mine, ignore_errors=True)


def _clear(home: Path) -> None:
    for other in home.iterdir():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record: dict[str, Any] = json.loads((other / OWNER).read_text("utf-8"))
            if writers.is_here(record) and not writers.is_running(record):
                shutil.rmtree(other, ignore_errors=True)
