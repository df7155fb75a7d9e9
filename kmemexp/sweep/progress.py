"""What the user sees of a running sweep, on stderr: a bar on a terminal, now and then a line elsewhere, or nothing."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from kmemexp.values import visible

LINE_SECONDS = 10.0  # between two plain lines
COMPILE_SECONDS = 15.0  # of a design, about, where two are compiled at a time


class Quiet:
    """Shows nothing. The base of those that do; rows are lanes, work is measured in estimated operations."""

    def __init__(self, rows: int, work: int, expected: float = 0.0) -> None:
        self.rows, self.work, self.expected = rows, max(work, 1), expected
        self.done = self.failed = self.worked = 0
        self.started = self.begun = time.monotonic()
        self.uncompiled = 0  # designs whose code is not there yet

    def compiling(self, left: int) -> None:
        """So many designs are still to be compiled, as far as is known."""
        self.uncompiled = left

    def tick(self) -> None:
        """Time passes."""

    def begin(self) -> None:
        """Count the time left from here: preparation is over."""
        self.begun = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def status(self, text: str) -> None:
        """Say what goes on before the first result."""

    def note(self, text: str) -> None:
        """Say something once."""

    def advance(self, rows: int, failed: int, work: int) -> None:
        """Rows have been committed, `failed` of them as failed."""
        self.done += rows
        self.failed += failed
        self.worked += work
        self.show()

    def show(self) -> None:
        """Draw the present state."""

    def state(self, running: int) -> dict[str, float]:
        """How far it has come, for other processes to see; `running`: rows in work."""
        now = time.monotonic()
        return {
            "rows": self.rows, "done": self.done, "failed": self.failed, "running": running,
            "seconds": now - self.begun, "left": self.left,
        }  # fmt: skip

    @property
    def left(self) -> float:
        """Seconds that are left, about, with what is to be compiled; 0 where that cannot be told."""
        now = time.monotonic()
        if self.worked:
            return (now - self.begun) * (self.work - self.worked) / self.worked
        return max(self.expected + COMPILE_SECONDS * self.uncompiled - (now - self.started), 0.0)

    @property
    def counts(self) -> str:
        """Rows so far, in words."""
        return f"{self.done:,}/{self.rows:,} rows" + (f", {self.failed:,} failed" if self.failed else "")

    @property
    def pace(self) -> str:
        """Rate and time left, in words; the rate once there is one."""
        spent = time.monotonic() - self.begun
        rate = f"{self.done / spent:.3g} rows/s, " if self.done and spent > 0 else ""
        return f"{rate}about {self.left:.0f} s left" if self.left and self.done < self.rows else rate.rstrip(", ")


class Lines(Quiet):
    """Plain lines, for logs and pipes."""

    def __init__(self, rows: int, work: int, expected: float = 0.0) -> None:
        super().__init__(rows, work, expected)
        self._shown = self.started

    def tick(self) -> None:
        """Print a line where none has been printed for a while."""
        if self.done < self.rows:
            self.show()

    def status(self, text: str) -> None:
        """Print a line."""
        self.note(", ".join(filter(None, (text, f"then {self.rows:,} rows", self.pace))))

    def note(self, text: str) -> None:
        """Print a line."""
        sys.stderr.write(visible(text) + "\n")
        sys.stderr.flush()

    def show(self) -> None:
        """Print a line with the time left, not too often."""
        now = time.monotonic()
        if now - self._shown >= LINE_SECONDS or self.done == self.rows:
            self._shown = now
            spent = f"{now - self.started:.0f} s"
            self.note(", ".join(filter(None, (self.counts, spent, self.pace))))


class _Pace(ProgressColumn):
    """Rate and time left, as they are when they are drawn."""

    def __init__(self, shown: Quiet) -> None:
        super().__init__()
        self._shown = shown

    def render(self, task: Task) -> Text:
        return Text(self._shown.pace, style="dim")


class Bar(Quiet):
    """A rich progress bar. Its time left goes by estimated operations, not by rows."""

    def __init__(self, rows: int, work: int, expected: float = 0.0) -> None:
        super().__init__(rows, work, expected)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
        )
        self._bar = Progress(*columns, TimeElapsedColumn(), _Pace(self), console=Console(stderr=True))
        self._task = self._bar.add_task(self.counts, total=self.work)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def status(self, text: str) -> None:
        """Write beside the bar, until rows come."""
        self._bar.update(self._task, description=text)

    def note(self, text: str) -> None:
        """Write above the bar."""
        self._bar.console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    def show(self) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=self.worked, description=self.counts)


def make_progress(wanted: bool | None, rows: int, work: int, expected: float = 0.0) -> Quiet:
    """Choose a bar on a terminal, lines elsewhere, nothing where `wanted` is False.

    `expected`: seconds that the work takes, before any of it tells better.
    """
    if wanted is False:
        return Quiet(rows, work)
    return (Bar if sys.stderr.isatty() else Lines)(rows, work, expected)
