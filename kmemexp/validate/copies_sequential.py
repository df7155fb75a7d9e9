"""Copies of a small sequential-fit arena, for `exhaustive`."""

from typing import Any

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Words
from kmemexp.sim.arenas._shared.hole_list import FREE_ROW, FRESH_ROW, HOLE_COLUMNS, MAP_COLUMNS, ROVER
from kmemexp.sim.arenas.sequential import FIRST_FIT, NEXT_FIT
from kmemexp.sim.slots import PAGE
from kmemexp.validate.copies import load_rows, save_rows

WIDTH = 72


@kernel
def save(st: Any, row: Words) -> None:
    row[0], row[1] = st.supply[FREE_ROW], st.supply[FRESH_ROW]
    for k in range(MAP_COLUMNS):
        row[2 + k] = st.maps[0, k]
    save_rows(st.hole, HOLE_COLUMNS, row, 2 + MAP_COLUMNS)


@kernel
def load(st: Any, row: Words) -> None:
    st.supply[FREE_ROW], st.supply[FRESH_ROW] = row[0], row[1]
    for k in range(MAP_COLUMNS):
        st.maps[0, k] = row[2 + k]
    load_rows(st.hole, HOLE_COLUMNS, row, 2 + MAP_COLUMNS)


@kernel
def rover_of(st: Any) -> int:
    return st.maps[0, ROVER] // PAGE if st.p.policy == NEXT_FIT else FIRST_FIT
