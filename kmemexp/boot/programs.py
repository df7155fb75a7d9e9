"""Programs of handlers and tasks, from the words of the configuration to the numbers that the interpreter reads.

The words have been checked (`boot.sources`); what is looked up here are names that only a whole machine knows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kmemexp.boot.sources import FLAGS, LEVEL_FLAGS
from kmemexp.boot.wiring import Source, Wiring
from kmemexp.sim.engine import programs as pg
from kmemexp.sim.engine.tables import prog
from kmemexp.values import known

OPERANDS = pg.PC_END - pg.PC_1


def freed_by_handlers(wiring: Wiring) -> list[str]:
    """Queues whose objects handlers of interrupts free."""
    handlers = [s for s in wiring.sources if s.mode != "task" and s.law != "none"]
    raised = {item["raise"] for s in wiring.sources for item in s.program if "raise" in item}
    handlers += [s for s in wiring.sources if s.name in raised]
    return list(dict.fromkeys(str(item["free"]) for s in handlers for item in s.program if "free" in item))


def programs(wiring: Wiring, sources: Sequence[Source], kinds: Mapping[str, int]) -> tuple[np.ndarray, list[int], int]:
    """All programs one after the other, int64[items, prog.COLUMNS]; where each begins; rows of queues.

    There is a row for each queue and CPU. Raises ConfigError for a name of a lock or kind that there is not.
    """
    items: list[list[int]] = []
    starts: list[int] = []
    operands = _Operands(wiring, sources, kinds)
    for source in sources:
        starts.append(len(items))
        end = len(items) + len(source.program)
        for i, item in enumerate(source.program):
            ((verb, value),) = item.items()
            found = operands.of(f"interrupts.sources.{source.name}.program[{i}]", verb, value, source.mode)
            items.append(_item(pg.ITEMS.index(verb), found, end))
        items.append(_item(prog.END, (), end))
    return np.array(items, np.int64), starts, operands.queue_rows


def _item(code: int, operands: Sequence[int], end: int) -> list[int]:
    return [code, *operands, *[0] * (OPERANDS - len(operands)), end]


class _Operands:
    """Numbers for what items name: locks, sources, kinds, and queues, which begin where they are first named."""

    def __init__(self, wiring: Wiring, sources: Sequence[Source], kinds: Mapping[str, int]) -> None:
        self._cpus, self._kinds = wiring.cpus, kinds
        self._locks = {lock.name: lock for lock in wiring.locks}
        self._sources = {source.name: s for s, source in enumerate(sources)}
        self._queues = {name: i * wiring.cpus for i, name in enumerate(freed_by_handlers(wiring))}

    @property
    def queue_rows(self) -> int:
        return len(self._queues) * self._cpus

    def of(self, where: str, verb: str, value: Any, mode: str) -> Sequence[int]:
        """Operands of an item of a source of this mode; as many as the item has (sim.engine.programs)."""
        match verb:
            case "work" | "sleep":
                return _duration(value)
            case "lock" | "unlock":
                lock = self._locks[known(where, verb, value, self._locks)]
                return lock.first, int(lock.copies == self._cpus and lock.copies > 1)
            case "alloc":
                kind = self._kinds[known(where, "alloc.kind", value["kind"], self._kinds)]
                flags = FLAGS[value.get("flags", "wait")] | LEVEL_FLAGS[mode]
                return kind, int(value["bytes"]), flags, self._queue(value.get("queue", value["kind"]))
            case "free":
                return self._queue(str(value)), LEVEL_FLAGS[mode]
            case "raise" | "await":
                return (self._sources[value],)
            case "io":
                return self._sources[value["source"]], int(value["ns"])
            case "tend":
                server, why = value
                return server, why
            case _:
                return (int(value or 0),)

    def _queue(self, name: str) -> int:
        return self._queues.setdefault(name, self.queue_rows)


def _duration(value: Any) -> tuple[int, int, int]:
    """Law, mean ns and shape of 3000 or {law: exponential, ns: 3000}."""
    if not isinstance(value, Mapping):
        return pg.FIXED, int(value), 0
    law = value.get("law", "fixed")
    shape = float(value.get("shape", 0)) * (1000 if law == "hyperexponential" else 1)
    return pg.LAWS.index(law), int(value["ns"]), round(shape)
