"""illumos on amd64: how large the heap is, and when memory is short.

Sources: illumos-gate usr/src/uts/i86pc/os/startup.c (startup_memlist(), layout_kernel_va()), i86pc/sys/machparam.h,
common/os/vm_pageout.c (setupclock()), common/vm/vm_page.c (page_create_throttle()), 2020 to 2023. The heap is what
the other segments leave of the range from valloc_base to the core heap; beyond 256 GiB of RAM that begins lower.
ASSUMPTIONS: physical memory has no holes; page_t takes 120 bytes, and what lies beside the pages' array and hash is
left out, which is less than a thousandth of the heap.
"""

from kmemexp.sim.sizing.pages import PageReserves
from kmemexp.sim.sizing.rules import MIB, Facts, Given, Sizing
from kmemexp.sim.slots import PAGE

GIB, TIB = 1 << 30, 1 << 40
SEGKPM_BASE = 0xFFFFFD0000000000
VALLOC_BASE = 0xFFFFFE0000000000
COREHEAP_BASE = 0xFFFFFFFFC0000000
LOWEST_KPM = 0xFFFF800000000000 + TIB  # above the hole in the addresses, with room for users
TOP_SLOT = 512 * GIB  # KERNEL_REDZONE_SIZE, a slot of the topmost page table
LARGE_PAGE = 2 * MIB
ROOMY = 256 * GIB  # RAM up to which the usual bases do
PAGE_T = 120
HASH_CHAIN = 4  # PAGE_HASHAVELEN
SEGKP = 2 * GIB  # SEGKPDEFSIZE
LEAST_SEGKP, LEAST_SEGKVMM, LEAST_SEGZIO = 200 * MIB, 4 * GIB, 400 * MIB
DEVICES, SEGMAP = GIB, 64 * MIB  # toxic_size, SEGMAPDEFAULT


def illumos(facts: Facts, given: Given) -> Sizing:
    """Nothing is carved out of the heap at boot, and no kind of object has a limit of its own."""
    return Sizing(
        facts.ram_bytes, facts.kva_bytes, maxusers=0, maxproc=0, maxfiles=0, maxsockets=0, nmbclusters=0, nmbufs=0,
        nbuf=0, nswbuf=0, buffer_map_bytes=0, pager_map_bytes=0, clean_map_bytes=0, exec_map_bytes=0,
    )  # fmt: skip


def heap_bytes(ram_bytes: int) -> int:
    """Bytes of the heap arena, from kernelheap to ekernelheap."""
    at = _valloc_base(ram_bytes) + _valloc_bytes(ram_bytes // PAGE)
    at += _large(min(SEGKP, max(LEAST_SEGKP, ram_bytes)))
    at += _large(max(4 * ram_bytes, LEAST_SEGKVMM))
    at += _large(max(3 * ram_bytes // 2, LEAST_SEGZIO))
    return COREHEAP_BASE - (at + DEVICES + SEGMAP)


def page_reserves(ram_bytes: int) -> PageReserves:
    """Thresholds of setupclock(): `minimum` is lotsfree, below which the scanner runs and kmem_reap() is called.

    A request that may wait leaves throttlefree (`reserved`), one that may not pageout_reserve. Those that wait go on
    above lotsfree, in the kernel as soon as there is more than throttlefree.
    """
    lots = max(ram_bytes // PAGE // 64, 512 * 1024 // PAGE)
    desired = lots // 2
    least = desired // 2
    return PageReserves(least // 2, least // 2, reserved=least, severe=desired, minimum=lots, target=lots + 1)


def _valloc_base(ram_bytes: int) -> int:
    if ram_bytes <= ROOMY:
        return VALLOC_BASE
    lower = -(-8 * (ram_bytes - ROOMY) // TOP_SLOT) * TOP_SLOT
    return max(SEGKPM_BASE - lower, LOWEST_KPM) + -(-ram_bytes // GIB) * GIB


def _valloc_bytes(pages: int) -> int:
    """Bytes of the page_t's and of the hash by which they are found."""
    return _large(PAGE_T * pages + 8 * (1 << (pages // HASH_CHAIN).bit_length()))


def _large(nbytes: int) -> int:
    return -(-nbytes // LARGE_PAGE) * LARGE_PAGE
