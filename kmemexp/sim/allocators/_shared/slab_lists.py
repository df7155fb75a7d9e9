"""Lists of slabs, threaded through a table with a row for each slab. Who keeps a list keeps its ends.

`columns` of a table: next slab, previous slab and, for a sorted list (`slab_order.py`), free objects.
"""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Array, Columns, Registers, Table, int64
from kmemexp.sim.allocators._shared.slab_order import FULLEST, NIL, insert


@kernel
def push(table: Table, columns: Columns, slab: int, first: int) -> None:
    """Put a slab at the head of a list that began at `first`, perhaps NIL."""
    following, preceding = columns[0], columns[1]
    table[slab, following] = first
    table[slab, preceding] = NIL
    if first != NIL:
        table[first, preceding] = slab


@kernel
def unlink(table: Table, columns: Columns, slab: int) -> tuple[int, int]:
    """Take a slab out. Returns its neighbours: NIL before or after it says where the list begins or ends now."""
    following, preceding = columns[0], columns[1]
    before, after = int64(table[slab, preceding]), int64(table[slab, following])
    if before != NIL:
        table[before, following] = after
    if after != NIL:
        table[after, preceding] = before
    return before, after


@kernel
def leave(table: Table, columns: Columns, slab: int, first: int) -> int:
    """Take a slab out of a list that begins at `first`. Returns where it begins now."""
    before, after = unlink(table, columns, slab)
    return after if before == NIL else first


@kernel
def enter(reg: Registers, i: int, table: Table, columns: Columns, order: int, slab: int, first: int) -> int:
    """Put a slab at the head of a list, or where a sorted one wants it. Returns where the list begins now."""
    if order:
        return slab if insert(reg, i, table, columns, order, slab, NIL, first) == NIL else first
    push(table, columns, slab, first)
    return slab


@kernel
def gained(reg: Registers, i: int, table: Table, columns: Columns, order: int, slab: int, first: int) -> int:
    """Move a listed slab, which has more free objects than before, if its list is sorted by that.

    Returns where the list begins now.
    """
    if order != FULLEST:
        return first
    before, after = unlink(table, columns, slab)
    head = after if before == NIL else first
    return slab if insert(reg, i, table, columns, order, slab, before, after) == NIL else head


def members(heads: Array, following: Array) -> list[int]:
    """List the members of all lists that begin at `heads`; `following` of a member is the next one or NIL."""
    found = []
    for head in heads.tolist():
        at = head
        while at != NIL:
            found.append(at)
            at = int(following[at])
    return found
