"""Programs of handlers and tasks, from the words of the configuration to the numbers that the interpreter reads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kmemexp.boot.sources import FLAGS, LEVEL_FLAGS
from kmemexp.boot.wiring import Lock, Source, Wiring
from kmemexp.errors import ConfigError
from kmemexp.sim.engine import programs as pg
from kmemexp.values import known


def freed_by_handlers(w: Wiring) -> list[str]:
    """Queues whose objects handlers of interrupts free."""
    handlers = [s for s in w.sources if s.mode != "task" and s.law != "none"]
    raised = {item["raise"] for s in w.sources for item in s.program if "raise" in item}
    handlers += [s for s in w.sources if s.name in raised]
    return list(dict.fromkeys(str(item["free"]) for s in handlers for item in s.program if "free" in item))


def programs(w: Wiring, sources: Sequence[Source], kinds: Mapping[str, int]) -> tuple[np.ndarray, list[int], int]:
    """All programs one after the other; where each begins; rows of queues (one per queue and CPU)."""
    items: list[list[int]] = []
    starts: list[int] = []
    queues = {name: i * w.cpus for i, name in enumerate(freed_by_handlers(w))}
    locks = {lock.name: lock for lock in w.locks}
    numbers = {source.name: s for s, source in enumerate(sources)}
    for source in sources:
        starts.append(len(items))
        end = len(items) + len(source.program)
        for i, item in enumerate(source.program):
            where = f"interrupts.sources.{source.name}.program[{i}]"
            items.append([*_item(where, item, w, locks, numbers, kinds, queues, source.mode), end])
        items.append([pg.I_END, 0, 0, 0, 0, end])
    return np.array(items, np.int64), starts, len(queues) * w.cpus


def _item(where: str, item: Mapping[str, Any], w: Wiring, locks: Mapping[str, Lock], sources: Mapping[str, int],
          kinds: Mapping[str, int], queues: dict[str, int], kind: int) -> list[int]:  # fmt: skip
    """One item of a program, five numbers."""
    if not isinstance(item, Mapping) or len(item) != 1:
        raise ConfigError(f"{where}: must be one item such as {{work: 3000}}, not {item!r}")
    ((verb, value),) = item.items()
    if verb not in pg.ITEMS or verb == "end":
        raise ConfigError(f"{where}.{verb}: unknown item; there are {', '.join(pg.ITEMS[1:])}")
    code = pg.ITEMS.index(verb)
    if verb in ("work", "sleep"):
        return [code, *_duration(f"{where}.{verb}", value), 0]
    if verb in ("lock", "unlock"):
        lock = locks[known(where, verb, value, locks)]
        return [code, lock.first, int(lock.count == w.cpus and lock.count > 1), 0, 0]
    if verb == "alloc":
        number = kinds[known(where, "alloc.kind", value["kind"], kinds)]
        flags = FLAGS[known(where, "alloc.flags", value.get("flags", "wait"), FLAGS)] | LEVEL_FLAGS[kind]
        queue = queues.setdefault(value.get("queue", value["kind"]), len(queues) * w.cpus)
        return [code, number, int(value["bytes"]), flags, queue]
    if verb == "free":
        return [code, queues.setdefault(str(value), len(queues) * w.cpus), LEVEL_FLAGS[kind], 0, 0]
    if verb in ("raise", "await"):
        return [code, sources[known(where, verb, value, sources)], 0, 0, 0]
    if verb == "io":
        return [code, sources[known(where, "io.source", value["source"], sources)], int(value["ns"]), 0, 0]
    if verb == "tend":
        return [code, *value, 0, 0]
    return [code, int(value or 0), 0, 0, 0]


def _duration(where: str, value: Any) -> list[int]:
    """Law, mean ns and shape of 3000 or {law: exponential, ns: 3000}."""
    if not isinstance(value, Mapping):
        return [pg.FIXED, int(value), 0]
    law = known(where, "law", value.get("law", "fixed"), pg.LAWS)
    return [
        pg.LAWS.index(law),
        int(value["ns"]),
        round(float(value.get("shape", 0)) * (1000 if law == "hyperexponential" else 1)),
    ]
