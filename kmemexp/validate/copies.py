"""Tables written into a row of numbers, and read from it: what copies of the state of small arenas are made of."""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Table, Words


@kernel
def save_rows(table: Table, columns: int, row: Words, at: int) -> None:
    """Write all of a table from row[at] on."""
    for n in range(len(table)):
        for k in range(columns):
            row[at] = table[n, k]
            at += 1


@kernel
def load_rows(table: Table, columns: int, row: Words, at: int) -> None:
    """Read it back."""
    for n in range(len(table)):
        for k in range(columns):
            table[n, k] = row[at]
            at += 1
