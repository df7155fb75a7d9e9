"""What the user sees of a running sweep, on stderr: a bar on a terminal, now and then a line elsewhere, or nothing."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kmemexp.values import visible

LINE_SECONDS = 10.0  # between two plain lines


class Quiet:
    """Shows nothing. The base of those that do; rows are lanes, work is measured in estimated operations."""

    def __init__(self, rows: int, work: int) -> None:
        self.rows, self.work = rows, max(work, 1)
        self.done = self.failed = self.worked = 0
        self.started = self.begun = time.monotonic()

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
        """Seconds that are left, about; 0 where that cannot be told yet."""
        return (time.monotonic() - self.begun) * (self.work - self.worked) / self.worked if self.worked else 0.0

    @property
    def counts(self) -> str:
        """Rows so far, in words."""
        return f"{self.done:,}/{self.rows:,} rows" + (f", {self.failed:,} failed" if self.failed else "")


class Lines(Quiet):
    """Plain lines, for logs and pipes."""

    def __init__(self, rows: int, work: int) -> None:
        super().__init__(rows, work)
        self._shown = self.started

    def status(self, text: str) -> None:
        """Print a line."""
        self.note(text)

    def note(self, text: str) -> None:
        """Print a line."""
        sys.stderr.write(visible(text) + "\n")
        sys.stderr.flush()

    def show(self) -> None:
        """Print a line with the time left, not too often."""
        now = time.monotonic()
        if now - self._shown >= LINE_SECONDS or self.done == self.rows:
            self._shown = now
            spent = now - self.started
            self.note(
                f"{self.counts}, {spent:.0f} s" + (f", about {self.left:.0f} s left" if self.done < self.rows else "")
            )


class Bar(Quiet):
    """A rich progress bar. Its time left goes by estimated operations, not by rows."""

    def __init__(self, rows: int, work: int) -> None:
        super().__init__(rows, work)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
        )
        self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
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


def make_progress(wanted: bool | None, rows: int, work: int) -> Quiet:
    """Choose a bar on a terminal, lines elsewhere, nothing where `wanted` is False."""
    if wanted is False:
        return Quiet(rows, work)
    return (Bar if sys.stderr.isatty() else Lines)(rows, work)
