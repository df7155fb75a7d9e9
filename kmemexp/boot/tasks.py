"""A cell's sources of interrupts and tasks: its configuration's own, and what memory, allocators and policy add."""

from collections.abc import Mapping
from typing import Any

from kmemexp.boot.design import allocator_names, design, reapers
from kmemexp.boot.duties import MOVE, STEPS, WATCH, duties
from kmemexp.boot.machine import looks
from kmemexp.boot.sources import BOOT_KEYS, PRIORITIES
from kmemexp.boot.wiring import Wiring
from kmemexp.errors import ConfigError
from kmemexp.sim.slots import TEND_REAP, TEND_TICK, TEND_WATCH

CLOCK_ALLOCATION = {"alloc": {"kind": "clock", "class": "malloc", "bytes": 4096, "flags": "nowait"}}
MOVER = "mover"  # task that moves ranges: lane.remapping writes what it does
Sources = dict[str, dict[str, Any]]


def sources_of(config: Mapping[str, Any]) -> Sources:
    """Sources of the configuration, their rates scaled, with what the memory model adds."""
    interrupts = config["interrupts"]
    sources = {name: dict(source) for name, source in interrupts["sources"].items() if source}
    scaling = [s for s in sources.values() if s.get("scales")]
    if interrupts["rate_hz"] is not None and scaling:
        factor = interrupts["rate_hz"] / max(s["rate_hz"] for s in scaling)
        for source in scaling:
            source["rate_hz"] = source["rate_hz"] * factor
    if interrupts["clock_allocates"]:
        if "clock" not in sources:
            raise ConfigError("interrupts.clock_allocates=true: there is no source called clock")
        sources["clock"]["program"] = [*sources["clock"]["program"], {"free": "clock"}, CLOCK_ALLOCATION]
    return sources | _memory_tasks(config["memory"], sources)


def _memory_tasks(memory: Mapping[str, Any], sources: Sources) -> Sources:
    """The page daemon, and the user processes that make work for it."""
    if not memory["limited"]:
        return {}
    # The daemon waits for its disk's interrupt where there is one.
    ns = memory["io_ns"]
    write = {"io": {"source": "pageout_io", "ns": ns}} if "disk" in sources else {"sleep": ns}
    tasks = {"pagedaemon": _daemon({"rest": None}, {"work": memory["scan_ns"]}, write, {"reclaim": None})}
    if "disk" in sources:
        tasks["pageout_io"] = {"mode": "device", "class": "bio", "route": 0, "program": sources["disk"]["program"]}
    if memory["fault_hz"] > 0:
        faults = {"mode": "task", "law": "poisson", "rate_hz": memory["fault_hz"], "route": 0}
        tasks["faults"] = faults | {"program": [{"take": 1}]}
    return tasks


def with_upkeep(sources: Sources, config: Mapping[str, Any]) -> Sources:
    """Add a task for each allocator that has periodic upkeep and for a policy's duties; the page daemon reaps too."""
    code = design(allocator_names(config["objects"]), config["maps"]["arena"])
    tasks = {
        f"upkeep_{name}": _daemon({"sleep": every}, {"tend": (place, TEND_TICK)})
        for place, (name, every) in enumerate(zip(code.names, code.ticks, strict=False))
        if every
    }
    tasks |= {
        f"watch_{name}": _daemon({"sleep": every}, {"tend": (place, TEND_WATCH)})
        for place, (name, every) in enumerate(zip(code.names, looks(config), strict=False))
        if every
    }
    reap = [{"tend": (place, TEND_REAP)} for place, gives in enumerate(reapers(config)) if gives]
    if every := round(config["policy"].get("move_s", 0) * 1e9):
        places = [{"free": MOVER}] * config["policy"]["moves"]
        tasks[MOVER] = _daemon({"sleep": every // STEPS}, {"watch": None}, *places)
    for duty in duties((), config["policy"]) if reap else ():
        if duty.what == MOVE:
            continue
        asked = [{"watch": None}] if duty.what == WATCH else []
        tasks[f"policy_{len(tasks)}"] = _daemon({"sleep": duty.every_ns}, *asked, *reap)
    if reap and "pagedaemon" in sources:
        rest, *more = sources["pagedaemon"]["program"]
        sources = {**sources, "pagedaemon": {**sources["pagedaemon"], "program": [rest, *reap, *more]}}
    return {**sources, **tasks}


def _daemon(*program: Mapping[str, Any]) -> dict[str, Any]:
    return {"mode": "task", "priority": PRIORITIES["daemon"], "program": list(program)}


def add_source(wiring: Wiring, name: str, source: Mapping[str, Any]) -> None:
    """Add a source from the configuration, which has been checked."""
    for lock, spec in source.get("locks", {}).items():
        wiring.lock(lock, spec)
    fields = {key: value for key, value in source.items() if key not in BOOT_KEYS}
    if "class" in fields:
        fields["klass"] = fields.pop("class")
    wiring.source(name, **fields)
