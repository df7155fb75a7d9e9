"""Checks of what a design is made of: maps and object allocators exist, can do what is asked, and fit into the KVA."""

from collections.abc import Iterable, Mapping
from typing import Any

from kmemexp.config import tunables
from kmemexp.errors import ConfigError
from kmemexp.metrics import NODES
from kmemexp.parts import outside
from kmemexp.parts.finding import knows_nodes, parameters, parts, serves, sets_aside
from kmemexp.parts.spaces import ARCHITECTURES, covered_bytes, kva_bytes
from kmemexp.sim import demand, nodes, sizing
from kmemexp.sim.slots import PAGE, PAGE_SHIFT, PLACES, SERVED
from kmemexp.values import at_least, byte_count, close, one_of, size_text

LAYOUTS = ("split", "unified", "direct")
ENTRIES = ("kmapentzone", "on_demand", "reservation", "own")
OBJECT_LOCK = "adaptive"
AS_EVER = {"object_lock": OBJECT_LOCK, "kernel": sizing.USUAL}
MAP_LOCKS = ("sleep", "sleep+inherit", "adaptive", "adaptive+inherit", "spin", "splhigh+spin", "irqoff+spin")


class MachineError(ConfigError):
    """A kernel does not run on a machine, or does not cover its address space."""


def maps_node(maps: Mapping[str, Any]) -> dict[str, Any]:
    """Check the maps of a design and return them in normal form."""
    one_of("maps.layout", maps["layout"], LAYOUTS)
    one_of("maps.entries", maps["entries"], ENTRIES)
    one_of("maps.arena", maps["arena"], parts("arenas"))
    one_of("maps.lock", maps["lock"], MAP_LOCKS)
    one_of("maps.kernel", maps.get("kernel", sizing.USUAL), tuple(sizing.KERNELS))
    one_of("maps.object_lock", maps.get("object_lock", OBJECT_LOCK), (*MAP_LOCKS, "token"))
    for key, known in (("submaps", sizing.SUBMAPS), ("reserves", sizing.KNOWN_RESERVES)):
        for name in maps[key]:
            one_of(f"maps.{key}", name, known)
    arena, given = maps["arena"], maps["params"]
    for name in given:
        one_of("maps.params", name, parts("arenas"))
    normal = {
        "image_bytes": at_least("maps.image_bytes", byte_count("maps.image_bytes", maps["image_bytes"]), 0),
        "submaps": [name for name in sizing.SUBMAPS if name in maps["submaps"]],
        "reserves": [name for name in sizing.KNOWN_RESERVES if name in maps["reserves"]],
        "params": {arena: _params("maps", "arenas", arena, given[arena])} if given.get(arena) else {},
    }
    if areas := _areas(maps.get("areas", {})):
        normal["areas"] = areas
    # What is as ever is no part of a cell's name.
    chosen = {k: v for k, v in maps.items() if AS_EVER.get(k) != v and k != "areas"}
    return {**chosen, **normal, **_code("arenas", [arena])}


def _areas(areas: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Check what a layout says of architectures."""
    found: dict[str, dict[str, int]] = {}
    for arch, area in areas.items():
        one_of("maps.areas", arch, ARCHITECTURES)
        if not isinstance(area, Mapping) or set(area) != {"kernel_map"}:
            raise ConfigError(
                f"maps.areas.{arch}={area}: must say how large kernel_map is, such as {{kernel_map: 2TiB}}"
            )
        key = f"maps.areas.{arch}.kernel_map"
        found[arch] = {"kernel_map": at_least(key, byte_count(key, area["kernel_map"]), PAGE)}
    return found


def _code(room: str, names: Iterable[str]) -> dict[str, Any]:
    """Digests of parts from outside the package, by which their cells are known; nothing for built-in ones."""
    found = outside.code_of(room, names)
    for name in found:
        outside.load(room, name)
    return {"code": found} if found else {}


def objects_node(objects: Mapping[str, Any]) -> dict[str, Any]:
    """Allocators must exist; parameters of allocators that serve nothing here are dropped."""
    for place in SERVED:
        name = objects[place]
        one_of(f"objects.{place}", name, parts("allocators"))
        _code("allocators", [name])
        if place not in (can := serves(name)):
            raise ConfigError(f"objects.{place}={name}: {name} serves {', '.join(can) or 'nothing'} only")
    for kind, name in objects["kinds"].items():
        one_of(f"objects.kinds.{kind}", name, parts("allocators"))
    for name in objects["params"]:
        one_of("objects.params", name, parts("allocators"))
    used = {objects[place] for place in SERVED} | set(objects["kinds"].values())
    if len(used) > len(PLACES):
        most = len(PLACES)
        raise ConfigError(f"objects: {', '.join(sorted(used))}: a design has at most {most} different allocators")
    params = {
        name: _params("objects", "allocators", name, given)
        for name, given in objects["params"].items()
        if name in used and given
    }
    locks = {name: str(spec) for name, spec in objects["locks"].items() if name in used}
    chosen = {place: objects[place] for place in SERVED}
    chosen |= {"kinds": dict(objects["kinds"]), "params": params, "locks": locks}
    return chosen | _code("allocators", used)


def _params(node: str, room: str, part: str, given: Mapping[str, Any]) -> dict[str, int]:
    known = parameters(room, part)
    if not isinstance(given, Mapping):
        raise ConfigError(f"{node}.params.{part}={given}: must name parameters; there are {', '.join(known) or 'none'}")
    values = {}
    for name, value in given.items():
        key = f"{node}.params.{part}.{name}"
        if name not in known:
            raise ConfigError(f"{key}: no such parameter{close(name, known)}; there are {', '.join(known) or 'none'}")
        values[name] = at_least(key, byte_count(key, value), 0)
    return values


def check_space(maps: Mapping[str, Any], objects: Mapping[str, Any], machine: Mapping[str, Any], kinds: Any) -> None:
    """Refuse a KVA that is smaller than what boot carves out of it, or larger than what allocators can cover.

    Zones among `kinds` bring KVA of their own.
    """
    check_machine(maps, objects, machine)
    tunables.check_read(machine.get("tunables", {}), maps.get("kernel", sizing.USUAL))
    sized = sizing.of_cell(maps, objects, machine, kva_bytes(maps, machine))
    carved = sizing.reservations(
        sized, network_zones=sets_aside(objects["zone"]), **sizing.carving(maps, machine["ram_bytes"])
    )
    if why := sizing.shortfall(sized, [part for part in carved if part.name not in kinds]):
        size, ram = size_text(machine["kva_bytes"]), size_text(machine["ram_bytes"])
        raise ConfigError(f"machine.kva_bytes={size}: {why}; give more KVA, or less RAM than machine.ram_bytes={ram}")


def check_machine(maps: Mapping[str, Any], objects: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
    """Refuse a machine that the kernel whose maps these are does not run on, or whose KVA its parts cannot cover."""
    known = sizing.KERNELS[maps.get("kernel", sizing.USUAL)].machines
    arch = machine.get("arch", ARCHITECTURES[0])
    if known and arch not in known:
        kernel = maps["kernel"]
        raise MachineError(
            f"machine.arch={arch}: maps.kernel={kernel} runs on {', '.join(known)} only; machine={known[0]}_4g, say"
        )
    _check_nodes(maps, machine)
    _check_covered(maps, objects, machine)


def _check_nodes(maps: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
    """Refuse NUMA nodes that are too many or too small, where the arena tells nodes apart."""
    arena = maps["arena"]
    given = maps["params"].get(arena, {})
    domains = given.get("domains") or machine["domains"]
    if domains == 1 or not knows_nodes(arena) or given.get("by_node") == 0:
        return
    instead = f"maps.params.{arena}.by_node=0 puts all pages into one zone"
    if domains > NODES:
        raise ConfigError(f"machine.domains={domains}: {arena} has figures of {NODES} NUMA nodes at most; {instead}")
    try:
        nodes.span_pages(machine["ram_bytes"] >> PAGE_SHIFT, domains)
    except ValueError as error:
        raise ConfigError(f"machine.domains={domains}: {error}; {instead}") from error


def _check_covered(maps: Mapping[str, Any], objects: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
    for name in sorted(parts_of(maps, objects) - {maps["arena"]}):
        if (covered := covered_bytes(name, maps, machine)) > demand.MOST_KVA:
            size, most = size_text(machine["kva_bytes"]), size_text(demand.MOST_KVA)
            raise MachineError(
                f"machine.kva_bytes={size}: {name} would have to cover {size_text(covered)} of it, and covers {most} "
                f"at most. This design's maps say nothing of machine.arch={machine.get('arch', ARCHITECTURES[0])} "
                "(maps.areas), so all KVA is kernel_map; give less"
            )


def parts_of(maps: Mapping[str, Any], objects: Mapping[str, Any]) -> set[str]:
    """Names of the allocators and of the arena that a design is made of."""
    return {objects[place] for place in SERVED} | set(objects["kinds"].values()) | {maps["arena"]}


def check_policy(policy: Mapping[str, Any], maps: Mapping[str, Any], objects: Mapping[str, Any], design: str) -> None:
    """Refuse a policy for a design that has none of the parts to which it means something."""
    used = parts_of(maps, objects)
    if policy["parts"] and used.isdisjoint(policy["parts"]):
        raise ConfigError(
            f"policy={policy['name']}: does nothing for design={design}, which is made of {', '.join(sorted(used))}; "
            f"it is for designs with {' or '.join(policy['parts'])}. In a sweep, leave the pair out (exclude)"
        )
