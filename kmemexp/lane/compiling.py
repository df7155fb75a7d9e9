"""Compile what cells need before any of them is simulated."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from kmemexp import jit
from kmemexp.boot import timed
from kmemexp.boot.design import allocator_names, design
from kmemexp.boot.machine import boot
from kmemexp.parts import outside
from kmemexp.sim import slots as s
from kmemexp.sim.maps import KERNEL
from kmemexp.sim.tables import gauge
from kmemexp.workload import stability
from kmemexp.workload.stream import Kinds, Stream

NONE = np.zeros(0, np.int32)
NO_KINDS = Kinds((), NONE.astype(np.int8), NONE, NONE, NONE)
NO_OPERATIONS = Stream(
    NONE.astype(np.int64), NONE.astype(np.uint8), NONE.astype(np.int16), NONE, NONE, NONE.astype(np.int16),
    NONE.astype(np.uint8), 0,
)  # fmt: skip


def warm(configs: Iterable[Mapping[str, Any]], note: Callable[[str], None] = lambda text: None) -> None:
    """Compile what the lanes of these cells need, or load it from the disk cache. Raises ConfigError.

    Several drivers that have not been compiled yet are compiled by a process each, as many at once as there are CPUs;
    `note` is told.
    """
    distinct = list({_code(c): c for c in map(stability.routed, configs)}.values())
    cold = [c for c in distinct if not all(jit.is_cached(driver) for driver in _drivers(c))]
    workers = min(len(cold), os.cpu_count() or 1)
    if workers > 1:
        note(f"compiling {len(cold)} of {len(distinct)} designs, {workers} at a time; the next run finds them compiled")
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(warm_one, cold))
    for config in distinct:
        warm_one(config)


def _code(config: Mapping[str, Any]) -> tuple[tuple[str, ...], str, bool]:
    """What decides which compiled code a cell needs."""
    return allocator_names(config["objects"]), config["maps"]["arena"], timed.is_timed(config)


def _drivers(config: Mapping[str, Any]) -> list[Callable[..., Any]]:
    names, arena, is_timed = _code(config)
    code = design(names, arena)
    return [code.replay, code.upkeep, *([timed.driver(names, arena)] if is_timed else [])]


def warm_one(config: Mapping[str, Any]) -> None:
    """Compile what one cell needs, by running it on nothing."""
    outside.provide(config)
    config = stability.routed(config)
    if timed.is_timed(config):
        t = timed.boot(config, NO_KINDS, NO_OPERATIONS, 0)
        t.run(t.world, t.wired.m, t.stream, 0, 1)
        t.base.observe(t.world.arena, KERNEL, np.zeros(gauge.COLUMNS, np.int64), np.zeros(0))
    machine = boot(config, NO_KINDS, 0)
    machine.upkeep(machine.world, 0, s.TEND_TICK)
    machine.observe(machine.world.arena, KERNEL, np.zeros(gauge.COLUMNS, np.int64), np.zeros(0))
