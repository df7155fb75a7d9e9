"""How a run is told to stop: by Ctrl-C, or by the signals that schedulers send before they kill (Slurm, Kubernetes).

The first signal drains: nothing more is submitted, what is in work is committed; after SIGTERM and SIGHUP only for so
long as the scheduler waits. The second gives up what is in work. Nothing is ever interrupted but waiting and
simulating: a commit goes to its end, then the run ends. The third signal ends the process at once.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated (SIGTERM)", signal.SIGHUP: "hung up (SIGHUP)"}
GRACE_SECONDS = 25.0  # Slurm and Kubernetes kill 30 s after SIGTERM


class GiveUp(BaseException):
    """Stop at once: not an error of what is being simulated, so no cell's."""


class Stop:
    """Whether to submit no more batches, and why; and whether to give up what is in work."""

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self.reason = ""
        self.signal = 0
        self._grace_seconds = grace_seconds
        self._count = 0
        self._deadline = float("inf")
        self._open = False  # whether what goes on now may be interrupted

    @property
    def interrupted(self) -> bool:
        """Whether a signal asks for the end."""
        return self.signal > 0

    @property
    def given_up(self) -> bool:
        """Whether what is in work is not waited for any more."""
        return self._count > 1 or time.monotonic() >= self._deadline

    def check(self) -> None:
        """Raise GiveUp where what is in work is not waited for any more."""
        if self.given_up:
            raise GiveUp

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, GiveUp may be raised at any place, by a second signal or by the end of the grace period."""
        self.check()
        self._open = True
        try:
            yield
        finally:
            self._open = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals over, where this is the main thread: they are its own."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
        self.listen()
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def listen(self) -> None:
        """Take the signals over, again where somebody (Ray, as it starts) has taken them meanwhile."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._on_signal)
            signal.signal(signal.SIGALRM, self._on_deadline)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._count += 1
        if self._count == 1:
            self.reason, self.signal = SIGNALS[signal.Signals(number)], number
            if number == signal.SIGINT:
                _say("stopping when the batches in work are done; Ctrl-C again gives them up")
            else:
                _say(f"stopping when the batches in work are done, or in {self._grace_seconds:g} s")
                self._deadline = time.monotonic() + self._grace_seconds
                signal.setitimer(signal.ITIMER_REAL, self._grace_seconds)
        elif self._count == 2:
            _say("giving up the batches in work")
            self._raise()
        else:
            os._exit(128 + number)

    def _on_deadline(self, number: int, frame: Any) -> None:
        self._raise()

    def _raise(self) -> None:
        if self._open:
            self._open = False
            raise GiveUp


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that has hung up
        os.write(2, f"\n{text}\n".encode())
