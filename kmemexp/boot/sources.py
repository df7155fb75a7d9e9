"""Sources of interrupts and their programs, as the configuration writes them: words, and what makes them impossible.

Cheap to import: a plan checks every source before anything is compiled.
"""

from collections.abc import Mapping
from typing import Any

from kmemexp.errors import ConfigError
from kmemexp.parts.lock_spec import CLASSES
from kmemexp.sim.engine.machine import MODES
from kmemexp.sim.engine.programs import ARRIVALS, ITEMS, LAWS
from kmemexp.sim.tables import flag
from kmemexp.values import known
from kmemexp.workload.stream import KERNEL_CLASSES

OWN_ITEMS = ("tend", "watch")  # of a program: the machine's own
PRIORITIES = {"task": 10, "daemon": 12, "soft": 14, "device": 28, "fast": 31}
"""Priorities of DragonFly, August 2003: thread in a system call, daemon, soft interrupt, interrupt thread, highest."""
ROUTES = ("each", "spread")
FLAGS = {
    "wait": 0,
    "nowait": flag.NOWAIT,
    "reserve": flag.RESERVE,
    "intwait": flag.RESERVE | flag.INTERRUPT,
    "intnowait": flag.NOWAIT | flag.RESERVE | flag.INTERRUPT,
}
"""How a program's allocation may wait: M_WAITOK, M_NOWAIT, M_USE_RESERVE, M_INTWAIT, M_INTNOWAIT."""
LEVEL_FLAGS = {"task": 0, "soft": flag.SOFT, "device": flag.SOFT, "fast": flag.HARD}
"""Flags of an operation by the mode of the source whose program it is in."""

KERNEL = "kernel"  # mode of a source: what interrupts.modes says
BOOT_KEYS = ("scales", "locks")
KEYS = (
    "mode", "law", "rate_hz", "period_ns", "burst", "gap_ns", "phase_ns", "class", "priority", "route", "program",
    *BOOT_KEYS,
)  # fmt: skip
"""Keys of a source: fields of wiring.Source, but for what boot itself uses up. `scales`: its rate follows
interrupts.rate_hz; `locks`: locks of its own, by name.
"""
NUMBERS = ("rate_hz", "period_ns", "burst", "gap_ns", "priority")


def check(sources: Mapping[str, Any]) -> None:
    """Raise ConfigError, with the key, for the first thing that is wrong with the sources of a configuration."""
    for name, source in sources.items():
        if source:  # null or {} takes a source of another file away
            _check_source(f"interrupts.sources.{name}", source, sources)


def of_kernel(sources: Mapping[str, Any], modes: Mapping[str, str]) -> dict[str, Any]:
    """Give sources whose mode is KERNEL that of their kernel. Raises ConfigError, with the key, where it says none."""
    found = {name: dict(source) if isinstance(source, Mapping) else source for name, source in sources.items()}
    for name, mode in modes.items():
        known("interrupts.modes", name, mode, MODES)
    for name, source in found.items():
        if isinstance(source, dict) and source.get("mode") == KERNEL:
            if name not in modes:
                raise ConfigError(
                    f"interrupts.modes.{name}: is missing; interrupts.sources.{name}.mode={KERNEL} asks for it"
                )
            source["mode"] = modes[name]
    return found


def _check_source(where: str, source: Any, sources: Mapping[str, Any]) -> None:
    if not isinstance(source, Mapping):
        raise ConfigError(f"{where}: must be a mapping, not {source!r}")
    for key in source:
        known(where, "key", key, KEYS)
    if "mode" not in source:
        raise ConfigError(f"{where}.mode: is missing; there are {', '.join(MODES)}")
    known(where, "mode", source["mode"], MODES)
    known(where, "law", source.get("law", "none"), ARRIVALS)
    if source.get("class"):
        known(where, "class", source["class"], CLASSES)
    _check_route(where, source.get("route", 0))
    for key in NUMBERS:
        value = source.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ConfigError(f"{where}.{key}={value}: must be a number of at least 0")
    if source.get("law", "none") != "none" and not (source.get("rate_hz") or source.get("period_ns")):
        raise ConfigError(f"{where}.rate_hz: is missing, but law={source['law']} needs it (or period_ns)")
    _check_program(f"{where}.program", source.get("program", []), source.get("law", "none"), sources)


def _check_route(where: str, route: Any) -> None:
    if isinstance(route, bool) or not isinstance(route, int | str):
        raise ConfigError(f"{where}.route={route}: must be a CPU's number, or one of {', '.join(ROUTES)}")
    if isinstance(route, str):
        known(where, "route", route, ROUTES)


def _check_program(where: str, program: Any, law: str, sources: Mapping[str, Any]) -> None:
    if not isinstance(program, list):
        raise ConfigError(f"{where}: must be a list of items such as {{work: 3000}}")
    for i, item in enumerate(program):
        _check_item(f"{where}[{i}]", item, sources)
        if law != "none" and "sleep" in item:
            raise ConfigError(
                f"{where}[{i}].sleep: what has arrivals (law={law}) has no timer to sleep by; use a task without a law"
            )


def _check_item(where: str, item: Any, sources: Mapping[str, Any]) -> None:
    if not isinstance(item, Mapping) or len(item) != 1:
        raise ConfigError(f"{where}: must be one item such as {{work: 3000}}, not {item!r}")
    ((verb, value),) = item.items()
    known(where, "item", verb, [name for name in ITEMS[1:] if name not in OWN_ITEMS])
    if verb in ("work", "sleep"):
        _check_duration(f"{where}.{verb}", value)
    elif verb == "alloc":
        _check_alloc(f"{where}.alloc", value)
    elif verb in ("raise", "await"):
        known(where, verb, value, [name for name, source in sources.items() if source])
    elif verb == "io":
        name = known(f"{where}.io", "source", value.get("source"), [name for name, source in sources.items() if source])
        if sources[name].get("law", "none") != "none":
            raise ConfigError(f"{where}.io.source={name}: has arrivals of its own; name a source without a law")


def _check_duration(where: str, value: Any) -> None:
    if isinstance(value, Mapping):
        known(where, "law", value.get("law", "fixed"), LAWS)
        value = value.get("ns")
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ConfigError(f"{where}={value}: must be a number of ns, or {{law: …, ns: …}}")


def _check_alloc(where: str, kind: Any) -> None:
    if not isinstance(kind, Mapping):
        raise ConfigError(f"{where}: must be a mapping, with kind, class and bytes")
    for key in ("kind", "class", "bytes"):
        if key not in kind:
            raise ConfigError(f"{where}.{key}: is missing")
    known(where, "class", kind["class"], KERNEL_CLASSES)
    known(where, "flags", kind.get("flags", "wait"), FLAGS)
    if isinstance(kind["bytes"], bool) or not isinstance(kind["bytes"], int) or kind["bytes"] < 1:
        raise ConfigError(f"{where}.bytes={kind['bytes']}: must be a whole number of at least 1")
