"""From a cell's plain configuration to a machine that has booted: parts found by name, maps laid out, kinds routed."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from kmemexp.boot.clock import is_timed
from kmemexp.boot.design import Design, allocator_names, design, homes, params, reapers
from kmemexp.errors import ConfigError
from kmemexp.parts.finding import serves, sets_aside, shares_pages
from kmemexp.parts.spaces import backed_bytes, covered_bytes, kva_bytes, superpage_bytes
from kmemexp.sim import sizing, slots
from kmemexp.sim.allocators import absent
from kmemexp.sim.arenas._shared import map_entries
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.items import PACKET, Item
from kmemexp.sim.maps import BUFFER, DIRECT, EXEC, KERNEL, KMEM, MAP_NAMES, PAGER, PIPE, PRIVATE
from kmemexp.sim.probes import SERVER_MAP
from kmemexp.sim.replay import World
from kmemexp.sim.tables import obj, regs, tally
from kmemexp.workload import pages, stream
from kmemexp.workload.stream import CLASS_NAMES, MALLOC, MBUF, ZONE, Kinds

OWN_MAPS = {stream.EXEC: EXEC, stream.BUFFER: BUFFER, stream.PAGER: PAGER}
PAGE_SORTS = {
    stream.ANON: slots.ATTR_PAGEABLE | slots.ATTR_SPREAD,
    stream.FILE: slots.ATTR_PAGEABLE | slots.ATTR_SPREAD | slots.ATTR_FILE,
    stream.PAGES: slots.ATTR_WIRED | slots.ATTR_SPREAD,
}
"""What an arena is told of classes that have no KVA of their own."""
"""Maps of classes that have one of their own, in a kernel that has it; other classes of map requests use kernel_map."""
OWN_KINDS = {"pipe_buffer": PIPE}
"""The same of single kinds, by the name that they have in the workloads."""
SUPPLIES = {"kmapentzone": map_entries.FIXED, "on_demand": map_entries.ON_DEMAND, "reservation": map_entries.RESERVE}


class Machine(NamedTuple):
    """One lane's machine after boot."""

    world: World
    replay: Callable[..., Any]
    upkeep: Callable[..., Any]
    observe: Callable[..., Any]
    ticks: tuple[int, ...]  # ns between two upkeeps of each allocator, by place; 0: none
    maps: list[int]  # maps that the workload's kinds are served from
    shared: list[bool]  # which of these are KVA for any purpose: no submaps of one purpose, no direct map
    map_bases: tuple[int, ...]  # where each of these begins
    map_bytes: tuple[int, ...]  # size of each of these
    malloc_map: int
    homes: tuple[int, ...]  # map that each allocator grows in, by place
    kind_rows: np.ndarray  # int64[kinds, KIND_COUNT]
    klass: np.ndarray  # int8[kinds], class of each
    items: tuple[int, ...]  # zones that each allocator serves, by place
    superpage_bytes: int
    kinds: tuple[str, ...]  # their names
    allocators: dict[str, Any]  # modules, in the order of their places
    cpus: int = 1
    shares_pages: bool = False  # with user memory and page cache
    looks: tuple[int, ...] = ()  # ns between two looks of each allocator's own thread, by place; 0: it has none
    rounds: Callable[..., list[list[int]]] | None = None  # of reclaim, by node and priority, since it was last asked
    node_bytes: int = 0  # of physical memory on each NUMA node but the last; 0: they are not told apart
    by_node: Callable[..., dict[str, list[Any]]] | None = None  # what lies on each NUMA node
    backed_bytes: int | None = None  # of address space that RAM can stand behind; None: address space is what is scarce


class Routed(NamedTuple):
    """What a configuration and the kinds of a workload come to, before anything is built."""

    config: Mapping[str, Any]
    kinds: Kinds
    code: Design
    sized: sizing.Sizing
    kind_rows: np.ndarray  # int64[kinds, KIND_COUNT]
    items: dict[str, list[Item]]  # zones that each allocator serves
    home: dict[str, int]  # map that each allocator grows in

    @property
    def shares_pages(self) -> bool:
        """Whether user memory and page cache take physical pages from where the kernel takes them."""
        asked = pages.are_pages(self.kinds).any() and shares_pages(self.config["maps"]["arena"])
        return bool(asked) and not is_timed(self.config)

    @property
    def size(self) -> dict[str, int]:
        """KVA and CPUs, which every part is told."""
        return {"kva_bytes": self.sized.kva_bytes, "cpus": self.config["machine"]["cpus"]}

    @property
    def node_bytes(self) -> int:
        """Bytes of physical memory on each NUMA node but the last; 0: the arena knows no nodes. Raises ConfigError."""
        asks = getattr(self.code.arena, "node_bytes", None)
        if asks is None:
            return 0
        maps, machine = self.config["maps"], self.config["machine"]
        chosen = params(self.code.arena, maps["params"].get(maps["arena"], {}), domains=machine["domains"])
        try:
            return int(asks(chosen, machine["ram_bytes"]))
        except ValueError as error:
            raise ConfigError(f"machine.domains={machine['domains']}: {error}") from error

    @property
    def facts(self) -> dict[str, int]:
        """What fills a parameter of the same name that the configuration leaves at 0."""
        machine, layout = self.config["machine"], self.config["maps"]["layout"]
        return self.size | {
            "ram_bytes": machine["ram_bytes"],
            "domains": machine["domains"],
            "node_bytes": self.node_bytes,
            "min_free_kib": machine.get("min_free_bytes", 0) >> 10,
            "nmbufs": self.sized.nmbufs,
            "nmbclusters": self.sized.nmbclusters,
            **dict(zip(("nmbjumbop", "nmbjumbo9", "nmbjumbo16"), self.sized.jumbo, strict=False)),
            "kmem_map": KMEM if layout == "split" else 0,
            "direct_map": DIRECT if layout == "direct" else 0,
            "pressure": int(self.shares_pages),
            "superpage_bytes": superpage_bytes(self.config["machine"]),
            "kmem_limit": self.sized.soft_limit_bytes,
            "malloc_types": max((traits.type for traits in self.kinds.traits), default=0),
            "malloc_type_bytes": self.sized.malloc_type_bytes,
            "kmalloc_sets": 1 + max((traits.kmalloc for traits in self.kinds.traits), default=0),
        }


def boot(config: Mapping[str, Any], kinds: Kinds, slot_count: int, rehearsed: Any = None) -> Machine:
    """Lay out the maps, carve out what boot carves out, give each kind its server. Raises ConfigError.

    `rehearsed`: of an arena that places by what is to come, its state at the end of a rehearsal.
    """
    cell = routed(config, kinds)
    code, rows = cell.code, cell.kind_rows
    grown = tuple(cell.home[name] for name in code.names)
    world, bases = _world(cell, slot_count, rehearsed)
    divides = getattr(code.arena, "divides", None)  # of an arena in which a map need not be a range of its own
    maps = sorted({*rows[:, mc.KIND_MAP].tolist(), *grown, KERNEL})
    maps = [m for m in maps if divides is None or not divides(world.arena, m)]
    return Machine(
        world=world,
        replay=code.replay,
        upkeep=code.upkeep,
        observe=code.observe,
        ticks=code.ticks,
        maps=maps,
        shared=[m not in (*PRIVATE, DIRECT) for m in maps],
        map_bases=tuple(bases.get(MAP_NAMES[m], 0) for m in maps),
        map_bytes=_map_bytes(cell, maps),
        malloc_map=cell.home[config["objects"]["malloc"]],
        homes=grown,
        kind_rows=rows,
        klass=kinds.klass,
        items=tuple(len(cell.items[name]) for name in code.names),
        superpage_bytes=superpage_bytes(config["machine"]),
        kinds=tuple(kinds.names),
        allocators=dict(zip(code.names, code.servers, strict=False)),
        cpus=cell.size["cpus"],
        shares_pages=cell.shares_pages,
        looks=looks(config),
        rounds=getattr(code.arena, "take_rounds", None),
        node_bytes=cell.node_bytes,
        by_node=getattr(code.arena, "by_node", None),
        backed_bytes=backed_bytes(config["machine"]),
    )


def routed(config: Mapping[str, Any], kinds: Kinds) -> Routed:
    """Find the parts of a cell and route its kinds; nothing is built. Raises ConfigError."""
    objects, machine = config["objects"], config["machine"]
    code = design(allocator_names(objects), config["maps"]["arena"])
    sized = sizing.of_cell(config["maps"], objects, machine, kva_bytes(config["maps"], machine))
    rows, items = _routes(objects, code, kinds, dict(sized.limits))
    rows[:, mc.KIND_MAP] = _own_maps(kinds, {name for name, _, _ in carved_at_boot(config, sized)})
    rows[:, mc.KIND_ATTR] = np.where(kinds.klass == stream.KVA_WIRED, slots.ATTR_WIRED, slots.ATTR_PAGEABLE)
    _ask_pages(rows, kinds, config["maps"]["arena"])
    return Routed(config, kinds, code, sized, rows, items, homes(objects, config["maps"]))


def looks(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Ns between two looks of each allocator's own thread, by place; 0: it has none, or nothing to do here."""
    objects, maps, machine = config["objects"], config["maps"], config["machine"]
    code = design(allocator_names(objects), maps["arena"])
    sized = sizing.of_cell(maps, objects, machine, kva_bytes(maps, machine))
    facts = {"ram_bytes": machine["ram_bytes"], "kmem_limit": sized.soft_limit_bytes}
    found = []
    for name, module in zip(code.names, code.servers, strict=False):
        asks = getattr(module, "watch_ns", None)
        found.append(asks(params(module, objects["params"].get(name, {}), **facts)) if asks else 0)
    return tuple(found)


def _ask_pages(rows: np.ndarray, kinds: Kinds, arena: str) -> None:
    """Route kinds without KVA of their own to the direct map, in blocks as large as they may be."""
    if not shares_pages(arena):
        return
    for row, klass, growth in zip(rows, kinds.klass.tolist(), kinds.growth.tolist(), strict=True):
        if klass in PAGE_SORTS:
            order = max(growth, 1).bit_length() - 1
            row[mc.KIND_MAP], row[mc.KIND_ATTR] = DIRECT, PAGE_SORTS[klass] | order << slots.WHO_SHIFT


def _own_maps(kinds: Kinds, carved: Collection[str]) -> list[int]:
    """Map that each kind of map requests is served from; `carved`: names of the submaps that there are."""
    own = [OWN_KINDS.get(name, OWN_MAPS.get(k, KERNEL)) for name, k in zip(kinds.names, kinds.klass, strict=True)]
    return [m if MAP_NAMES[m] in carved else KERNEL for m in own]


def _routes(
    objects: Mapping[str, Any], code: Design, kinds: Kinds, limits: Mapping[str, int]
) -> tuple[np.ndarray, dict[str, list[Item]]]:
    """Rows of the kinds, with their servers and their items' numbers there, and the items of each allocator.

    `limits`: of zones that the kernel limits by the machine's size, whatever the workload says.
    """
    items: dict[str, list[Item]] = {name: [] for name in code.names}
    rows = np.zeros((len(kinds.names), mc.KIND_COUNT), np.int64)
    rows[:, mc.KIND_SERVER] = SERVER_MAP
    number = {MALLOC: slots.ITEM_MALLOC, MBUF: slots.ITEM_MBUF}
    for k, (row, kind, klass) in enumerate(zip(rows, kinds.names, kinds.klass.tolist(), strict=True)):
        row[mc.KIND_ITEM] = number.get(klass, 0)
        word = CLASS_NAMES[klass]
        if word not in slots.SERVED:
            continue
        name = objects["kinds"].get(kind, objects[word])
        if word not in serves(name):
            raise ConfigError(f"objects: {name} cannot serve {kind}, which is of class {word}")
        row[mc.KIND_SERVER] = place = code.names.index(name)
        if klass == MALLOC and getattr(code.servers[place], "TYPED_MALLOC", False):
            row[mc.KIND_ITEM] = slots.item_of_set(kinds.traits_of(k).kmalloc)
        if klass == MALLOC and kinds.traits_of(k).type and getattr(code.servers[place], "LIMITS_TYPES", False):
            row[mc.KIND_ITEM] = slots.ITEM_TYPE - kinds.traits_of(k).type
        if klass == MBUF and kinds.traits_of(k).flags & PACKET:
            row[mc.KIND_ITEM] = slots.ITEM_PACKET
        if klass == ZONE:
            row[mc.KIND_ITEM] = len(items[name])
            told = int(kinds.size[k]), int(kinds.growth[k]), limits.get(kind, int(kinds.limit[k]))
            items[name].append(Item(*told, kinds.traits_of(k)))
    return rows, items


def _world(cell: Routed, slot_count: int, rehearsed: Any) -> tuple[World, dict[str, int]]:
    """Build the parts, in the order in which boot takes KVA for them. Returns also where submaps begin, by name."""
    carved = _carve(cell, rehearsed)
    states = [_allocator(cell, place, carved.zones) for place in range(len(cell.code.names))]
    unused = absent.init(absent.Params(), map_number=0, items=(), bases=(), **cell.size)
    a, b, c = [*states, unused, unused][: len(slots.PLACES)]
    rows = cell.kind_rows
    world = World(
        a,
        b,
        c,
        carved.arena,
        server=rows[:, mc.KIND_SERVER].copy(),
        item=rows[:, mc.KIND_ITEM].copy(),
        target_map=rows[:, mc.KIND_MAP].copy(),
        attribute=rows[:, mc.KIND_ATTR].copy(),
        objects=_no_objects(slot_count),
        counters=np.zeros(tally.COLUMNS, np.int64),
        reg=np.zeros((1, regs.COLUMNS), np.int64),
        reclaims=int(cell.shares_pages or _reclaims(cell.config)),
    )
    return world, carved.submaps


def _reclaims(config: Mapping[str, Any]) -> bool:
    """Whether a map without room makes allocators give back what they can."""
    return bool(config["maps"]["reclaim"]) and any(reapers(config))


def _allocator(cell: Routed, place: int, bases: Mapping[str, list[int]]) -> tuple[Any, ...]:
    """Build the state of one allocator."""
    name, module = cell.code.names[place], cell.code.servers[place]
    chosen = params(module, cell.config["objects"]["params"].get(name, {}), **cell.facts)
    told: dict[str, Any] = {"map_number": cell.home[name], "items": cell.items[name], "bases": bases[name]}
    told |= cell.size | {"kva_bytes": covered_bytes(name, cell.config["maps"], cell.config["machine"])}
    try:
        state: tuple[Any, ...] = module.init(chosen, **told)
    except ValueError as error:
        raise ConfigError(f"objects.params.{name}: {error}") from error
    return state


class _Carved(NamedTuple):
    """The arena after boot, and what boot took from it."""

    arena: tuple[Any, ...]
    zones: dict[str, list[int]]  # by allocator, the KVA of its items or -1
    submaps: dict[str, int]  # by name, where it begins


def _carve(cell: Routed, rehearsed: Any) -> _Carved:
    """Build the arena, and take from it what boot takes. Raises ConfigError."""
    code, maps = cell.code, cell.config["maps"]
    facts = cell.facts | {"supply": SUPPLIES.get(maps["entries"], 0), "entry_limit": cell.sized.map_entries}
    chosen = params(code.arena, maps["params"].get(maps["arena"], {}), **facts)
    try:
        arena = code.arena.init(chosen, maps=len(MAP_NAMES), **cell.size)
        if rehearsed is not None:
            code.arena.foresee(arena, rehearsed)
    except ValueError as error:
        raise ConfigError(f"maps.params.{maps['arena']}: {error}") from error
    take, submaps = _Taker(code, arena), {}
    for name, nbytes, parent in carved_at_boot(cell.config, cell.sized):
        if name in MAP_NAMES:
            from_arena = name in getattr(code.arena, "FROM_ARENA", ())
            submaps[name] = take(name, nbytes, parent, slots.ATTR_PAGEABLE if from_arena else slots.ATTR_SINGLE)
            try:
                code.arena.add_map(arena, MAP_NAMES.index(name), submaps[name], nbytes)
            except ValueError as error:
                raise ConfigError(f"machine.kva_bytes: {name}: {error}; enlarge the KVA or use less RAM") from error
        elif name not in cell.kinds.names:  # a zone of the workload's own takes its place
            take(name, _set_aside(code, arena, name, nbytes), parent, slots.ATTR_PAGEABLE)
    bases = {}
    for name, module in zip(code.names, code.servers, strict=False):
        sizes = [module.kva_reserved(item) if sets_aside(name) else 0 for item in cell.items[name]]
        bases[name] = [take("a zone", n, "kernel_map", slots.ATTR_PAGEABLE) if n else -1 for n in sizes]
    return _Carved(arena, bases, submaps)


def _set_aside(code: Design, arena: tuple[Any, ...], name: str, nbytes: int) -> int:
    """Bytes that boot takes under a name; the arena may guarantee the rest of what is set aside. Raises ConfigError."""
    asked = getattr(code.arena, "set_aside", None)
    try:
        return int(asked(arena, name, nbytes)) if asked else nbytes
    except ValueError as error:
        raise ConfigError(f"machine.kva_bytes: {name}: {error}; enlarge the KVA or use less RAM") from error


def carved_at_boot(config: Mapping[str, Any], sized: sizing.Sizing) -> list[sizing.Reservation]:
    """List what a cell's kernel carves out of its maps at boot, before any zone of the workload."""
    return sizing.reservations(
        sized,
        network_zones=sets_aside(config["objects"]["zone"]),
        **sizing.carving(config["maps"], config["machine"]["ram_bytes"]),
    )


def _map_bytes(cell: Routed, maps: list[int]) -> tuple[int, ...]:
    """Sizes of maps: of a submap what boot has carved out, of others the whole KVA."""
    carved = {name: nbytes for name, nbytes, _ in carved_at_boot(cell.config, cell.sized)}
    return tuple(carved.get(MAP_NAMES[m], cell.sized.kva_bytes) for m in maps)


class _Taker:
    """Takes memory from a map at boot, by a driver that no allocator is compiled into."""

    def __init__(self, code: Design, arena: tuple[Any, ...]) -> None:
        self.code, self.arena = code, arena
        self.reg = np.zeros((1, regs.COLUMNS), np.int64)

    def __call__(self, name: str, nbytes: int, parent: str, attribute: int) -> int:
        """Take `nbytes` from the map called `parent`; returns the address."""
        whole = -(-nbytes // slots.PAGE) * slots.PAGE
        addr = int(self.code.take(self.arena, self.reg, MAP_NAMES.index(parent), whole, attribute | slots.ATTR_NOFREE))
        if addr < 0:
            raise ConfigError(
                f"machine.kva_bytes: {parent} has no room for {name} ({nbytes / 2**20:.1f} MiB) at boot; "
                "enlarge the KVA or use less RAM, from which the maps are sized"
            )
        return addr


def _no_objects(count: int) -> np.ndarray:
    objects = np.zeros((max(count, 1), obj.COLUMNS), np.int64)
    objects[:, obj.ADDR] = obj.ABSENT
    return objects
