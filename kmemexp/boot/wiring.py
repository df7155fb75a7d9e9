"""What a timed machine is put together from: its settings, locks, sources of interrupts and tasks.

A `Wiring` collects them by name and `boot.layout.build` lays them out. A machine without an allocator, a textbook
case of queueing say, is wired directly; `boot.timed` fills a wiring from a cell's configuration. A setting has the name
and the values here that it has in the configuration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kmemexp.parts import map_calls
from kmemexp.parts.lock_spec import lock_row


class Lock(NamedTuple):
    """A class of locks, alike."""

    name: str
    spec: str
    copies: int
    first: int  # number of the first of them


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
    klass: str = ""  # `class` in the configuration, which is a word of Python's
    priority: int = 0  # 0: that of the mode
    route: Any = 0  # a CPU, "each" or "spread"


@dataclass
class Wiring:
    """Collects the parts of a machine."""

    cpus: int = 1
    threads: int = 1  # mainline threads per CPU that take operations of the stream
    model: str = "ithread"  # "spl": handlers borrow the interrupted stack
    nested: bool = True
    closed: bool = False
    big_lock: bool = False
    big_wait: str = "spin"  # "queue": who waits for the big lock leaves its CPU to others
    dispatch: str = "borrow"  # what it takes to run an interrupt thread: "preempt", "switch"
    passive_messages: bool = False  # those to other CPUs wait for a tick (sim.engine.messages)
    slice_ns: int = 0  # threads of one priority take turns after so long; 0: they do not
    would_sleep: str = "block"
    on_deadlock: str = "stop"
    sleep_locked: bool = False
    depth: int = 64  # interrupts that wait for a handler
    queue: int = 64  # objects that a program's queue holds
    log_rows: int = 0
    seed: int = 0
    cost: Mapping[str, float] = field(default_factory=dict)
    object_lines: bool = False  # an object's line that moves between CPUs costs what a lock's does
    locks: list[Lock] = field(default_factory=list)
    calls: list[str] = field(default_factory=lambda: list(map_calls.PLAIN))
    sources: list[Source] = field(default_factory=list)
    daemon: str = ""  # source that is the page daemon
    memory: Mapping[str, int] = field(default_factory=dict)  # pages by glob.* name; empty: no limit
    page_rule: str = "exclusive"  # machine.PAGE_RULES
    direct_map: int = -1  # number of the map that is the direct map; -1: none
    zones: Sequence[tuple[int, int, int]] = ()  # of it: first address, end, lock by number; none: it has one lock
    first_zones: Sequence[int] = ()  # for each CPU, which of them it asks first

    def __post_init__(self) -> None:
        """Lock number 0 is the big lock."""
        self.lock("big", "big")

    def lock(self, name: str, spec: str, copies: int = 1) -> int:
        """Add a class of locks; returns the number of the first. ConfigError for a text that is no lock."""
        if name in (known := {lock.name: lock for lock in self.locks}):
            return known[name].first
        lock_row(spec, 0)
        first = self.locks[-1].first + self.locks[-1].copies if self.locks else 0
        self.locks.append(Lock(name, spec, copies, first))
        return first

    def call(self, text: str) -> int:
        """Add a map call; returns its number. ConfigError for a text that is none."""
        if text not in self.calls:
            map_calls.rows(text)
            self.calls.append(text)
        return self.calls.index(text)

    def source(self, name: str, mode: str, program: Sequence[Mapping[str, Any]] = (), **more: Any) -> int:
        """Add a source, whose words are known (`sources.check`); returns its number. `more`: fields of Source."""
        self.sources.append(Source(name, mode, program, **more))
        return len(self.sources) - 1
