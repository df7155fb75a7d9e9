"""What the snapshots say besides slabs: areas of vmalloc, predicted by the recording's events; free blocks by order."""

from collections.abc import Iterable

import numpy as np

from kmemexp.workload.lives.snapshots import Snapshots
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.track import Rows

VMALLOC, BUDDY = "vmallocinfo", "buddyinfo"
CHANGE = {sc.KVA_ALLOC: 1, sc.KVA_FREE: -1, sc.KVA_LOST_FREE: -1, sc.KVA_UNMATCHED_FREE: -1}


class Areas:
    """Counts the areas of vmalloc that come and go between the recorder's marks; without marks, in all of it."""

    def __init__(self) -> None:
        self.more = 0
        self._ended = False

    def add(self, rows: Rows) -> None:
        """Count those of a batch."""
        change = np.select([rows.op == op for op in CHANGE], list(CHANGE.values()), 0)
        marks = rows.op == sc.MARK
        total = np.cumsum(change)
        if (begin := np.flatnonzero(marks & (rows.vector == sc.SNAP_BEFORE))).size:
            self.more = -int(total[begin[0]])
        if self._ended:
            return
        end = np.flatnonzero(marks & (rows.vector == sc.SNAP_AFTER))
        self._ended = bool(end.size)
        self.more += int(total[end[-1]] if end.size else total[-1]) if len(total) else 0


def lines(taken: Snapshots, more_areas: int) -> list[str]:
    """Say what areas and free blocks there were, and which areas are predicted; nothing without snapshots of them."""
    if taken.after is None:
        return []
    before, after, told = taken.before.others, taken.after.others, []
    if VMALLOC in before and VMALLOC in after:
        first, last = areas(before[VMALLOC]), areas(after[VMALLOC])
        told.append(
            f"vmalloc areas before / after, real / after, predicted: {first:,}, {last:,}, {first + more_areas:,}"
        )
    if BUDDY in before and BUDDY in after:
        were, are = free_blocks(before[BUDDY]), free_blocks(after[BUDDY])
        told.append(
            f"free blocks by order from 0, before: {_listed(were)}; after: {_listed(are)} (not predicted: user "
            "memory and page cache, which take most of them, leave no event)"
        )
    return told


def areas(text: str) -> int:
    """Areas in use of /proc/vmallocinfo; those that only wait to be purged are not."""
    return sum(1 for line in text.splitlines() if line.startswith("0x") and "unpurged" not in line)


def free_blocks(text: str) -> list[int]:
    """Free blocks of /proc/buddyinfo by order, over all zones."""
    rows = [line.partition("zone")[2].split()[1:] for line in text.splitlines() if "zone" in line]
    counts = [[int(word) for word in row] for row in rows if row]
    return np.sum(counts, axis=0).tolist() if counts else []


def _listed(counts: Iterable[int]) -> str:
    return " ".join(f"{count:,}" for count in counts)
