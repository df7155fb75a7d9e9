"""Holding a cell to its limits of time and memory, from within the process that simulates it.

A thread watches. A cell that is over a limit gets an exception, which ends a loop in Python, and in compiled code at
its next return to Python. Where that does not help, an allocator loops in a kernel: then the process must die, and says
first of which cell (`verdicts`).
"""

import contextlib
import ctypes
import faulthandler
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kmemexp.values import size_text

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 5.0  # for the exception to arrive
SLACK = 0.1  # of the time after which the process ends
WALL = 5  # times the limit that a cell may take by the clock: a loaded machine gives it no more CPU time
STALE_SECONDS = 0.01  # a process may have used so much more than was asked last
PAGE = os.sysconf("SC_PAGE_SIZE")


class Limits(NamedTuple):
    """What one replica of a cell may take."""

    seconds: float | None = None  # of CPU time
    memory: int | None = None  # bytes beyond what the process had before
    steps: int | None = None  # of an allocator in one operation


class LimitError(BaseException):
    """A cell is over a limit. No Exception, so that no allocator of a user's catches it by accident."""


class Watch:
    """Watches the simulations of this thread; `doom(error)` ends the process where a simulation cannot be stopped."""

    def __init__(self, limits: Limits, doom: Callable[[str], object]) -> None:
        self._limits, self._doom = limits, doom
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._work: _Work | None = None
        self._ends = 0.0  # when the process ends, by time.monotonic()
        self._asked = _Used(-STALE_SECONDS, 0.0, 0)
        self.error = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Inside, there is a thread that watches."""
        if self._limits[:2] == (None, None):
            yield
            return
        watcher = threading.Thread(target=self._watch, daemon=True, name="kmemexp-limits")
        watcher.start()
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._end.set()
            watcher.join()

    @contextlib.contextmanager
    def over(self, replicas: int) -> Iterator[None]:
        """Inside, so many replicas of one cell are simulated. Raises LimitError there."""
        if self._limits[:2] == (None, None):
            yield
            return
        self.error = ""
        work = _Work(self._limits, replicas, self._used())
        with self._lock:
            self._work = work
        if seconds := self._limits.seconds:
            self._last_resort(WALL * seconds * replicas + 3 * PATIENCE_SECONDS)
        try:
            yield
        finally:
            with self._lock:
                work, self._work = self._work, None
                if work and work.told is not None:
                    _raise_in(self._thread, None)

    def _used(self) -> "_Used":
        """What this process has used by now, about: cells that take next to nothing are not worth asking each time."""
        if time.monotonic() - self._asked.wall >= STALE_SECONDS:
            self._asked = _Used(time.monotonic(), time.process_time(), _resident())
        return self._asked

    def _last_resort(self, seconds: float) -> None:
        """Let the process end so much later, or a little later still, if it has not come back here by then.

        For what holds Python's lock: no thread of Python's runs then. Each call starts a thread, so cells that take
        next to nothing share one.
        """
        least = time.monotonic() + seconds
        if not least <= self._ends <= least + SLACK * seconds:
            faulthandler.dump_traceback_later((1 + SLACK) * seconds, exit=True, file=_NOWHERE)
            self._ends = least + SLACK * seconds

    def _watch(self) -> None:
        while not self._end.wait(POLL_SECONDS):
            with self._lock:
                work = self._work
                if not work or not (error := work.excess()):
                    continue
                if work.told is None:
                    work.told, self.error = time.monotonic(), error
                    _raise_in(self._thread, LimitError)
                elif time.monotonic() - work.told > PATIENCE_SECONDS:
                    self._doom(f"{self.error}, in compiled code")


class _Used(NamedTuple):
    """What a process has used."""

    wall: float  # seconds, by time.monotonic()
    cpu: float  # seconds
    memory: int  # bytes


class _Work:
    """What is being simulated, and what it has taken so far; `before`: what the process had used."""

    def __init__(self, limits: Limits, replicas: int, before: _Used) -> None:
        self.told: float | None = None
        self._limits, self._replicas = limits, replicas
        self._wall, self._cpu, self._memory = before

    def excess(self) -> str:
        """Say which limit it is over, or ""."""
        seconds, memory, _ = self._limits
        if memory is not None and _resident() - self._memory > memory:  # first: what takes memory takes time too
            return f"LimitError: it took more than limits.memory={size_text(memory)}"
        if seconds is not None:
            most = seconds * self._replicas
            cpu, wall = time.process_time() - self._cpu, time.monotonic() - self._wall
            if cpu > most or wall > WALL * most:
                return f"LimitError: it took more than limits.seconds={seconds:g} s"
        return ""


def _resident() -> int:
    """Bytes of memory that this process has; 0 where that cannot be asked."""
    try:
        return int(os.pread(_statm(os.getpid()), 256, 0).split()[1]) * PAGE
    except OSError:
        return 0


@functools.cache
def _statm(pid: int) -> int:
    """Open what says how much memory a process has: once, for opening takes longer than reading."""
    return os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Let a thread raise an exception as soon as it runs Python; None takes back what it has not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)


_NOWHERE = open(os.devnull, "w")  # noqa: SIM115, PTH123 - faulthandler keeps it
