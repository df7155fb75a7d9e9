"""No allocator: fills the places of a design that has fewer than three. A request that reaches it fails."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Array, Registers
from kmemexp.sim.items import Item
from kmemexp.sim.slots import DONE, FAILED

SERVES = ()
LOCKS = ("none",)


class Params(NamedTuple):
    """Nothing to choose."""


class State(NamedTuple):
    """Nothing to keep; a tuple of arrays must not be empty for the compiler."""

    nothing: Array


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Return an empty state."""
    return State(np.zeros(1, np.int64))


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    return FAILED


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    return DONE


@kernel
def tend(st: State, reg: Registers, i: int) -> int:
    return DONE


def census(st: State) -> dict[str, int]:
    """Nothing is held."""
    return {"held_bytes": 0}
