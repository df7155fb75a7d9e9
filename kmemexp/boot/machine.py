"""From a cell's plain configuration to a machine that has booted: parts found by name, maps laid out, kinds routed."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.boot.design import PLACES, Design, allocator_names, design, homes, params, reapers, sets_aside
from kmemexp.errors import ConfigError
from kmemexp.parts.finding import part
from kmemexp.sim import allocators, replay, sizing, slots
from kmemexp.sim.allocators import absent
from kmemexp.sim.arenas import vm_map
from kmemexp.sim.arenas._shared import map_entries
from kmemexp.sim.items import Item
from kmemexp.sim.maps import BUFFER, DIRECT, EXEC, KERNEL, KMEM, MAP_NAMES, PAGER, PRIVATE
from kmemexp.sim.probes import A_COUNT, ABSENT, O_ADDR, O_COUNT, SERVER_MAP
from kmemexp.workload import stream as w

DIRECT_MAPS = {w.KVA: KERNEL, w.KVA_WIRED: KERNEL, w.EXEC: EXEC, w.BUFFER: BUFFER, w.PAGER: PAGER}
SUPPLIES = {"kmapentzone": vm_map.FIXED, "on_demand": map_entries.ON_DEMAND, "reservation": vm_map.RESERVE}
ATTRIBUTES = 3  # ATTR_SINGLE, ATTR_WIRED, ATTR_PAGEABLE
MINIMAL = {"kva_bytes": slots.PAGE, "cpus": 1, "map_number": 0, "items": (), "bases": ()}


class Machine(NamedTuple):
    """One lane's machine after boot."""

    world: replay.World
    replay: Callable
    upkeep: Callable
    observe: Callable
    ticks: tuple[int, ...]  # ns between two upkeeps of each allocator, by place; 0: none
    maps: list[int]  # maps that the workload's kinds are served from
    shared: list[bool]  # which of these serve any purpose; the submaps of buffers, pagers and exec serve one each
    map_bytes: tuple[int, ...]  # size of each of these
    malloc_map: int
    homes: tuple[int, ...]  # map that each allocator grows in, by place
    kind_rows: np.ndarray  # int64[kinds, KIND_COUNT]
    items: tuple[int, ...]  # zones that each allocator serves, by place


def boot(config: Mapping, kinds: w.Kinds, slot_count: int) -> Machine:
    """Lay out the maps, carve out what boot carves out, give each kind its server. Raises ConfigError."""
    objects, machine, maps = config["objects"], config["machine"], config["maps"]
    code = design(allocator_names(objects), maps["arena"])
    home = homes(objects, maps)
    server, item, items = _routes(objects, code.names, kinds)
    given = {"kva_bytes": machine["kva_bytes"], "cpus": machine["cpus"]}
    sized = sizing.size(machine["ram_bytes"], machine["kva_bytes"])
    facts = given | {"ram_bytes": machine["ram_bytes"], "nmbufs": sized.nmbufs, "nmbclusters": sized.nmbclusters}
    facts |= {"domains": machine["domains"], "kmem_map": KMEM if maps["layout"] == "split" else 0}
    facts["direct_map"] = DIRECT if maps["layout"] == "direct" else 0
    arena, bases = _carve(config, code, sized, kinds, items, facts)
    states = [absent.init(absent.Params(), map_number=0, items=(), bases=(), **given)] * len(PLACES)
    for place, name in enumerate(code.names):
        module = code.servers[place]
        chosen = params(module, objects["params"].get(name, {}), **facts)
        try:
            states[place] = module.init(chosen, map_number=home[name], items=items[name], bases=bases[name], **given)
        except ValueError as error:
            raise ConfigError(f"objects.params.{name}: {error}") from error
    own = {k: m for k, m in DIRECT_MAPS.items() if MAP_NAMES[m] in maps["submaps"]}
    direct = np.array([own.get(k, KERNEL) for k in kinds.klass.tolist()], np.int64)
    attribute = np.where(kinds.klass == w.KVA_WIRED, slots.ATTR_WIRED, slots.ATTR_PAGEABLE).astype(np.int64)
    world = replay.World(
        *states,
        arena,
        server,
        item,
        target_map=direct,
        attribute=attribute,
        objects=_no_objects(slot_count),
        counters=np.zeros(A_COUNT, np.int64),
        reg=np.zeros((1, slots.R_COUNT), np.int64),
        reclaims=int(maps["reclaim"] and any(reapers(config))),
    )
    grown = tuple(home[name] for name in code.names)
    used = sorted({*direct.tolist(), *grown, KERNEL})
    zones = tuple(len(items[name]) for name in code.names)
    rows = np.stack([server, item, direct, attribute], axis=1)
    carved = {name: nbytes for name, nbytes, _ in carved_at_boot(config, sized)}
    sizes = tuple(carved.get(MAP_NAMES[m], machine["kva_bytes"]) for m in used)
    shared = [m not in PRIVATE for m in used]
    return Machine(
        world, code.replay, code.upkeep, code.observe, code.ticks, used, shared, sizes, home[objects["malloc"]], grown,
        rows, zones,
    )  # fmt: skip


def _carve(
    config: Mapping,
    code: Design,
    sized: sizing.Sizing,
    kinds: w.Kinds,
    items: dict[str, list[Item]],
    facts: Mapping[str, int],
) -> tuple[tuple, dict]:
    """Build the arena with what boot takes from it. Returns it and, for each allocator, the KVA of its items or -1."""
    machine, maps = config["machine"], config["maps"]
    facts = {**facts, "supply": SUPPLIES.get(maps["entries"], 0), "entry_limit": sized.map_entries}
    chosen = params(code.arena, maps["params"].get(maps["arena"], {}), **facts)
    try:
        arena = code.arena.init(chosen, kva_bytes=machine["kva_bytes"], cpus=machine["cpus"], maps=len(MAP_NAMES))
    except ValueError as error:
        raise ConfigError(f"maps.params.{maps['arena']}: {error}") from error
    take = _Taker(code, arena)
    for name, nbytes, parent in carved_at_boot(config, sized):
        if name in MAP_NAMES:
            base = take(name, nbytes, parent, slots.ATTR_SINGLE)
            code.arena.add_map(arena, MAP_NAMES.index(name), base, nbytes)
        elif name not in kinds.names:  # a zone of the workload's own takes its place
            take(name, nbytes, parent, slots.ATTR_PAGEABLE)
    bases = {}
    for name, module in zip(code.names, code.servers, strict=False):
        sizes = [module.kva_reserved(i) if sets_aside(module) else 0 for i in items[name]]
        bases[name] = [take("a zone", n, "kernel_map", slots.ATTR_PAGEABLE) if n else -1 for n in sizes]
    return arena, bases


def carved_at_boot(config: Mapping, sized: sizing.Sizing) -> list[sizing.Reservation]:
    """List what a cell's kernel carves out of its maps at boot, before any zone of the workload."""
    return sizing.reservations(
        sized,
        network_zones=sets_aside(part(allocators, config["objects"]["zone"])),
        **sizing.carving(config["maps"], config["machine"]["ram_bytes"]),
    )


class _Taker:
    """Takes memory from a map at boot, through the replay driver itself: nothing else needs compiling."""

    def __init__(self, code: Design, arena: tuple) -> None:
        maps, attributes = np.divmod(np.arange(len(MAP_NAMES) * ATTRIBUTES), ATTRIBUTES)
        self.code = code
        self.world = replay.World(
            *[module.init(module.Params(), **MINIMAL) for module in code.servers],
            arena,
            server=np.full(len(maps), SERVER_MAP, np.int64),
            item=np.zeros(len(maps), np.int64),
            target_map=maps,
            attribute=attributes | slots.ATTR_NOFREE,
            objects=_no_objects(1),
            counters=np.zeros(A_COUNT, np.int64),
            reg=np.zeros((1, slots.R_COUNT), np.int64),
        )

    def __call__(self, name: str, nbytes: int, parent: str, attribute: int) -> int:
        """Take `nbytes` from the map called `parent`; returns the address."""
        kind = MAP_NAMES.index(parent) * ATTRIBUTES + attribute
        one = w.one_allocation(kind, nbytes)
        self.code.replay(self.world, *w.columns(one), 0, 1)
        addr = int(self.world.objects[0, O_ADDR])
        if addr == ABSENT:
            raise ConfigError(
                f"machine.kva_bytes: {parent} has no room for {name} ({nbytes / 2**20:.1f} MiB) at boot; "
                "enlarge the KVA or use less RAM, from which the maps are sized"
            )
        return addr


def _no_objects(count: int) -> np.ndarray:
    objects = np.zeros((max(count, 1), O_COUNT), np.int64)
    objects[:, O_ADDR] = ABSENT
    return objects


def _routes(objects: Mapping, names: Sequence[str], kinds: w.Kinds) -> tuple[np.ndarray, np.ndarray, dict]:
    """Server and item number of each kind, and the items of each allocator."""
    items: dict[str, list[Item]] = {name: [] for name in names}
    server = np.full(len(kinds.names), SERVER_MAP, np.int64)
    item = np.zeros(len(kinds.names), np.int64)
    serves = {w.MALLOC: objects["malloc"], w.ZONE: objects["zone"], w.MBUF: objects["mbuf"]}
    item[kinds.klass == w.MALLOC], item[kinds.klass == w.MBUF] = slots.ITEM_MALLOC, slots.ITEM_MBUF
    for k, klass in enumerate(kinds.klass.tolist()):
        if klass in serves:
            name = objects["kinds"].get(kinds.names[k], serves[klass])
            if klass not in part(allocators, name).SERVES:
                raise ConfigError(
                    f"objects: {name} cannot serve {kinds.names[k]}, which is of class {w.CLASS_NAMES[klass]}"
                )
            server[k] = names.index(name)
            if klass == w.ZONE:
                item[k] = len(items[name])
                items[name].append(Item(int(kinds.size[k]), int(kinds.growth[k]), int(kinds.limit[k])))
    return server, item, items
