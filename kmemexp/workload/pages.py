"""Kinds that are physical pages and nothing else: user memory, page cache, the kernel's single pages."""

import numpy as np

from kmemexp.workload.stream import ANON, FILE, PAGES, Kinds, Load


def are_pages(kinds: Kinds) -> np.ndarray:
    """Which kinds have no KVA of their own: bool[k]."""
    found: np.ndarray = np.isin(kinds.klass, (ANON, FILE, PAGES))
    return found


def without(load: Load) -> Load:
    """Leave out the operations of these kinds, for a machine that does not name its pages."""
    pages = are_pages(load.kinds)
    if not pages.any():
        return load
    return load._replace(streams=tuple(stream.rows(~pages[stream.kind]) for stream in load.streams))
