"""The census of caches: which cache an object is counted in."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from kmemexp.lane import caches
from kmemexp.report.charts import SMALLER, largest_caches
from kmemexp.sim.caches import Cache, by_slab, large
from kmemexp.sim.slots import ITEM_MALLOC, ITEM_MBUF
from kmemexp.sim.tables import tally

ROWS = [
    Cache("", (0, 2), 192, 2, 2), Cache("malloc-64", (ITEM_MALLOC,), 64, 1, 1), Cache("mbuf", (ITEM_MBUF,), 256, 1, 1),
    Cache("mbuf_cluster", (ITEM_MBUF,), 2048, 3, 3), large(8, (ITEM_MALLOC,)),
]  # fmt: skip


class Says:
    """An allocator with these caches."""

    @staticmethod
    def caches(state: object, live: np.ndarray) -> list[Cache]:
        return ROWS


def machine(objects: list[tuple[int, int, int, int]], allocator: object = Says) -> SimpleNamespace:
    """Kinds: a zone and one merged into it, malloc, mbufs, what a map serves itself. `objects`: obj.COLUMNS."""
    counters = np.zeros(tally.COLUMNS, np.int64)
    counters[tally.HELD] = 20 << 12
    world = SimpleNamespace(
        state_a=None, state_b=None, state_c=None, counters=counters, objects=np.array(objects, np.int64),
        server=np.array([0, 0, 0, 0, 3]), item=np.array([0, 2, ITEM_MALLOC, ITEM_MBUF, 0]),
    )  # fmt: skip
    kinds = ("dentry", "filp", "malloc", "mbuf", "pipe")
    return SimpleNamespace(world=world, kinds=kinds, klass=np.array([1, 1, 0, 2, 3]), allocators={"uma": allocator})


LIVE = [
    (4096, 180, 192, 0), (4288, 100, 192, 1), (8192, 60, 64, 2), (40960, 20000, 20480, 2), (12288, 200, 256, 3),
    (16384, 5000, 6144, 3), (1 << 30, 16384, 16384, 4), (-1, 0, 0, 2),
]  # fmt: skip
"""A chain of three clusters is one object; the last but one is the map's, the last is not alive."""


def test_each_object_is_in_the_cache_that_served_it() -> None:
    m = machine(LIVE)
    found = {row[3]: row[4:] for row in caches.rows(m, caches.seen(m, 7), "snapshot")}
    assert found == {
        "dentry": (192, 2, 2, 2, 280, 384),
        "malloc-64": (64, 1, 1, 1, 60, 64),
        "mbuf": (256, 1, 1, 1, 200, 256),
        "mbuf_cluster": (2048, 1, 3, 3, 5000, 6144),
        "large": (0, 1, 0, 8, 20000, 20480),
        caches.REST: (0, 0, 0, 5, 0, 0),
    }


def test_of_an_allocator_that_does_not_say_its_caches_the_objects_are_known_and_pages_are_not() -> None:
    m = machine(LIVE, object())
    found = {row[3]: row[4:] for row in caches.rows(m, caches.seen(m, 7), "peak")}
    assert found["dentry"] == (0, 1, None, None, 180, 192)
    assert found["64 bytes"] == (64, 1, None, None, 60, 64)
    assert found[caches.REST][3] == 20


def test_the_peak_is_the_sample_with_the_most_held() -> None:
    m, census = machine(LIVE), caches.Census()
    for time_ns, held in enumerate((10, 200, 201, 50)):
        m.world.counters[tally.HELD] = held << 12
        census.take(m, time_ns, snapshot=time_ns == 3)
    assert [(row[0], row[1]) for row in census.rows() if row[3] == caches.REST] == [(3, "snapshot"), (1, "peak")]


def test_slabs_of_one_size_are_found_by_addresses() -> None:
    live = np.array(
        [(0, 90, 96, 0), (96, 96, 96, 0), (1 << 17, 60, 64, 0), (3 << 17, 96, 96, 0), (9 << 17, 1, 32768, 0)]
    )
    is_slab = np.arange(10) < 9
    assert by_slab(lambda: live, 17, is_slab, "chunk") == [
        Cache("chunk-64", (), 64, 1, 32), Cache("chunk-96", (), 96, 2, 64), large(8),
    ]  # fmt: skip


def test_small_caches_are_drawn_as_one() -> None:
    rows = pd.DataFrame({
        "design": "slub", "cache": [f"c{i}" for i in range(5)], "pages_count": [256, 512, 1024, 256, 256],
        "granted_bytes": [1 << 19] * 5,
    })  # fmt: skip
    found = largest_caches(rows, "design", 2).set_index("cache")
    assert found["held"].to_dict() == {"c2": 4.0, "c1": 2.0, SMALLER: 3.0}
    assert found.loc["c2", ["live", "free"]].tolist() == [0.5, 3.5]
