"""illumos' vmem in numbers: usr/src/uts/common/os/vmem.c and sys/vmem_impl.h (illumos-gate 0616c1c3). Plain Python."""

from kmemexp.sim.slots import PAGE

HASH_INITIAL = 16  # VMEM_HASH_INITIAL: buckets
NQCACHE_MAX = 16  # VMEM_NQCACHE_MAX: cached multiples of the quantum
SEG_INITIAL = 200  # VMEM_SEG_INITIAL: tags in the kernel image
POPULATE_RESERVE = 12  # VMEM_POPULATE_RESERVE: 4 threads that populate, 3 tags each
MINFREE = 16  # VMEM_MINFREE: tags in hand before an operation
TAG_BYTES = 56  # vmem_seg_t without audit information
INITIAL = 10  # VMEM_INITIAL: arenas, and so populators, that the kernel image has


def highbit(n: int) -> int:
    """Number of the highest bit of n, counted from 1; 0 for 0."""
    return n.bit_length()


def free_list(nbytes: int) -> int:
    """Free list of a segment: list n holds [2**n, 2**(n + 1)) bytes."""
    return highbit(nbytes) - 1


def instant_list(nbytes: int) -> int:
    """First free list all of whose segments are large enough for a request."""
    return free_list(nbytes) if nbytes & (nbytes - 1) == 0 else highbit(nbytes)


def hash_index(addr: int, shift: int, qshift: int, mask: int) -> int:
    """Bucket of an address (VMEM_HASH_INDEX); `shift`: log2 of the buckets, `qshift`: of the quantum."""
    return ((addr + (addr >> shift) + (addr >> 2 * shift)) >> qshift) & mask


def hash_size(segments: int, old: int) -> int:
    """Buckets after a rescale for that many segments in use: as before unless too few or too many by half and more."""
    new = max(HASH_INITIAL, 1 << highbit(3 * segments + 4) - 2)
    return old if old >> 1 <= new <= old << 1 else new


def qcache_slab_bytes(most: int) -> int:
    """Bytes of a slab of every quantum cache of an arena that caches up to `most` bytes (VMEM_QCACHE_SLABSIZE)."""
    return max(1 << highbit(3 * most), 64)


def populate_batch(populators: int, tag_bytes: int = TAG_BYTES) -> tuple[int, int]:
    """Tags and pages that vmem_populate() makes at once."""
    wanted = (MINFREE + populators * POPULATE_RESERVE) * tag_bytes
    pages = -(-wanted // PAGE)
    return pages * PAGE // tag_bytes, pages


def constrained(
    start: int, end: int, size: int, align: int, phase: int = 0, nocross: int = 0, low: int = 0, high: int = 0
) -> int:
    """Where vmem_xalloc() puts a request in the free segment [start, end), or -1.

    At `phase` from a multiple of `align`, across no multiple of `nocross`, in [low, high); 0: no such limit. An example
    of the paper (2001, 4.3.2) says 262 for a phase of 8 from a multiple of 64, which it is not; the kernel's arithmetic
    gives 200.
    """
    start, end = max(start, low), min(end, high) if high else end
    addr = phase - (phase - start & -align)
    if nocross and (addr ^ addr + size - 1) > nocross - 1:
        addr += -(-(-addr & nocross - 1) // align) * align
    return addr if addr - start + size <= end - start else -1
