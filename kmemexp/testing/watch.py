"""Limits of the conformance suite: an operation of too many steps, and a step that does not come back."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple


class Limits(NamedTuple):
    """What an operation may take."""

    steps: int = 100_000
    seconds: float = 300.0  # of CPU, for one step; compiling is part of a kernel's first


class Progress:
    """What the suite is doing."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.steps = 0  # in all
        self.doing = "init"


@contextlib.contextmanager
def watched(name: str, limits: Limits) -> Iterator[Progress]:
    """End the process, with exit code 1 and a message, where one step takes too long.

    A kernel that loops lets neither a signal nor an exception through; but it runs without the interpreter's lock, so a
    thread can look. Who stands in a debugger uses no CPU.
    """
    progress, ended = Progress(limits), threading.Event()
    thread = threading.Thread(target=_watch, args=(name, progress, ended), daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        ended.set()
        thread.join()


def _watch(name: str, progress: Progress, ended: threading.Event) -> None:
    seen, since = -1, 0.0
    while not ended.wait(min(progress.limits.seconds / 4, 5.0)):
        if progress.steps != seen:
            seen, since = progress.steps, time.process_time()
        elif time.process_time() - since > progress.limits.seconds:
            says = f"{name}: {progress.doing}: a step has taken more than {progress.limits.seconds:g} s: a kernel loops"
            sys.__stderr__.write(f"{says}\n") if sys.__stderr__ else None
            os._exit(1)
