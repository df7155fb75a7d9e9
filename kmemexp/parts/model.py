"""Which model a cell is simulated by: a digest of all sources of the simulator that it reaches.

Results of another model are other results: a cell's key covers this digest. `compat.json` beside this file names edits
that are known to change no result: by module, the digest that a source had before by the one that it has after. An edit
of a comment or a docstring changes no digest.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from kmemexp import reach

ROOTS = {False: ("kmemexp.lane.replica", "kmemexp.lane.replayed"), True: ("kmemexp.lane.replica", "kmemexp.lane.timed")}
"""What simulates a cell, without and with a clock; its parts, which are found by name, come on top."""
COMPAT = Path(__file__).with_name("compat.json")


def sources(allocators: Iterable[str], arena: str, *, timed: bool) -> list[str]:
    """Modules that a cell reaches, sorted."""
    return list(_sources(tuple(sorted(set(allocators))), arena, timed))


@functools.cache
def version(allocators: tuple[str, ...], arena: str, timed: bool) -> str:
    """Digest of the sources that a cell with these object allocators (sorted) reaches, 16 hexadecimal digits."""
    same = compat()
    total = hashlib.sha256()
    for name in _sources(allocators, arena, timed):
        total.update(f"{name}={origin(reach.meaning(name), same.get(name, {}))};".encode())
    reach.keep()
    return total.hexdigest()[:16]


def origin(digest: str, same: Mapping[str, str]) -> str:
    """Go back over edits that change no result. Raises ValueError where they go round in a circle."""
    seen = [digest]
    while seen[-1] in same:
        seen.append(same[seen[-1]])
        if seen.count(seen[-1]) > 1:
            raise ValueError(f"{COMPAT}: {seen[-1]} stands for itself")
    return seen[-1]


@functools.cache
def compat() -> dict[str, dict[str, str]]:
    """Edits that are known to change no result."""
    found: dict[str, dict[str, str]] = json.loads(COMPAT.read_text("utf-8"))
    return found


@functools.cache
def _sources(allocators: tuple[str, ...], arena: str, timed: bool) -> tuple[str, ...]:
    own = (*(f"kmemexp.sim.allocators.{name}" for name in allocators), f"kmemexp.sim.arenas.{arena}")
    return tuple(sorted(reach.closure([*ROOTS[timed], *own])))
