"""What a sweep may change of `mb_alloc`, and the arrays that it works on."""

from typing import NamedTuple

import numpy as np

from kmemexp.sim.aliases import Cube, Table, Words


class Params(NamedTuple):
    """What a sweep may change."""

    version: int = 1  # 0: early 2001, buckets of a page; 1: April 2003
    nmbufs: int = 0  # mbufs that there may be; 0: the map's own size decides
    nmbclusters: int = 0
    mbuf_hiwm: int = 512  # free mbufs that a CPU may have
    clust_hiwm: int = 128


class State(NamedTuple):
    """Buffers are named by their address in units of 256 bytes, buckets by their first page."""

    p: Params
    map: int
    general: int  # place of the general containers: the number of CPUs
    sort: Table  # int64[2, SORT_COLUMNS]
    box: Cube  # int64[cpus + 1, 2, BOX_COLUMNS]
    booted: Words  # int64[cpus], buckets asked for of those that a CPU begins with
    bucket: Table  # int32[pages, BUCKET_COLUMNS]
    link: (
        np.ndarray
    )  # int32[kva_bytes / 256], of a free buffer: the next one of its bucket; of a live one: of its chain
