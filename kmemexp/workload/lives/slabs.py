"""Which of the kernel's slab caches an object was in: by its name, or for kmalloc by size, flags and call site.

Linux 6.18, include/linux/slab.h (kmalloc_type) and mm/slab_common.c; the order of the questions is the kernel's.
"""

from collections.abc import Collection

import numpy as np

from kmemexp.workload.lives.history import Events
from kmemexp.workload.traces import schema as sc

LARGEST = 8192  # bytes: larger requests get pages, not a slab
_FORMS = ("kmalloc-{}", "kmalloc-cg-{}", "kmalloc-rcl-{}", "dma-kmalloc-{}", "msg_msg-{}", "memdup_user-{}")
_PLAIN = "kmalloc-{}"
_INSTEAD = {sc.KMALLOC_TYPES.index("msg_msg"): "kmalloc-cg-{}"}  # messages are accounted (ipc/msgutil.c)


def set_of(name: str) -> int:
    """Return which of schema.KMALLOC_TYPES a slab cache belongs to; -1: it is none of kmalloc's."""
    prefixes = {form.format(""): i for i, form in enumerate(_FORMS)}
    fitting = [prefix for prefix in prefixes if name.startswith(prefix)]
    return prefixes[max(fitting, key=len)] if fitting else -1


class Slabs:
    """Numbers of slab caches: `names[i]`; `known` are those of the kernel, if a snapshot lists them."""

    def __init__(self, known: Collection[str] = ()) -> None:
        self.known = set(known)
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the number of a cache."""
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]

    def of_events(self, events: Events, caches: list[str]) -> np.ndarray:
        """Return the slab cache of each allocation and of each unmatched free that names one (int32); -1: none."""
        kmalloc = caches.index(sc.KMALLOC) if sc.KMALLOC in caches else -2
        found = np.full(len(events.op), -1, np.int32)
        named = np.isin(events.op, (sc.ALLOC, sc.UNMATCHED_FREE)) & (events.cache >= 0) & (events.cache != kmalloc)
        used = np.unique(events.cache[named])
        number = np.full(len(caches) + 1, -1, np.int32)
        number[used] = [self.number(caches[c]) for c in used]
        found[named] = number[events.cache[named]]
        births = np.flatnonzero((events.op == sc.ALLOC) & (events.cache == kmalloc) & (events.allocated <= LARGEST))
        keys = events.kmalloc[births].astype(np.int64) << 32 | events.allocated[births]
        kinds, inverse = np.unique(keys, return_inverse=True)
        numbers = [self.number(self._kmalloc(int(key >> 32), int(key & 0xFFFFFFFF))) for key in kinds.tolist()]
        found[births] = np.array(numbers, np.int32)[inverse] if len(births) else found[births]
        return found

    def _kmalloc(self, kind: int, size: int) -> str:
        """Return the name of the cache, or of the next one where the kernel has no such cache."""
        forms = _FORMS[max(kind, 0)], _INSTEAD.get(kind, _PLAIN), _PLAIN
        names = [form.format(_size(size)) for form in forms]
        return next((name for name in names if not self.known or name in self.known), names[-1])


def _size(size: int) -> str:
    """Return a size as caches are named by it."""
    return f"{size // 1024}k" if size >= 1024 and size % 1024 == 0 else str(size)
