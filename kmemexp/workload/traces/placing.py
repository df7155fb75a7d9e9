"""Slots for the objects of a trace: small numbers that are used again."""

import numpy as np

from kmemexp.jit import entry


@entry
def assign_slots(is_alloc: np.ndarray, ids: np.ndarray, slot_of: np.ndarray, free: np.ndarray, slot: np.ndarray) -> int:
    """Give each object the slot freed last, or a new one. `slot_of` has room for every id, `free` for every row.

    Writes `slot` (one per row). Returns the number of slots.
    """
    count = 0
    top = 0
    for i in range(len(ids)):
        if is_alloc[i]:
            if top > 0:
                top -= 1
                slot[i] = free[top]
            else:
                slot[i] = count
                count += 1
            slot_of[ids[i]] = slot[i]
        else:
            slot[i] = slot_of[ids[i]]
            free[top] = slot[i]
            top += 1
    return count
