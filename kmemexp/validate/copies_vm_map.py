"""Copies of a small vm_map arena, for `exhaustive`."""

from typing import Any

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Words
from kmemexp.sim.arenas._shared.map_entries import MAP_COLUMNS, NODE_COLUMNS
from kmemexp.validate.copies import load_rows, save_rows

WIDTH = 160


@kernel
def save(st: Any, row: Words) -> None:
    at = 0
    for k in range(len(st.supply)):
        row[at] = st.supply[k]
        at += 1
    for k in range(MAP_COLUMNS):
        row[at] = st.maps[0, k]
        at += 1
    save_rows(st.node, NODE_COLUMNS, row, at)


@kernel
def load(st: Any, row: Words) -> None:
    at = 0
    for k in range(len(st.supply)):
        st.supply[k] = row[at]
        at += 1
    for k in range(MAP_COLUMNS):
        st.maps[0, k] = row[at]
        at += 1
    load_rows(st.node, NODE_COLUMNS, row, at)


@kernel
def rover_of(st: Any) -> int:
    return 0
