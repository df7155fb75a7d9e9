"""Puts a timed machine together: locks, contexts, sources of interrupts and their programs become arrays.

A `Wiring` collects them by name and `boot.layout.build` lays them out. A machine without an allocator, a textbook
case of queueing say, is wired directly; `boot.timed` fills a wiring from a cell's configuration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kmemexp.boot.sources import MODES
from kmemexp.errors import ConfigError
from kmemexp.parts.lock_spec import lock_row


class Lock(NamedTuple):
    """A class of locks: `count` of them, alike."""

    name: str
    spec: str
    count: int
    first: int


class Source(NamedTuple):
    """A source of interrupts, or a mainline task."""

    name: str
    mode: str
    program: Sequence[Mapping[str, Any]]
    law: str = "none"
    rate_hz: float = 0.0
    period_ns: int = 0  # instead of rate_hz
    burst: int = 1
    gap_ns: int = 0
    phase_ns: int = -1
    klass: str = ""
    priority: int = 0  # 0: that of the mode
    route: Any = 0  # a CPU, "each" or "spread"


@dataclass
class Wiring:
    """Collects the parts of a machine."""

    cpus: int = 1
    threads: int = 1  # mainline threads per CPU that take operations of the stream
    spl: bool = False  # handlers borrow the interrupted stack
    nested: bool = True
    closed: bool = False
    big_lock: bool = False
    would_sleep: str = "block"
    goes_on: bool = False
    holds: bool = False
    depth: int = 64  # interrupts that wait for a handler
    queue_depth: int = 64
    log_rows: int = 0
    seed: int = 0
    cost: Mapping[str, float] = field(default_factory=dict)
    locks: list[Lock] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    daemon: str = ""  # source that is the page daemon
    memory: Mapping[str, int] = field(default_factory=dict)  # pages by G_* name; empty: no limit
    direct_map: int = -1  # number of the map that is the direct map; -1: none

    def __post_init__(self) -> None:
        """Lock number 0 is the big lock."""
        self.lock("big", "big")

    def lock(self, name: str, spec: str, count: int = 1) -> int:
        """Add a class of `count` locks; returns the number of the first."""
        if name in (known := {lock.name: lock for lock in self.locks}):
            return known[name].first
        lock_row(spec, 0)
        first = self.locks[-1].first + self.locks[-1].count if self.locks else 0
        self.locks.append(Lock(name, spec, count, first))
        return first

    def source(self, name: str, mode: str, program: Sequence[Mapping[str, Any]] = (), **more: Any) -> int:
        """Add a source; returns its number."""
        if mode not in MODES:
            raise ConfigError(f"interrupts.sources.{name}.mode={mode}: unknown; there are {', '.join(MODES)}")
        if more.get("law", "none") != "none" and any("sleep" in item for item in program):
            raise ConfigError(f"interrupts.sources.{name}: what has arrivals has no timer to sleep by")
        self.sources.append(Source(name, mode, program, **more))
        return len(self.sources) - 1
