"""Compile what cells need before any of them is simulated."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any

import numpy as np

from kmemexp import jit
from kmemexp.boot import timed
from kmemexp.boot.clock import is_timed
from kmemexp.boot.design import allocator_names, design
from kmemexp.boot.machine import boot
from kmemexp.lane import children
from kmemexp.lane.surveying import picture
from kmemexp.parts import outside
from kmemexp.parts.spaces import kva_bytes
from kmemexp.sim import demand
from kmemexp.sim import slots as s
from kmemexp.sim.maps import KERNEL
from kmemexp.workload import stability
from kmemexp.workload.stream import Kinds, Stream, columns, one_allocation

POLL_SECONDS = 0.2
Code = tuple[tuple[str, ...], str, bool, int]
"""What decides which compiled code a cell needs: object allocators, arena, whether there is a clock, bits of names."""

NONE = np.zeros(0, np.int32)
NO_KINDS = Kinds((), NONE.astype(np.int8), NONE, NONE, NONE)
NO_OPERATIONS = Stream(
    NONE.astype(np.int64), NONE.astype(np.uint8), NONE.astype(np.int16), NONE, NONE, NONE.astype(np.int16),
    NONE.astype(np.uint8), 0,
)  # fmt: skip


def warm(
    configs: Iterable[Mapping[str, Any]],
    left: Callable[[int, int], None] = lambda cold, designs: None,
    ready: Callable[[Mapping[str, Any]], None] = lambda config: None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Compile what the lanes of these cells need, or load it from the disk cache. Raises ConfigError.

    Drivers that have not been compiled yet are compiled by a process each, as many at once as there are CPUs. `left` is
    told how many designs have yet to be compiled, and of how many, at first and after each; `ready` of each cell as
    soon as its code is there; `stopped` is asked whether to give up.
    """
    alike: dict[Code, list[Mapping[str, Any]]] = {}
    for config in configs:
        alike.setdefault(_code(stability.routed(config)), []).append(config)
    cold = {code: cells for code, cells in alike.items() if not all(map(jit.is_cached, _drivers(code)))}
    left(len(cold), len(alike))
    for code, cells in alike.items():
        if code not in cold:
            warm_one(cells[0])
            for config in cells:
                ready(config)
    workers = min(len(cold), os.cpu_count() or 1)
    for n, code in enumerate(_compiled(cold, workers, stopped), 1):
        left(len(cold) - n, len(alike))
        for config in cold[code]:
            ready(config)


def _compiled(
    cold: Mapping[Code, list[Mapping[str, Any]]], workers: int, stopped: Callable[[], bool]
) -> Iterator[Code]:
    """Compile, and give each code back when it is there."""
    if workers <= 1:
        for code, cells in cold.items():
            warm_one(cells[0])
            yield code
        return
    pool = children.pool(workers)
    waiting: dict[futures.Future[None], Code] = {}
    try:
        for code, cells in cold.items():
            waiting[pool.submit(warm_one, cells[0])] = code
        while waiting and not stopped():
            done, _ = futures.wait(waiting, POLL_SECONDS, futures.FIRST_COMPLETED)
            for future in done:
                future.result()
                yield waiting.pop(future)
    finally:
        if waiting:
            children.abandon(pool)
        else:
            pool.shutdown(wait=False)


def _code(config: Mapping[str, Any]) -> Code:
    bits = kva_bytes(config["maps"], config["machine"]).bit_length()
    return allocator_names(config["objects"]), config["maps"]["arena"], is_timed(config), max(bits, demand.NARROW)


def _drivers(code: Code) -> list[Callable[..., Any]]:
    names, arena, has_clock, _ = code
    bound = design(names, arena)
    return [timed.driver(names, arena)] if has_clock else [bound.replay, bound.upkeep]


def warm_one(config: Mapping[str, Any]) -> None:
    """Compile what one cell needs, by running it on nothing."""
    outside.provide(config)
    config = stability.routed(config)
    if is_timed(config):
        t = timed.boot(config, NO_KINDS, NO_OPERATIONS, 0)
        t.run(t.world, t.wired.m, t.stream, 0, 1)
        machine = t.base
    else:
        machine = boot(config, NO_KINDS, 0)
        machine.replay(machine.world, *columns(one_allocation(0, 0)), 0, 0)
        machine.upkeep(machine.world, 0, s.TEND_TICK)
    picture(machine, KERNEL, 0)
