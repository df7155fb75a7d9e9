"""What is known of a recording's events before anything is inferred: lives, slab caches, page frames."""

from typing import NamedTuple

import numpy as np

from kmemexp.workload.lives import history, proofs
from kmemexp.workload.lives.history import Events, Lives
from kmemexp.workload.lives.slabs import Slabs
from kmemexp.workload.traces import schema as sc


class Known(NamedTuple):
    """A recording's events, and what is known of each."""

    events: Events
    caches: list[str]
    slabs: Slabs
    slab: np.ndarray  # int32 by event, number in `slabs`; -1: none, or not known
    order: np.ndarray  # int8 by slab cache, pages of a slab as a power of two; 0 where it is not known
    lives: Lives
    frame: np.ndarray  # int64 by event, page frame of the object or of the pages
    hashed: bool  # addresses are hashes: they tell objects apart, not where these lie


def know(
    events: Events, caches: list[str], slabs: Slabs, orders: dict[str, int], slab_frames: np.ndarray | None = None
) -> Known:
    """Find lives, slab caches and frames of a recording's events. `slab_frames`: of a map of slab pages, if any."""
    found = history.lives(events)
    hashed = _hashed(events.address[found.born])
    if hashed:  # an address is all that an object's place is known by
        events, orders = events._replace(page=events.address), {}
    slab = slabs.of_events(events, caches)
    ended = found.end != history.OPEN
    slab[found.died[ended]] = slab[found.born[ended]]
    is_page = (events.op == sc.PAGE_ALLOC) | (events.op == sc.PAGE_FREE)
    is_object = ~is_page & (events.op != sc.MARK)
    if is_object.any():
        slab = np.where(is_object, proofs.owners(slab, np.where(is_object, events.page, 0), events.op), -1)
    order = np.array([orders.get(name, 0) for name in slabs.names], np.int8)
    frames = events.page[events.op == sc.PAGE_ALLOC]
    if slab_frames is not None:
        frames = np.concatenate([frames, slab_frames])
    base = proofs.first_frame(events.page[events.op == sc.ALLOC], frames)
    return Known(events, caches, slabs, slab, order, found, np.where(is_page, events.page, events.page - base), hashed)


def _hashed(addresses: np.ndarray) -> bool:
    """Whether these are 32-bit hashes, as the kernel prints them by default, and no addresses of a kernel."""
    if len(addresses) < FEW or addresses.max() >= 1 << 32:
        return False
    return bool(np.mean(addresses < 1 << 31) > HASHED_SHARE)


FEW = 16  # addresses, from which nothing can be told
HASHED_SHARE = 0.1  # of addresses in the lower half, where a 32-bit kernel has none
