"""Merging the many small files of a sweep into few large ones."""

from collections.abc import Sequence

from kmemexp.store.files import LaneFiles
from kmemexp.store.ledger import Ledger
from kmemexp.store.schema import DONE, FAILED

MOST_LANES = 16_384
"""Rows in a merged file: its series, some 9 KiB a row in memory, are what merging it takes."""
SMALL_FILES = 64
"""Small files of a status that may lie beside each other before a running sweep merges them."""

Lanes = dict[str, list[int]]


def groups(ledger: Ledger) -> list[tuple[str, list[LaneFiles]]]:
    """Files to be merged, each group into one file, with their status; whole folders."""
    return [(status, group) for status in (DONE, FAILED) for group in packed(_of(ledger, status)) if len(group) > 1]


def due(ledger: Ledger) -> list[tuple[str, list[LaneFiles]]]:
    """Files that a running sweep should merge now: none while there are few small ones."""
    found = []
    for status in (DONE, FAILED):
        small = [stored for stored in _of(ledger, status) if stored.lanes < MOST_LANES // 2]
        # Those of like size together, or one file would be written anew each time.
        for tier in range(MOST_LANES.bit_length()):
            alike = [stored for stored in small if stored.lanes.bit_length() // 3 == tier]
            if len(alike) >= SMALL_FILES:
                found += [(status, group) for group in packed(alike) if len(group) > 1]
    return found


def lanes_of(group: Sequence[LaneFiles]) -> Lanes:
    """Rows of some files, sorted."""
    lanes: Lanes = {}
    for stored in group:
        for key, replicas in stored.cells.items():
            lanes.setdefault(key, []).extend(replicas)
    return {key: sorted(lanes[key]) for key in sorted(lanes)}


def _of(ledger: Ledger, status: str) -> list[LaneFiles]:
    return [stored for stored in ledger.files.values() if stored.status == status]


def packed(stored: Sequence[LaneFiles]) -> list[list[LaneFiles]]:
    """Group files so that no file has too many rows, in the order that they are in."""
    packed: list[list[LaneFiles]] = [[]]
    so_far = 0
    for each in stored:
        if packed[-1] and so_far + each.lanes > MOST_LANES:
            packed.append([])
            so_far = 0
        packed[-1].append(each)
        so_far += each.lanes
    return packed
