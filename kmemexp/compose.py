"""From a cell's plain configuration to a machine that has booted: parts found by name, maps laid out, kinds routed."""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np

from kmemexp import jit
from kmemexp.errors import ConfigError
from kmemexp.sim import allocators, arenas, asking, map_entries, replay, sizing, slots
from kmemexp.sim.allocators import absent
from kmemexp.sim.arenas import vm_map
from kmemexp.sim.items import Item
from kmemexp.sim.probes import A_COUNT, ABSENT, O_ADDR, O_COUNT, SERVER_MAP
from kmemexp.workload import stream as w

KERNEL, KMEM, MB, CLEAN, BUFFER, PAGER, EXEC, DIRECT = range(8)
MAP_NAMES = ("kernel_map", "kmem_map", "mb_map", "clean_map", "buffer_map", "pager_map", "exec_map", "direct_map")
PRIVATE = (CLEAN, BUFFER, PAGER, EXEC)  # maps of one purpose, whose free space serves nobody else
DIRECT_MAPS = {w.KVA: KERNEL, w.KVA_WIRED: KERNEL, w.EXEC: EXEC, w.BUFFER: BUFFER, w.PAGER: PAGER}
PLACES = ("a", "b", "c")
SUPPLIES = {"kmapentzone": vm_map.FIXED, "on_demand": map_entries.ON_DEMAND, "reservation": vm_map.RESERVE}
ATTRIBUTES = 3  # ATTR_SINGLE, ATTR_WIRED, ATTR_PAGEABLE
MINIMAL = {"kva_bytes": slots.PAGE, "cpus": 1, "map_number": 0, "items": (), "bases": ()}


class Design(NamedTuple):
    """A design's code: its object allocators and arena, and the drivers bound to them."""

    names: tuple[str, ...]  # of the object allocators, without the absent ones
    servers: tuple[ModuleType, ...]  # one per place
    arena: ModuleType
    replay: Callable
    upkeep: Callable
    observe: Callable
    ticks: tuple[int, ...]  # ns between two upkeeps of each allocator, by place; 0: none


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


@functools.cache
def design(names: tuple[str, ...], arena: str) -> Design:
    """Bind the drivers to these object allocators (at most three, distinct) and this arena."""
    servers = [part(allocators, name) for name in names]
    servers += [absent] * (len(PLACES) - len(servers))
    arena_module = part(arenas, arena)
    map_parts = map_slots(arena_module)
    label = ",".join([*names, arena])
    return Design(
        names,
        tuple(servers),
        arena_module,
        jit.bind(replay.replay, slots_of(servers, ("alloc", "free")) | map_parts, label),
        jit.bind(replay.upkeep, slots_of(servers, ("tend",)) | map_parts, label),
        jit.bind(replay.observe, {n: getattr(arena_module, n) for n in ("map_measure", "map_paint")}, arena),
        tuple(getattr(m, "TICK_NS", 0) for m in servers),
    )


def map_slots(arena: ModuleType) -> dict[str, Callable]:
    """Functions for the drivers' slots of the arena, those that both of them call."""
    found = {n: getattr(arena, n) for n in ("map_alloc", "map_free", "map_free_bytes")}
    return found | {"map_attr": getattr(arena, "map_attr", asking.sort_alone)}


def slots_of(servers: Sequence[ModuleType], verbs: Sequence[str]) -> dict[str, Callable]:
    """Functions for the drivers' slots of the object allocators; one that has no upkeep gets an empty one."""
    return {
        f"{verb}_{place}": getattr(module, verb, absent.tend)
        for place, module in zip(PLACES, servers, strict=True)
        for verb in verbs
    }


def part(package: ModuleType, name: str) -> ModuleType:
    """Import a part by name; ConfigError lists what there is."""
    known = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
    if name not in known:
        raise ConfigError(f"{package.__name__}: no part is called {name!r}; there are {', '.join(known)}")
    return importlib.import_module(f"{package.__name__}.{name}")


def params(module: ModuleType, given: Mapping[str, int], **filled: int) -> tuple:
    """Parameters of a part: what the configuration gives, and `filled` for fields of that name left at 0."""
    fields = module.Params._fields
    if unknown := sorted(set(given) - set(fields)):
        name = module.__name__.rpartition(".")[2]
        raise ConfigError(f"{name} has no parameter {unknown[0]!r}; it has {', '.join(fields) or 'none'}")
    chosen = module.Params(**given)
    return chosen._replace(**{k: v for k, v in filled.items() if k in fields and not getattr(chosen, k)})


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


def allocator_names(objects: Mapping) -> tuple[str, ...]:
    """List a cell's object allocators, each once."""
    return tuple(dict.fromkeys([objects["malloc"], objects["zone"], objects["mbuf"], *objects["kinds"].values()]))


def homes(objects: Mapping, maps: Mapping) -> dict[str, int]:
    """Map in which each allocator grows.

    Whatever serves malloc grows in kmem_map, where there is one; zones in kernel_map; mbufs in mb_map, or where malloc
    does. With a direct map of physical memory all grow in that.
    """
    usual = DIRECT if maps["layout"] == "direct" else KERNEL
    malloc_map = KMEM if maps["layout"] == "split" else usual
    mbuf_map = MB if "mb_map" in maps["submaps"] else malloc_map
    home = {objects["mbuf"]: mbuf_map} | dict.fromkeys(objects["kinds"].values(), usual)
    return home | {objects["zone"]: usual} | {objects["malloc"]: malloc_map}


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


def tends(module: ModuleType, given: Mapping[str, int] | None = None) -> bool:
    """Whether an allocator with these parameters has upkeep of its own."""
    asked = getattr(module, "TENDS_IF", "")
    wanted = not asked or (given or {}).get(asked, getattr(module.Params(), asked))
    return hasattr(module, "tend") and module is not absent and bool(wanted)


def reapers(config: Mapping) -> list[bool]:
    """Which of a cell's allocators, by place, give anything back when they are asked."""
    given = config["objects"]["params"]
    code = design(allocator_names(config["objects"]), config["maps"]["arena"])
    return [tends(m, given.get(name)) for name, m in zip(code.names, code.servers, strict=False)]


def sets_aside(module: ModuleType) -> bool:
    """Whether an allocator serves interrupt zones from KVA that it sets aside at boot."""
    return hasattr(module, "kva_reserved")


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
