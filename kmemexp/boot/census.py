"""What a design is at boot, before any load: what its maps are, and who serves each kind, where, up to which limit."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from kmemexp.boot.machine import Routed, carved_at_boot, routed
from kmemexp.parts.finding import parameters, sets_aside
from kmemexp.parts.spaces import kva_bytes
from kmemexp.sim import sizing
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.items import Item
from kmemexp.sim.maps import DIRECT, KERNEL, MAP_NAMES
from kmemexp.sim.network import JUMBO, MSIZE
from kmemexp.sim.probes import SERVER_MAP
from kmemexp.sim.slots import ITEM_TYPE
from kmemexp.workload.stream import CLASS_NAMES, MALLOC, MBUF, ZONE, Kinds

LIMITED = ("zalloc", "objcache", "objcache_2020", "uma_today")
"""Allocators that count the objects of a zone up to its limit."""


class Served(NamedTuple):
    """Who serves a kind of object."""

    kind: str
    klass: str
    allocator: str  # "": the map itself
    map: str  # in which that grows
    limit: int  # objects; bytes of what a map serves, or of one type of malloc's; 0: none but the map's size
    own_kva: bool  # a range set aside for this kind alone
    held: bool = True  # to the limit: of malloc's, a kind that is one type


def maps(config: Mapping[str, Any]) -> list[sizing.Reservation]:
    """List what a cell's kernel carves out of its maps at boot, in this order."""
    node, machine = config["maps"], config["machine"]
    return carved_at_boot(config, sizing.of_cell(node, config["objects"], machine, kva_bytes(node, machine)))


def served(config: Mapping[str, Any], kinds: Kinds) -> list[Served]:
    """List who serves each kind of a load in a cell. Raises ConfigError."""
    cell = routed(config, kinds)
    sizes = {name: nbytes for name, nbytes, _ in maps(config)} | {"kernel_map": cell.sized.kva_bytes}
    rows = []
    for k, (kind, klass) in enumerate(zip(kinds.names, kinds.klass.tolist(), strict=True)):
        server, item, own = (int(cell.kind_rows[k, column]) for column in (mc.KIND_SERVER, mc.KIND_ITEM, mc.KIND_MAP))
        if server == SERVER_MAP:
            place = MAP_NAMES[own]
            rows.append(Served(kind, CLASS_NAMES[klass], "", place, sizes[place], own_kva=False))
            continue
        name = cell.code.names[server]
        entries = cell.items[name][item].limit if klass == ZONE else 0
        limit = entries if name in LIMITED else 0
        if klass == MALLOC:
            limit = cell.sized.malloc_type_bytes
        elif klass == MBUF:
            limit = _limit_of_mbufs(cell, name, int(kinds.size[k]))
        own_kva = bool(entries) and sets_aside(name)
        held = klass != MALLOC or item < ITEM_TYPE
        of = cell.items[name][item] if klass == ZONE else Item(int(kinds.size[k]), 0, 0)
        grown = MAP_NAMES[_grows_in(cell, server, klass, of)]
        rows.append(Served(kind, CLASS_NAMES[klass], name, grown, limit, own_kva, held))
    return rows


def _grows_in(cell: Routed, server: int, klass: int, item: Item) -> int:
    """Map that an allocator grows in for an item; sizes of malloc vary, so of it only the usual one can be said."""
    home = cell.home[cell.code.names[server]]
    needs_kva = getattr(cell.code.servers[server], "needs_kva", None)
    beside = home == DIRECT and klass != MALLOC and needs_kva is not None and needs_kva(item)
    return KERNEL if beside else home


def _limit_of_mbufs(cell: Routed, allocator: str, nbytes: int) -> int:
    """Limit that an allocator has for network buffers of a size; 0: none."""
    key = "nmbufs" if nbytes <= MSIZE else "nmbclusters"
    if nbytes in JUMBO and "nmbjumbop" in parameters("allocators", allocator):
        key = ("nmbjumbop", "nmbjumbo9", "nmbjumbo16")[JUMBO.index(nbytes)]
    return cell.facts.get(key, 0) if key in parameters("allocators", allocator) else 0
