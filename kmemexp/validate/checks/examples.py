"""Worked examples of the kernels' own allocators, counted by hand from their sources: W2.

Where chunks lie in DragonFly's zones is played; how slabs are divided is asked of what lays them out.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import dfly_slab, kmalloc_obj, mb_alloc, zalloc
from kmemexp.sim.allocators._shared import objcaches
from kmemexp.sim.allocators.dfly_slab_2020.state import release_threshold
from kmemexp.sim.allocators.illumos_kmem.layout import cache_layout
from kmemexp.sim.allocators.slub.layout import calculate_order
from kmemexp.sim.allocators.uma import layout as uma
from kmemexp.sim.allocators.uma_today.keg import keg_layout, set_max
from kmemexp.sim.items import Item
from kmemexp.sim.slots import PAGE
from kmemexp.validate.check import Check
from kmemexp.validate.hand import Hand
from kmemexp.validate.rows import Row, Wanted
from kmemexp.validate.setting import Setting

ZONE = 128 << 10
Examples = Sequence[tuple[Any, Any]]
"""What is given, and what follows from it."""


def _dragonfly(st: Setting) -> Iterator[Row]:
    """Chunks by their index in the zone."""
    of = Wanted("W2", "sys/kern/kern_slaballoc.c, DragonFly 1.0", "A")

    def hand() -> Hand:
        state = dfly_slab.init(
            dfly_slab.Params(zone_bytes=ZONE), kva_bytes=1 << 28, cpus=1, map_number=0, items=(), bases=()
        )
        return Hand(dfly_slab, state)

    one = hand()
    addrs = [one.alloc(256, item=s.ITEM_MALLOC) for _ in range(40)]
    for k in (33, 3, 10, 20):
        one.free(addrs[k], item=s.ITEM_MALLOC, size=256)
    again = [one.alloc(256, item=s.ITEM_MALLOC) for _ in range(6)]
    yield of.all_equal("256 bytes: chunks used again, page by page", (10, 3, 20, 33, 40, 41),
                       [(addr - addrs[0]) // 256 for addr in again])  # fmt: skip
    one = hand()
    addrs = [one.alloc(16_383, item=s.ITEM_MALLOC) for _ in range(28)]
    start = min(addrs) % ZONE
    yield of.all_equal("16,383 bytes: where three zones begin", (*range(7), 6, *range(6), 5, 6, *range(5)),
                       [(addr % ZONE - start) // 16_384 for addr in addrs[:21]])  # fmt: skip
    for addr in addrs:
        one.free(addr, item=s.ITEM_MALLOC, size=16_383)
    idle = dfly_slab.census(one.state)["pages"]
    one.free(one.alloc(64, item=s.ITEM_MALLOC), item=s.ITEM_MALLOC, size=64)
    # three idle zones: one goes back to the map, another one becomes the zone of the new class
    yield of.exact("a malloc that may wait unmaps what is beyond two idle zones: pages", idle - ZONE // PAGE,
                   dfly_slab.census(one.state)["pages"])  # fmt: skip
    one = hand()
    chunks = [one.alloc(129, item=s.ITEM_MALLOC) // ZONE for _ in range(1000)]
    yield of.exact("129 bytes: chunks of 144 in a zone", 909, chunks.count(chunks[0]))


TABLES: Sequence[tuple[str, str, Callable[..., Any], Examples]] = (
    ("idle zones that a CPU keeps, by GiB and CPUs", "DragonFly, commit 0186d1945b",
     lambda gib, cpus: release_threshold(gib << 30, cpus),
     (((4, 8), 32), ((8, 8), 64), ((64, 16), 512), ((256, 32), 1024), ((256, 128), 256))),
    ("rounds of a magazine and objects, by limit, nominal size and CPUs", "sys/kern/kern_objcache.c, DragonFly 2020",
     lambda limit, nominal, cpus: objcaches.sizing(objcaches.COMPUTED, limit, nominal, cpus)[0],
     (((0, 0, 1), 38), ((0, 0, 8), 14), ((0, 0, 64), 6), ((8192, 0, 4), 414), ((100, 50, 2), 14))),
    ("objects in a slab of 128 KiB", "sys/kern/kern_kmalloc.c, DragonFly 6.0",
     lambda size: kmalloc_obj.slab_layout(size)[1],
     (((64,), 1815), ((128,), 961), ((256,), 495), ((512,), 251), ((1024,), 126), ((2048,), 63), ((4096,), 31))),
    ("order and objects of a slab, by bytes and CPUs", "mm/slub.c, Linux 6.12",
     lambda size, cpus: ((order := calculate_order(size, cpus)), (PAGE << order) // size),
     (((64, 2), (0, 64)), ((128, 256), (1, 64)), ((192, 64), (1, 42)), ((256, 8), (1, 32)), ((512, 256), (3, 64)),
      ((1024, 2), (2, 16)), ((4096, 64), (3, 8)), ((8192, 8), (3, 4)), ((232, 8), (1, 35)), ((600, 64), (3, 54)),
      ((680, 2), (1, 12)), ((704, 2), (2, 23)), ((2368, 2), (3, 13)), ((2112, 2), (3, 15)), ((832, 2), (2, 19)))),
    ("pages and items of a slab", "sys/vm/uma_core.c: keg_layout(), FreeBSD 15",
     lambda size: keg_layout(size)[2:0:-1],
     (((8,), (1, 501)), ((64,), (1, 63)), ((200,), (1, 20)), ((400,), (1, 10)), ((512,), (1, 8)), ((600,), (2, 13)),
      ((1368,), (4, 11)), ((2100,), (5, 9)), ((3072,), (3, 4)), ((5000,), (4, 3)), ((9216,), (5, 2)),
      ((16384,), (4, 1)))),
    ("items of a bucket and buckets of a zone with a limit, by limit and CPUs", "sys/vm/uma_core.c, FreeBSD 15",
     set_max, (((1000, 8), (31, 504)), ((25600, 4), (254, 23568)), ((20, 8), (1, 4)), ((10, 8), (0, 10)))),
    ("items of a slab, i386", "sys/vm/uma_core.c, FreeBSD, late 2003",
     lambda size: uma.slab_layout(size, 4, uma.slab_header(uma.UMA_03)).items,
     (((16,), 239), ((64,), 62), ((128,), 31), ((256,), 15), ((412,), 9), ((512,), 8), ((680,), 6), ((2048,), 2))),
    ("bytes of a slab and its buffers", "usr/src/uts/common/os/kmem.c, illumos",
     lambda size: ((layout := cache_layout(size)).slab, layout.buffers()),
     (((8,), (4096, 503)), ((64,), (4096, 62)), ((192,), (4096, 20)), ((448,), (4096, 8)), ((512,), (4096, 8)),
      ((640,), (4096, 6)), ((896,), (8192, 9)), ((1152,), (8192, 7)), ((1344,), (4096, 3)))),
    ("mbufs and clusters, by maxusers", "sys/kern/subr_mbuf.c, FreeBSD 5.1", mb_alloc.limits,
     (((32,), (6144, 3072)), ((128,), (18432, 9216)), ((384,), (51200, 25600)))),
    ("KVA that boot sets aside for a zone, by bytes and limit", "sys/vm/vm_zone.c, FreeBSD 4.8",
     lambda size, limit: zalloc.kva_reserved(Item(size, 1, limit)),
     (((160, 65536), 10 << 20), ((192, 8232), 386 * PAGE), ((576, 8232), 1158 * PAGE), ((48, 16384), 1 << 20),
      ((48, 0), 0))),
)  # fmt: skip


def examples(st: Setting) -> Iterator[Row]:
    """W2: how many of the worked examples of each kernel come out as they were worked out."""
    yield from _dragonfly(st)
    for what, source, rule, cases in TABLES:
        wrong = [f"{given}: {told} expected, {got}" for given, told in cases if (got := rule(*given)) != told]
        row = Wanted("W2", source, "A").exact(f"{what}: examples that hold", len(cases), len(cases) - len(wrong))
        yield row._replace(note="; ".join(wrong))


CHECKS = (Check("W2", examples),)
