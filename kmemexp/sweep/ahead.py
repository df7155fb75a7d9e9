"""Compile the designs of a plan while its first rows are simulated already."""

import importlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kmemexp.errors import InputError
from kmemexp.sweep.batches import Cell
from kmemexp.sweep.progress import Quiet

NODES = ("cost", "design", "maps", "objects")
"""What decides which code a cell needs, at the most."""


class Ahead:
    """A thread that compiles, by the `warm` of the module that simulates, and what it has done so far."""

    def __init__(self, simulate: str, configs: Sequence[Mapping[str, Any]], shown: Quiet) -> None:
        self.refused: InputError | None = None
        self._simulate, self._shown = simulate, shown
        self._distinct = {_code(config): config for config in configs}
        self._ready: set[str] = set()
        self._told = False  # how many are compiled
        self._codes: dict[tuple[str, ...], str] = {}  # by the texts of NODES: cells have them in common
        self._stopped = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._work, daemon=True, name="kmemexp-warm")

    def start(self) -> None:
        """Begin."""
        self._shown.status("starting")
        self._thread.start()

    def stop(self) -> None:
        """End at the next opportunity. What has been compiled is kept on disk."""
        self._stopped.set()

    def wait(self, seconds: float) -> None:
        """Wait until it is done, at most so long."""
        self._thread.join(seconds)

    @property
    def seconds(self) -> float:
        """Time since a design was last found compiled."""
        return time.monotonic() - self._started

    @property
    def done(self) -> bool:
        """Whether no code is compiled any more."""
        return not self._thread.is_alive()

    def ready(self, cell: Cell) -> bool:
        """Whether the code of a cell is on disk, or has failed to compile, which its row will tell."""
        if self.done:
            return True
        found = cell.config.of(NODES)
        if found not in self._codes:
            self._codes[found] = _code(cell.config.decoded({}))
        return self._codes[found] in self._ready

    def _work(self) -> None:
        warm: Callable[..., None] | None = None
        try:
            module = importlib.import_module(self._simulate.partition(":")[0])
            if warm := getattr(module, "warm", None):  # a plan may name a simulation that compiles nothing
                warm(list(self._distinct.values()), self._note_left, self._note_ready, self._stopped.is_set)
        except InputError as error:
            self.refused = error
        except Exception as error:  # what does not compile becomes failed rows of its own cells
            if self._stopped.is_set():
                return
            self._shown.note(f"compiling ahead failed: {type(error).__name__}: {error}")

    def _note_left(self, cold: int, designs: int) -> None:
        """So many of the designs are not compiled yet."""
        self._shown.compiling(cold)
        if cold and not self._told:
            what = f"compiling {cold} of {designs} designs" if cold < designs else f"compiling {cold} designs"
            self._shown.status("compiling" if designs == 1 else what)
        self._told = True

    def _note_ready(self, config: Mapping[str, Any]) -> None:
        self._ready.add(_code(config))
        self._started = time.monotonic()


def _code(config: Mapping[str, Any]) -> str:
    return json.dumps([config.get(node) for node in NODES], sort_keys=True)
