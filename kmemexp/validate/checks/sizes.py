"""What size classes grant, by the allocators' own code: tables of each kernel, closed forms of rounding; F11, F12, W1.

A rule of a table is written here anew, from the kernels' sources, and compared at every size.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from math import exp, log

from kmemexp.sim import slots as s
from kmemexp.sim.slots import PAGE
from kmemexp.validate.check import Check
from kmemexp.validate.hand import Hand
from kmemexp.validate.rows import Row, Wanted
from kmemexp.validate.setting import Setting

KIB = 1 << 10


def granting(name: str, **params: int) -> Callable[[int], int]:
    """Bytes that an allocator grants for a malloc of so many."""
    module = importlib.import_module(f"kmemexp.sim.allocators.{name}")
    state = module.init(module.Params(**params), kva_bytes=1 << 28, cpus=1, map_number=0, items=(), bases=())
    hand = Hand(module, state)

    def granted(nbytes: int) -> int:
        before = hand.next
        addr = hand.alloc(nbytes, item=s.ITEM_MALLOC)
        bytes_ = hand.granted
        hand.free(addr, item=s.ITEM_MALLOC, size=nbytes)
        if hand.map_log and hand.map_log[-1][:2] == ("free", before):
            hand.next = before
        return bytes_

    return granted


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _pages(n: int) -> int:
    return -(-n // PAGE) * PAGE


def _buckets(n: int) -> int:
    return max(_power(n), 16) if n <= 2 * PAGE else _pages(n)


def _dragonfly(n: int) -> int:
    """zoneindex(): chunks in steps of an eighth of the power of two below, from 8 bytes on."""
    if n > 16 * KIB - 1:
        return _pages(n)
    step = next(step for below, step in ((128, 8), (256, 16), (512, 32), (1024, 64), (2048, 128), (4096, 256),
                                         (8192, 512), (16384, 1024)) if n < below)  # fmt: skip
    return -(-n // step) * step


def _slub(n: int) -> int:
    """kmalloc(): powers of two from 8 bytes to 8 KiB, with 96 and 192 between them; beyond, blocks of pages."""
    if 64 < n <= 96 or 128 < n <= 192:
        return 96 if n <= 96 else 192
    return max(_power(n), 8)


def _listed(sizes: Sequence[int]) -> Callable[[int], int]:
    return lambda n: next((size for size in sizes if n <= size), _pages(n))


UMA = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
UMA_TODAY = (16, 32, 64, 128, 256, 384, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
ILLUMOS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1152,
           1344, 1600, 2048, 2688, 4096, 8192, 12288, 16384, 24576, 32768)  # fmt: skip
TABLES: dict[str, tuple[str, Callable[[int], int], int]] = {
    "buckets": ("sys/kern/kern_malloc.c, FreeBSD 4.8", _buckets, 20 * KIB),
    "dfly_slab": ("sys/kern/kern_slaballoc.c, DragonFly 1.0", _dragonfly, 16 * KIB - 1),
    "dfly_slab_2020": ("sys/kern/kern_slaballoc.c, DragonFly 5.8", _dragonfly, 8 * KIB),
    "slub": ("mm/slab_common.c, Linux 6.12", _slub, 32 * KIB),
    "uma": ("sys/kern/kern_malloc.c, FreeBSD 5.1", _listed(UMA), 4 * KIB),
    "uma_today": ("sys/kern/kern_malloc.c, FreeBSD 15", _listed(UMA_TODAY), 64 * KIB),
    "illumos_kmem": ("usr/src/uts/common/os/kmem.c, illumos", _listed(ILLUMOS), 4 * KIB),
}


def tables(st: Setting) -> Iterator[Row]:
    """W1: every request size gets the class that the kernel's table says."""
    for name, (source, rule, top) in TABLES.items():
        of, granted = Wanted("W1", source, "A"), granting(name)
        sizes = range(1, top + 1) if st.full else sorted({
            *range(1, 300), *(st.whole(1, top) for _ in range(500)),
            *(n for k in range(3, 17) for n in ((1 << k) - 1, 1 << k, (1 << k) + 1) if n <= top)})  # fmt: skip
        wanted = [rule(n) for n in sizes]
        got = [granted(n) for n in sizes]
        right = sum(a == b for a, b in zip(wanted, got, strict=True))
        pairs = zip(sizes, wanted, got, strict=True)
        wrong = next((f"{n} bytes: {a} expected, {b} granted" for n, a, b in pairs if a != b), "")
        yield of.exact(f"{name}: sizes to {top} that get their class", len(wanted), right)._replace(note=wrong)


def rounding(st: Setting) -> Iterator[Row]:
    """F11: what rounding costs, against closed forms."""
    of = Wanted("F11", "closed form (Peterson and Norman 1977)", "A")
    granted = granting("buckets")
    doublings = st.whole(7, 12)
    top = 1 << doublings
    total = sum(granted(n) if n > 16 else _power(n) for n in range(1, top + 1))
    yield of.exact(f"powers of two, sizes 1 … {top}: bytes", (2 * 4**doublings + 1) // 3, total)
    for limit, ratio in ((1024, 1.332195), (8192, 1.333173)):
        ours = sum(granted(n) for n in range(1, limit + 1)) / (limit * (limit + 1) // 2)
        yield of.exact(f"4.4BSD's buckets, sizes 1 … {limit}: required by requested", ratio, ours, within=6e-7)
    mean = st.whole(60, 1500)
    top = 2 * PAGE
    ours = sum(granted(n) * (exp(-(n - 1) / mean) - exp(-n / mean)) for n in range(1, top + 1))
    tail = sum(2**k * (exp(-(2 ** (k - 1)) / mean) - exp(-(2**k) / mean)) for k in range(14, 26))
    floor = sum((16 - _power(n)) * (exp(-(n - 1) / mean) - exp(-n / mean)) for n in range(1, 17))
    yield of.exact(f"exponential sizes of mean {mean}, powers of two: required by requested", 1 / log(2),
                   (ours + tail - floor) / mean, within=0.02)  # fmt: skip
    low = 1 << st.whole(9, 11)
    sizes = range(low, 2 * low)
    granted = granting("dfly_slab")
    waste = 1 - sum(sizes) / sum(granted(n) for n in sizes)
    yield of.exact(f"8 steps a doubling, sizes {low} … {2 * low}: waste", 1 / (3 * 8 + 1), waste, within=0.001)


USAGE = {128: (329, 39, 3129219), 512: (4, 0, 16), 1024: (17, 5, 648771), 2048: (13, 0, 13)}
"""McKusick and Karels 1988, one day on a Berkeley machine: in use, free, requests, by bucket."""


def bucket_rule(st: Setting) -> Iterator[Row]:
    """F12: 4.3BSD's rule, and that what a bucket has taken it keeps in whole pages."""
    of = Wanted("F12", "McKusick and Karels 1988", "A")
    granted = granting("buckets")
    for request, grant in ((53, 64), (5 * PAGE, 5 * PAGE), (2 * PAGE, 2 * PAGE), (2 * PAGE + 1, 3 * PAGE)):
        yield of.exact(f"{request} bytes: granted", grant, granted(request))
    module = importlib.import_module("kmemexp.sim.allocators.buckets")
    for size, (used, free, _) in USAGE.items():
        state = module.init(module.Params(), kva_bytes=1 << 26, cpus=1, map_number=0, items=(), bases=())
        hand = Hand(module, state)
        addrs = [hand.alloc(size, item=s.ITEM_MALLOC) for _ in range(used + free)]
        pages = module.census(state)["pages"]
        # 1-KiB clusters on the VAX, pages of 4 KiB here
        yield of.exact(f"{used + free} blocks of {size}: pages", -(-(used + free) * size // PAGE), pages)
        for addr in addrs:
            hand.free(addr, item=s.ITEM_MALLOC, size=size)
        yield of.exact(f"{used + free} blocks of {size}, all freed: pages", pages, module.census(state)["pages"])
    yield of.exact("its day: requests", 3778280, sum(n for *_, n in USAGE.values()) + 157 + 103 + 1)


CHECKS = (
    Check("W1", tables, 3),
    Check("F11", rounding, 2),
    Check("F12", bucket_rule),
)
