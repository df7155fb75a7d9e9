"""A design's code: its parts found by name, the drivers bound to them, the parameters that a cell gives them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from kmemexp import jit
from kmemexp.errors import ConfigError
from kmemexp.parts.finding import part
from kmemexp.sim import allocators, arenas, asking, replay
from kmemexp.sim.allocators import absent
from kmemexp.sim.maps import DIRECT, KERNEL, KMEM, MB
from kmemexp.sim.slots import PLACES

FAST: dict[str, Callable[..., Any]] = {"fast_alloc": asking.never_fast_alloc, "fast_free": asking.never_fast_free}
"""Slots that an allocator need not have, and what stands in their place."""


class Design(NamedTuple):
    """A design's code: its object allocators and arena, and the drivers bound to them."""

    names: tuple[str, ...]  # of the object allocators, without the absent ones
    servers: tuple[ModuleType, ...]  # one per place
    arena: ModuleType
    replay: Callable[..., Any]
    upkeep: Callable[..., Any]
    observe: Callable[..., Any]
    take: Callable[..., Any]
    ticks: tuple[int, ...]  # ns between two upkeeps of each allocator, by place; 0: none


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
        jit.bind(replay.replay, slots_of(servers, ("alloc", "free", *FAST)) | map_parts, label),
        jit.bind(replay.upkeep, slots_of(servers, ("tend",)) | map_parts, label),
        jit.bind(replay.observe, {n: getattr(arena_module, n) for n in ("map_measure", "map_paint")}, arena),
        jit.bind(replay.take, {n: map_parts[n] for n in ("map_alloc", "map_attr")}, arena),
        tuple(getattr(m, "TICK_NS", 0) for m in servers),
    )


def map_slots(arena: ModuleType) -> dict[str, Callable[..., Any]]:
    """Functions for the drivers' slots of the arena, those that both of them call."""
    found = {n: getattr(arena, n) for n in ("map_alloc", "map_free", "map_free_bytes")}
    return found | {"map_attr": getattr(arena, "map_attr", asking.sort_alone)}


def slots_of(servers: Sequence[ModuleType], verbs: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """Functions for the slots of the object allocators; one without upkeep or a fast path gets an empty one."""
    return {
        f"{verb}_{place}": getattr(module, verb, FAST.get(verb, absent.tend))
        for place, module in zip(PLACES, servers, strict=True)
        for verb in verbs
    }


def params(module: ModuleType, given: Mapping[str, int], **filled: int) -> tuple[int, ...]:
    """Parameters of a part: what the configuration gives, and `filled` for fields of that name left at 0."""
    fields = module.Params._fields
    if unknown := sorted(set(given) - set(fields)):
        name = module.__name__.rpartition(".")[2]
        raise ConfigError(f"{name} has no parameter {unknown[0]!r}; it has {', '.join(fields) or 'none'}")
    chosen = module.Params(**given)
    missing = {k: v for k, v in filled.items() if k in fields and not getattr(chosen, k)}
    whole: tuple[int, ...] = chosen._replace(**missing)
    return whole


def allocator_names(objects: Mapping[str, Any]) -> tuple[str, ...]:
    """List a cell's object allocators, each once."""
    return tuple(dict.fromkeys([objects["malloc"], objects["zone"], objects["mbuf"], *objects["kinds"].values()]))


def homes(objects: Mapping[str, Any], maps: Mapping[str, Any]) -> dict[str, int]:
    """Map in which each allocator grows.

    Whatever serves malloc grows in kmem_map, where there is one; zones in kernel_map; mbufs in mb_map, or where malloc
    does. With a direct map of physical memory all grow in that.
    """
    usual = DIRECT if maps["layout"] == "direct" else KERNEL
    malloc_map = KMEM if maps["layout"] == "split" else usual
    mbuf_map = MB if "mb_map" in maps["submaps"] else malloc_map
    home = {objects["mbuf"]: mbuf_map} | dict.fromkeys(objects["kinds"].values(), usual)
    return home | {objects["zone"]: usual} | {objects["malloc"]: malloc_map}


def tends(module: ModuleType, given: Mapping[str, int] | None = None) -> bool:
    """Whether an allocator with these parameters has upkeep of its own."""
    asked = getattr(module, "TENDS_IF", "")
    wanted = not asked or (given or {}).get(asked, getattr(module.Params(), asked))
    return hasattr(module, "tend") and module is not absent and bool(wanted)


def reapers(config: Mapping[str, Any]) -> list[bool]:
    """Which of a cell's allocators, by place, give anything back when they are asked."""
    given = config["objects"]["params"]
    code = design(allocator_names(config["objects"]), config["maps"]["arena"])
    return [tends(m, given.get(name)) for name, m in zip(code.names, code.servers, strict=False)]
