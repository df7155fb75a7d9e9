"""The locks of a cell's maps and allocators, and which of them the steps of each allocator take."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kmemexp.boot.design import allocator_names, design
from kmemexp.boot.machine import Machine
from kmemexp.boot.wiring import Wiring
from kmemexp.errors import ConfigError
from kmemexp.parts.lock_spec import SPL
from kmemexp.sim.engine.tables import route
from kmemexp.sim.maps import KERNEL, KMEM, MAP_NAMES, MB
from kmemexp.sim.probes import SERVER_COUNT

PER = {"cpu": route.PER_CPU, "item": route.PER_ITEM}


def add_locks(config: Mapping[str, Any], wiring: Wiring, base: Machine) -> tuple[np.ndarray, list[int]]:
    """Add the locks of maps and allocators to a wiring.

    Returns the routes, int64[SERVER_COUNT, route.COLUMNS] with locks by number, and the number of each map's lock.
    """
    code = design(allocator_names(config["objects"]), config["maps"]["arena"])
    maps = [wiring.lock(name, spec) for name, spec in map_locks(config["maps"]).items()]
    routes = np.zeros((SERVER_COUNT, route.COLUMNS), np.int64)
    routes[:, route.HOME] = maps[KERNEL]
    routes[:, route.LOCK :] = wiring.lock("none", "none")
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
        routes[place, route.KEEPS] = module.KEEPS
        routes[place, route.HOME] = maps[base.homes[place]]
    return routes, maps


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
