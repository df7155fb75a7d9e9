"""Names of caches: from the allocation, else from the object's free, else one for each (call site, size).

`kmem_cache_alloc` names the cache since Linux 6.1, `kmem_cache_free` since 5.13. Where only frees do, a first reading
of the file finds what each object was; an object that is never freed has the name that others of its call site and
size have.
"""

from collections import Counter

import numpy as np

from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces import words
from kmemexp.workload.traces.track import Rows
from kmemexp.workload.traces.words import Words

MOST = 32_000  # names that fit the column `cache`
_MSG, _MEMDUP = ("alloc_msg+", "load_msg+"), ("memdup_user+", "memdup_user_nul+", "vmemdup_user+")


class Naming:
    """Numbers of caches over a whole recording: those of the text first come, and classes without a name."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sites: list[str] = []
        self.unnamed = 0  # allocations without a name that no free tells either
        self._of_text = np.zeros(0, np.int16)  # number by number in the text
        self._numbers: dict[str, int] = {}
        self._of_object = np.full(1 << 12, -1, np.int16)  # cache of objects that their allocation did not name
        self._classes: dict[tuple[int, int], int] = {}
        self._votes: dict[tuple[int, int], Counter[int]] = {}

    def learn(self, rows: Rows, names: Words) -> None:
        """Of a first reading: note what frees say of objects that their allocation did not name."""
        self._follow(names)
        births = np.flatnonzero((rows.op == sc.ALLOC) & (rows.cache == sc.UNNAMED_CACHE))
        self._make_room(rows.object_id)
        if not hasattr(self, "_born"):
            self._born = np.full(1, -1, np.int64)
        if len(births):
            keys = rows.site[births].astype(np.int64) << 32 | rows.allocated[births]
            self._born = _grown(self._born, len(self._of_object))
            self._born[rows.object_id[births]] = keys
        named = np.flatnonzero((rows.op == sc.FREE) & (rows.cache > sc.UNNAMED_CACHE))
        self._born = _grown(self._born, len(self._of_object))
        ids = rows.object_id[named]
        said = named[self._born[ids] != -1]
        ids = rows.object_id[said]
        caches = self._of_text[rows.cache[said]]
        self._of_object[ids] = caches
        pairs, counts = np.unique(np.stack([self._born[ids], caches]), axis=1, return_counts=True)
        for (key, cache), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
            self._votes.setdefault((key >> 32, key & 0xFFFFFFFF), Counter())[cache] += count

    def named(self, rows: Rows, names: Words, sites: Words) -> Rows:
        """Return the rows with caches by their numbers in `self.names`, and the type of kmalloc's cache."""
        self._follow(names)
        self.sites += words.listed(sites, len(self.sites))
        cache = np.where(rows.cache >= 0, self._of_text[rows.cache], -1).astype(np.int16)
        unnamed = np.flatnonzero(rows.cache == sc.UNNAMED_CACHE)
        if len(unnamed):
            self._make_room(rows.object_id)
            cache[unnamed] = self._unnamed(rows, unnamed)
        return rows._replace(cache=cache, kmalloc=self._kmalloc(rows))

    def _unnamed(self, rows: Rows, which: np.ndarray) -> np.ndarray:
        ids = rows.object_id[which]
        fresh = which[np.isin(rows.op[which], (sc.ALLOC, sc.NULL_ALLOC, sc.ZERO_ALLOC))]
        keys, inverse = np.unique(np.stack([rows.site[fresh], rows.allocated[fresh]]), axis=1, return_inverse=True)
        classes = np.array([self._class(site, size) for site, size in keys.T.tolist()], np.int16)[inverse.reshape(-1)]
        known = rows.object_id[fresh]
        new = known < 0
        new |= self._of_object[known] < 0
        self.unnamed += int(np.count_nonzero(self._names_unnamed(classes[new])))
        objects = known[new & (known >= 0)]
        self._of_object[objects] = classes[new & (known >= 0)]
        found = np.full(len(rows.op), -1, np.int16)
        found[fresh] = classes
        chosen: np.ndarray = np.where(ids >= 0, self._of_object[ids], found[which])
        return chosen

    def _names_unnamed(self, classes: np.ndarray) -> np.ndarray:
        is_unnamed = np.array([name.startswith(sc.UNNAMED) for name in self.names], np.bool_)
        found: np.ndarray = is_unnamed[classes]
        return found

    def _class(self, site: int, size: int) -> int:
        """Return the number for objects of a call site and size: what most of them are, else a class of their own."""
        if (site, size) not in self._classes:
            if votes := self._votes.get((site, size)):
                number = max(votes, key=lambda cache: (votes[cache], -cache))
            else:
                where = self.sites[site] if site >= 0 else "?"
                number = self._number(f"{sc.UNNAMED} {where} {size}" if len(self.names) < MOST else sc.UNNAMED)
            self._classes[site, size] = number
        return self._classes[site, size]

    def _follow(self, names: Words) -> None:
        """Number the names that the text has had so far."""
        new = [self._number(name) for name in words.listed(names, len(self._of_text))]
        self._of_text = np.concatenate([self._of_text, np.array(new, np.int16)])

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]

    def _make_room(self, ids: np.ndarray) -> None:
        self._of_object = _grown(self._of_object, int(ids.max(initial=0)) + 1)

    def _kmalloc(self, rows: Rows) -> np.ndarray:
        """Return the type of each kmalloc by the kernel's own order of questions; schema.KMALLOC_TYPES."""
        is_kmalloc = rows.kmalloc >= 0
        by_site = np.array([4 * s.startswith(_MSG) + 5 * s.startswith(_MEMDUP) for s in [*self.sites, ""]], np.int8)
        site = by_site[rows.site]
        found = _BY_BITS[np.where(is_kmalloc, rows.kmalloc, 0)]
        found = np.where((site > 0) & (found != _DMA), site, found)
        return np.where(is_kmalloc, found, -1).astype(np.int8)


def _grown(values: np.ndarray, count: int) -> np.ndarray:
    """Return an array of -1 filled up to twice what is needed, or the one given."""
    if len(values) >= count:
        return values
    larger = np.full(2 * count, -1, values.dtype)
    larger[: len(values)] = values
    return larger


_DMA = sc.KMALLOC_TYPES.index("dma")
_BY_BITS = np.array(
    [
        sc.KMALLOC_TYPES.index(
            "dma" if bits & 4 else "reclaimable" if bits & 2 else "accounted" if bits & 8 else "plain"
        )
        for bits in range(16)
    ],
    np.int8,
)
