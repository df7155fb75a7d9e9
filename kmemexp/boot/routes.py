"""The locks of a cell's maps and allocators, which of them the steps of each allocator take, and its map calls."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from kmemexp.boot.design import allocator_names, design
from kmemexp.boot.machine import Machine
from kmemexp.boot.wiring import Wiring
from kmemexp.errors import ConfigError
from kmemexp.parts.lock_spec import SPL
from kmemexp.parts.map_calls import calls_of, own_calls
from kmemexp.sim.asking import every_free_flushes
from kmemexp.sim.engine.tables import kmap, route
from kmemexp.sim.maps import DIRECT, KERNEL, KMEM, MAP_NAMES, MB
from kmemexp.sim.probes import SERVER_COUNT, SERVER_MAP

PER = {"cpu": route.PER_CPU, "item": route.PER_ITEM}


def add_locks(config: Mapping[str, Any], wiring: Wiring, base: Machine) -> tuple[np.ndarray, np.ndarray]:
    """Add the locks and the map calls of maps and allocators to a wiring.

    Returns the routes, int64[SERVER_COUNT, route.COLUMNS], and the maps, int64[maps, kmap.COLUMNS], with locks and
    calls by number.
    """
    code = design(allocator_names(config["objects"]), config["maps"]["arena"])
    ranges, first = lock_zones(code.arena, base.world.arena)
    maps = _maps(config["maps"], wiring, code.arena, len(ranges))
    wiring.zones = [(*ends, int(maps[DIRECT, kmap.LOCK]) + i) for i, ends in enumerate(ranges)]
    wiring.first_zones = first
    routes = np.zeros((SERVER_COUNT, route.COLUMNS), np.int64)
    routes[:, route.HOME] = maps[KERNEL, kmap.LOCK]
    routes[:, route.LOCK : route.CALL] = wiring.lock("none", "none")
    routes[:, route.UNLOCKED] = np.iinfo(np.int64).max
    usual = own_calls(code.arena)
    _enter_calls(routes[SERVER_MAP], wiring, usual)
    for place, (name, module) in enumerate(zip(code.names, code.servers, strict=False)):
        first, *more = module.LOCKS
        for klass, spec in enumerate([config["objects"]["locks"].get(name, first), *more]):
            word, _, per = spec.partition("/")
            word = _for_all_cpus(word, wiring)
            counts = {"": 1, "cpu": wiring.cpus, "item": base.items[place]}
            if per == "own":
                counts["own"] = module.lock_count(base.world[place], klass)
            if per not in counts:
                raise ConfigError(f"objects.locks.{name}: {spec!r}: after the slash comes cpu, item or own")
            label = f"{name} {klass} {word}" if klass else f"{name} {word}"
            routes[place, route.LOCK + klass] = wiring.lock(label, word, max(counts[per], 1))
            if klass == 0:
                routes[place, route.PER] = PER.get(per, route.PER_ONE)
        if hasattr(module, "unlocked_from"):
            routes[place, route.UNLOCKED] = module.unlocked_from(base.world[place])
        routes[place, route.HOME] = maps[base.homes[place], kmap.LOCK]
        _enter_calls(routes[place], wiring, own_calls(module), usual)
    return routes, maps


def _enter_calls(row: np.ndarray, wiring: Wiring, *given: Sequence[str]) -> None:
    """Enter a server's map calls in its route."""
    numbers = [wiring.call(text) for text in calls_of(*given)]
    row[route.CALL : route.CALL + len(numbers)] = numbers


def lock_zones(arena: ModuleType, state: Any) -> tuple[Sequence[tuple[int, int]], Sequence[int]]:
    """Zones of the direct map that have locks of their own, [first address, end), and each CPU's first by number."""
    return arena.lock_zones(state) if hasattr(arena, "lock_zones") else ((), ())


def _maps(maps: Mapping[str, Any], wiring: Wiring, arena: ModuleType, zones: int = 0) -> np.ndarray:
    """Add the locks of the maps: of each its own, the one of the object of its pages, those of single CPUs.

    `zones`: how many locks the direct map has, one after the other; 0: one.
    """
    rows = np.zeros((len(MAP_NAMES), kmap.COLUMNS), np.int64)
    rows[:, kmap.LAZY] = getattr(arena, "map_flushes", every_free_flushes) is not every_free_flushes
    copies = [max(zones, 1) if m == DIRECT else 1 for m in range(len(MAP_NAMES))]
    named = zip(map_locks(maps).items(), copies, strict=True)
    rows[:, kmap.LOCK] = [wiring.lock(name, text, count) for (name, text), count in named]
    if soft := [m for m in getattr(arena, "SOFT", ()) if maps["layout"] != "split" or m != MB]:
        rows[soft, kmap.LOCK] = rows[KERNEL, kmap.LOCK]
    rows[:, kmap.OBJECT] = wiring.lock("kernel_object", maps.get("object_lock", "adaptive"))
    spec = getattr(arena, "CPU_LOCK", "")
    for row, name in zip(rows, MAP_NAMES, strict=True):
        row[kmap.CPU] = wiring.lock(f"{name} cpu", spec, wiring.cpus) if spec else row[kmap.LOCK]
    return rows


def map_locks(maps: Mapping[str, Any]) -> dict[str, str]:
    """Lock of each map. FreeBSD 4 enters kmem_map and mb_map at splvm; that is what keeps interrupts out.

    DragonFly dropped it with kmem_map.
    """
    masked = (MAP_NAMES[KMEM], MAP_NAMES[MB]) if maps["layout"] == "split" else ()
    return {name: ("splvm+" if name in masked else "") + maps["lock"] for name in MAP_NAMES}


def _for_all_cpus(spec: str, wiring: Wiring) -> str:
    """Add a spin lock to a bare spl level where no big lock keeps the other CPUs out: it masks one CPU's interrupts."""
    bare = all(word in SPL for word in spec.split("+"))
    return f"{spec}+spin" if bare and wiring.cpus > 1 and not wiring.big_lock else spec
