"""What all rules of sizes and limits share: the machine that they are told, what they come to, and small sums."""

from collections.abc import Mapping
from typing import NamedTuple

from kmemexp.sim.slots import PAGE

KIB, MIB = 1 << 10, 1 << 20

# The i386 kernel's address space.
KERNBASE = 0xC0000000
VM_MIN_KERNEL_ADDRESS = 0xBFEFF000
VM_MAX_KERNEL_ADDRESS = 0xFFC00000
VM_MAX_KERNEL_ADDRESS_SMP = 0xFF800000
KVA_BYTES = VM_MAX_KERNEL_ADDRESS - VM_MIN_KERNEL_ADDRESS  # 1021 MiB + 4 KiB
KVA_BYTES_SMP = VM_MAX_KERNEL_ADDRESS_SMP - VM_MIN_KERNEL_ADDRESS

BKVASIZE = 16 * KIB
MAXPHYS = 128 * KIB
PAGER_MAP_SIZE = 8 * MIB
EXEC_MAP_SIZE = 16 * (64 * KIB + 3 * PAGE)  # 16 of ARG_MAX and three pages

MAP_ENTRY_BYTES = 48
PV_ENTRY_BYTES = 28
SWAPMETA_BYTES = 160  # rounded up from 144 by zinit
SWAPMETA_MAX_BYTES = 32 * MIB
SYNCACHE_ENTRIES = 512 * 30 - 1

Given = Mapping[str, int]
"""Tunables that are set, by key of `machine.tunables`."""


class Facts(NamedTuple):
    """The machine that a kernel finds at boot."""

    ram_bytes: int
    kva_bytes: int
    cpus: int

    @property
    def pages(self) -> int:
        """All of RAM; a real machine has slightly fewer."""
        return self.ram_bytes // PAGE


class InterruptZone(NamedTuple):
    """A zone that interrupts allocate from: its KVA is set aside at boot."""

    name: str
    item_bytes: int
    entries: int

    @property
    def kva_bytes(self) -> int:
        """Whole pages."""
        return round_page(self.item_bytes * self.entries)


class Sizing(NamedTuple):
    """Sizes and limits of one machine; `*_bytes` in bytes, the rest counts. 0: this kernel has none."""

    ram_bytes: int
    kva_bytes: int
    maxusers: int
    maxproc: int
    maxfiles: int
    maxsockets: int
    nmbclusters: int
    nmbufs: int
    nbuf: int
    nswbuf: int
    buffer_map_bytes: int
    pager_map_bytes: int
    clean_map_bytes: int  # holds buffer_map and pager_map
    exec_map_bytes: int
    mb_map_bytes: int = 0
    vm_kmem_bytes: int = 0
    kmem_map_bytes: int = 0
    pipe_map_bytes: int = 0
    map_entries: int = 0  # of kmapentzone
    vnodes: int = 0  # desiredvnodes
    callouts: int = 0
    nmbcnt: int = 0  # reference counts of clusters, FreeBSD 5
    jumbo: tuple[int, ...] = ()  # limits of clusters of a page, 9 KiB and 16 KiB
    page_array_bytes: int = 0  # KVA of the array of vm_page, where boot maps it into kernel_map
    malloc_type_bytes: int = 0  # limit of one malloc type
    soft_limit_bytes: int = 0  # uma_kmem_limit: above it the reclaim thread is woken, and nothing fails
    interrupt_zones: tuple[InterruptZone, ...] = ()  # in the order of boot
    limits: tuple[tuple[str, int], ...] = ()  # entries of zones with a limit, by name


def round_page(nbytes: int) -> int:
    """Up to whole pages."""
    return -(-nbytes // PAGE) * PAGE


def buffers(kib: int, most_above: int = 1 << 40) -> int:
    """Nbuf before its caps: 50, one per 64 KiB from 4 to 68 MiB, two per 320 KiB above 64 MiB (`most_above` there)."""
    nbuf = 50
    if kib > 4096:
        nbuf += min((kib - 4096) // 64, 1024)
    if kib > 65536:
        nbuf += min((kib - 65536) * 2 // 320, most_above)
    return nbuf
