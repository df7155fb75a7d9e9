"""Arithmetic of illumos kmem: size classes, slab layout, colours, magazine types, hash size. Plain Python.

Formulas of usr/src/uts/common/os/kmem.c (illumos-gate 03ba8404, 2020), LP64, without debugging.
"""

from typing import NamedTuple

from kmemexp.sim.slots import PAGE

KMEM_ALIGN = 8
KMEM_VOID_FRACTION = 8  # of a slab, at most one in so many bytes is wasted
KMEM_MAXBUF = 4096  # the small classes end here
KMEM_BIG_MAXBUF = 131072  # the big ones; 32768 on 32-bit machines
KMEM_HASH_INITIAL = 64  # chains

SLAB_BYTES = 72  # sizeof (kmem_slab_t)
BUFCTL_BYTES = 24  # sizeof (kmem_bufctl_t)
MOVE_BYTES = 56  # sizeof (kmem_move_t)

SMALL_SIZES = (
    8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896,
    1152, 1344, 1600, 2048, 2688, 4096,
)  # fmt: skip
BIG_SIZES = (8192, 12288, *range(16384, KMEM_BIG_MAXBUF + 1, 8192))


class Magtype(NamedTuple):
    """A row of kmem_magtype[]."""

    rounds: int
    align: int
    minbuf: int  # the first row with minbuf below the chunk size is where a cache begins
    maxbuf: int  # a cache may go on to the next row while its chunk size is below this


MAGTYPES = (
    Magtype(1, 8, 3200, 65536),
    Magtype(3, 16, 256, 32768),
    Magtype(7, 32, 64, 16384),
    Magtype(15, 64, 0, 8192),
    Magtype(31, 64, 0, 4096),
    Magtype(47, 64, 0, 2048),
    Magtype(63, 64, 0, 1024),
    Magtype(95, 64, 0, 512),
    Magtype(143, 64, 0, 0),
)


class Layout(NamedTuple):
    """How a cache divides its slabs."""

    chunk: int  # bytes of a buffer with its padding
    slab: int  # bytes
    hashed: bool  # slab and buffers are described elsewhere; otherwise a header ends the slab
    align: int
    maxcolor: int
    maxchunks: int  # buffers of a slab, were there no header
    binshift: int  # of the order of partial slabs

    @property
    def header(self) -> int:
        """Bytes of the header in the slab."""
        return 0 if self.hashed else SLAB_BYTES

    def buffers(self, colour: int = 0) -> int:
        """Buffers of a slab whose first one begins `colour` bytes into it."""
        return (self.slab - self.header - colour) // self.chunk


def alloc_sizes(max_cached: int = KMEM_BIG_MAXBUF) -> tuple[int, ...]:
    """Sizes of kmem_alloc()'s caches; `max_cached` is rounded up to one of them."""
    big = [size for below, size in zip((KMEM_MAXBUF, *BIG_SIZES), BIG_SIZES, strict=False) if below < max_cached]
    return (*SMALL_SIZES, *big)


def alloc_align(size: int) -> int:
    """Alignment of one of these caches."""
    if size % PAGE == 0:
        return PAGE
    return 64 if size % 64 == 0 else KMEM_ALIGN


def cache_layout(size: int, align: int = KMEM_ALIGN, *, nohash: bool = False, qcache_max: int = 0) -> Layout:
    """Choose the slab of a cache: kmem_cache_create(). `qcache_max`: of the arena whose quantum cache it is (bytes)."""
    chunk = round_up(round_up(size, KMEM_ALIGN), align)
    if nohash or chunk < PAGE // KMEM_VOID_FRACTION:
        slab, hashed = PAGE, False
        maxcolor = (slab - SLAB_BYTES) % chunk
    else:
        slab, hashed = _best_slab(chunk), True
        if qcache_max:
            slab = qcache_slab(qcache_max)
        maxcolor = slab % chunk
    maxchunks = slab // chunk
    return Layout(chunk, slab, hashed, align, min(maxcolor, PAGE - 1), maxchunks, highbit(maxchunks // 16) + 1)


def _best_slab(chunk: int) -> int:
    """Slab with the least waste per buffer, of one to eight buffers; the smallest of the equal ones."""
    best, least, chunks = 0, None, 1
    while chunks <= KMEM_VOID_FRACTION:
        slab = round_up(chunk * chunks, PAGE)
        chunks = slab // chunk
        waste = slab % chunk // chunks
        if least is None or waste < least:
            best, least = slab, waste
        chunks += 1
    return best


def qcache_slab(qcache_max: int) -> int:
    """Bytes of a slab of a quantum cache: VMEM_QCACHE_SLABSIZE()."""
    return max(1 << highbit(3 * qcache_max), 64)


def first_magtype(chunk: int) -> int:
    """Row of MAGTYPES that a cache begins with."""
    return next(row for row, magtype in enumerate(MAGTYPES) if chunk > magtype.minbuf)


def magazine_bytes(rounds: int) -> int:
    """Bytes of a magazine: a link and its rounds."""
    return 8 * (rounds + 1)


def hash_size(buffers: int) -> int:
    """Chains of the hash table of a cache with so many buffers: kmem_hash_rescale()."""
    return max(KMEM_HASH_INITIAL, 1 << (highbit(3 * buffers + 4) - 2))


def highbit(n: int) -> int:
    """Number of the highest bit set, from 1; 0: none."""
    return n.bit_length()


def round_up(n: int, unit: int) -> int:
    """Round up to a multiple."""
    return -(-n // unit) * unit
