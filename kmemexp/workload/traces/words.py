"""Words met in a text, each numbered when it is seen first: names of caches, call sites."""

from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel
from kmemexp.workload.traces import tokens as tk
from kmemexp.workload.traces.tokens import Text

LONGEST = 64  # bytes of a word that are kept


class Words(NamedTuple):
    """A dictionary of words: room for `most` of them."""

    texts: np.ndarray  # uint8[most, LONGEST]
    lengths: np.ndarray  # int32[most]
    table: np.ndarray  # int32[4 * most], hash table: number + 1
    used: np.ndarray  # int64[1]


def words(most: int) -> Words:
    """Return an empty dictionary; `most` is a power of two."""
    return Words(
        np.zeros((most, LONGEST), np.uint8), np.zeros(most, np.int32), np.zeros(4 * most, np.int32),
        np.zeros(1, np.int64),
    )  # fmt: skip


def listed(known: Words, start: int = 0) -> list[str]:
    """Return the words from number `start` on."""
    rows = range(start, int(known.used[0]))
    return [bytes(known.texts[i, : known.lengths[i]]).decode("utf-8", "backslashreplace") for i in rows]


def reserve(known: Words, texts: tuple[str, ...]) -> None:
    """Give the first numbers to words that no text can hold: they are not found by `number`."""
    for i, word in enumerate(texts):
        known.texts[i, : len(word)] = np.frombuffer(word.encode(), np.uint8)
        known.lengths[i] = len(word)
    known.used[0] = len(texts)


@kernel
def number(known: Words, text: Text, at: int, end: int) -> int:
    """Look text[at:end] up, entering it when new. Returns its number, or -1 where there is no room left."""
    end = min(end, at + LONGEST)
    mask = len(known.table) - 1
    hashed = 2166136261  # FNV-1a, 32 bits
    for i in range(at, end):
        hashed = ((text[i] ^ np.int64(hashed)) * 16777619) & 0xFFFFFFFF
    place = hashed & mask
    while known.table[place] > 0:
        found: int = known.table[place] - 1
        if known.lengths[found] == end - at and tk.same(text, at, end, known.texts[found]):
            return found
        place = (place + 1) & mask
    new: int = known.used[0]
    if new == len(known.lengths):
        return -1
    known.table[place] = new + 1
    known.lengths[new] = end - at
    for i in range(at, end):
        known.texts[new, i - at] = text[i]
    known.used[0] = new + 1
    return new
