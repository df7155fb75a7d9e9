"""How FreeBSD 4 and DragonFly (2003, i386) size kernel_map's parts from RAM and KVA, and the page reserves.

Sources: sys/i386/i386/machdep.c (cpu_startup), i386/include/{param,pmap,vmparam}.h, kern/{kern_malloc,subr_param}.c,
vm/{vm_map,vm_pageout,vm_page,swap_pager}.c, i386/i386/pmap.c, netinet/tcp_syncache.c, DragonFly import of 2003-06-17.
RAM is taken as all pages (a real machine has slightly fewer). Plain integers in bytes, pages or counts; no NumPy here.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from kmemexp.sim.slots import PAGE

KIB, MIB = 1 << 10, 1 << 20

# Layout of the i386 kernel's address space.
KERNBASE = 0xC0000000
VM_MIN_KERNEL_ADDRESS = 0xBFEFF000
VM_MAX_KERNEL_ADDRESS = 0xFFC00000
VM_MAX_KERNEL_ADDRESS_SMP = 0xFF800000
KVA_BYTES = VM_MAX_KERNEL_ADDRESS - VM_MIN_KERNEL_ADDRESS  # 1021 MiB + 4 KiB
KVA_BYTES_SMP = VM_MAX_KERNEL_ADDRESS_SMP - VM_MIN_KERNEL_ADDRESS

VM_KMEM_SIZE = 12 * MIB
VM_KMEM_SIZE_SCALE = 3
VM_KMEM_SIZE_MAX = 200 * MIB
MSIZE = 256
MCLBYTES = 2048
BKVASIZE = 16 * KIB
VM_BCACHE_SIZE_MAX = 200 * MIB
MAXPHYS = 128 * KIB
PAGER_MAP_SIZE = 8 * MIB
EXEC_MAP_SIZE = 16 * (64 * KIB + 3 * PAGE)  # 16 of ARG_MAX and three pages
IMAGE_BYTES = 8 * MIB  # text, data, bss and boot data; the kernels of the time took 4 to 8 MiB

MAP_ENTRY_BYTES = 48
PV_ENTRY_BYTES = 28
SWAPMETA_BYTES = 160  # rounded up from 144 by zinit
SWAPMETA_MAX = 32 * MIB // 144
SYNCACHE_ENTRIES = 512 * 30 - 1
KMEMUSAGE_BYTES = 4

SUBMAPS = ("clean_map", "buffer_map", "pager_map", "exec_map", "mb_map")  # besides kmem_map
RESERVES = ("kmemusage", "KMAP ENTRY", "PV ENTRY", "SWAPMETA")  # KVA that every BSD kernel of 2003 sets aside


class InterruptZone(NamedTuple):
    """A zone that interrupts allocate from: its KVA is set aside at boot."""

    name: str
    item_bytes: int
    entries: int

    @property
    def kva_bytes(self) -> int:
        """Whole pages."""
        return _round_page(self.item_bytes * self.entries)


class Sizing(NamedTuple):
    """Sizes of one machine; `*_bytes` in bytes, the rest counts."""

    ram_bytes: int
    kva_bytes: int
    maxusers: int
    maxproc: int
    maxfiles: int
    maxsockets: int
    nmbclusters: int
    nmbufs: int
    mb_map_bytes: int
    vm_kmem_bytes: int
    kmem_map_bytes: int  # vm_kmem + mb_map
    nbuf: int
    nswbuf: int
    buffer_map_bytes: int
    pager_map_bytes: int
    clean_map_bytes: int  # holds buffer_map and pager_map
    exec_map_bytes: int
    map_entries: int  # of kmapentzone
    vnodes: int  # desiredvnodes
    callouts: int
    interrupt_zones: tuple[InterruptZone, ...]  # in the order of boot


class PageReserves(NamedTuple):
    """Free-page thresholds of the page daemon and of vm_page_alloc, in pages."""

    interrupt_free_min: int
    pageout_free_min: int
    reserved: int
    severe: int
    minimum: int
    target: int


class Reservation(NamedTuple):
    """A range carved out of a map at boot."""

    name: str
    nbytes: int
    parent: str  # the map it lies in


class Tunables(NamedTuple):
    """What loader tunables and kernel options could set; 0: by the rule."""

    maxusers: int = 0
    maxproc: int = 0
    maxfiles: int = 0
    nmbclusters: int = 0
    nmbufs: int = 0
    mb_map_bytes: int = 0
    vm_kmem_bytes: int = 0
    kmem_map_bytes: int = 0
    nbuf: int = 0
    buffer_map_bytes: int = 0
    clean_map_bytes: int = 0
    exec_map_bytes: int = 0
    map_entries: int = 0


BY_THE_RULES = Tunables()


def size(ram_bytes: int, kva_bytes: int = KVA_BYTES, given: Tunables = BY_THE_RULES) -> Sizing:
    """Size everything; what is given and not 0 replaces the rule (as loader tunables and kernel options did).

    Where the KVA is smaller than the i386's, the limits that follow from it apply: those of nbuf and of map entries.
    """
    pages = ram_bytes // PAGE
    maxusers = given.maxusers or min(max(pages // 512, 32), 384)
    maxproc = min(given.maxproc or 20 + 16 * maxusers, pages // 12)
    maxfiles = given.maxfiles or 2 * maxproc
    nmbclusters = given.nmbclusters or 512 + 16 * maxusers
    nmbufs = max(given.nmbufs or 4 * nmbclusters, 2 * nmbclusters)
    maxsockets = max(maxfiles, nmbclusters)
    mb_map_bytes = _round_page(given.mb_map_bytes or nmbufs * MSIZE + nmbclusters * MCLBYTES)
    vm_kmem_bytes = given.vm_kmem_bytes or min(max(VM_KMEM_SIZE, ram_bytes // VM_KMEM_SIZE_SCALE), VM_KMEM_SIZE_MAX)
    vm_kmem_bytes = min(vm_kmem_bytes, 2 * ram_bytes)
    nbuf = given.nbuf or _buffers(ram_bytes, kva_bytes)
    nswbuf = max(min(nbuf // 4, 256), 16)
    buffer_map_bytes = _round_page(given.buffer_map_bytes) or nbuf * BKVASIZE
    pager_map_bytes = nswbuf * MAXPHYS + PAGER_MAP_SIZE
    map_entries = given.map_entries or min((kva_bytes - (KERNBASE - VM_MIN_KERNEL_ADDRESS)) // PAGE, pages) // 8
    return Sizing(
        ram_bytes=ram_bytes,
        kva_bytes=kva_bytes,
        maxusers=maxusers,
        maxproc=maxproc,
        maxfiles=maxfiles,
        maxsockets=maxsockets,
        nmbclusters=nmbclusters,
        nmbufs=nmbufs,
        mb_map_bytes=mb_map_bytes,
        vm_kmem_bytes=vm_kmem_bytes,
        kmem_map_bytes=_round_page(given.kmem_map_bytes) or (vm_kmem_bytes + mb_map_bytes) // PAGE * PAGE,
        nbuf=nbuf,
        nswbuf=nswbuf,
        buffer_map_bytes=buffer_map_bytes,
        pager_map_bytes=pager_map_bytes,
        clean_map_bytes=_round_page(given.clean_map_bytes) or buffer_map_bytes + pager_map_bytes,
        exec_map_bytes=_round_page(given.exec_map_bytes) or EXEC_MAP_SIZE,
        map_entries=max(map_entries, 1),
        vnodes=maxproc + pages // 4,
        callouts=16 + maxproc + maxfiles,
        interrupt_zones=_interrupt_zones(pages, maxproc, maxsockets, max(map_entries, 1)),
    )


def _interrupt_zones(pages: int, maxproc: int, maxsockets: int, map_entries: int) -> tuple[InterruptZone, ...]:
    """Zones that set KVA aside at boot, with their limits."""
    return (
        InterruptZone("KMAP ENTRY", MAP_ENTRY_BYTES, map_entries),
        InterruptZone("PV ENTRY", PV_ENTRY_BYTES, 200 * maxproc + pages),
        InterruptZone("socket", 192, maxsockets),
        InterruptZone("udpcb", 192, maxsockets),
        InterruptZone("tcpcb", 576, maxsockets),
        InterruptZone("syncache", 160, SYNCACHE_ENTRIES),
        InterruptZone("ripcb", 192, maxsockets),
        InterruptZone("divcb", 192, maxsockets),
        InterruptZone("SWAPMETA", SWAPMETA_BYTES, min(pages // 2, SWAPMETA_MAX)),
    )


def page_reserves(ram_bytes: int) -> PageReserves:
    """Thresholds for a machine all of whose pages are free at boot (vm_pageout.c, vm_page.c)."""
    pages = ram_bytes // PAGE
    interrupt = 2
    pageout = 2 * 65536 // PAGE + interrupt
    cluster = 16 if pages >= 2000 else 8  # vm_pageout_page_count
    reserved = cluster + pageout + pages // 768 + 32  # PQ_L2_SIZE
    least = 4 + max(pages - 1024, 0) // 200
    minimum = least + reserved
    return PageReserves(
        interrupt_free_min=interrupt,
        pageout_free_min=pageout,
        reserved=reserved,
        severe=least // 2 + reserved,
        minimum=minimum,
        target=(4 if pages > 6144 else 2) * minimum + reserved,
    )


def reservations(
    sizing: Sizing,
    split: bool,
    *,
    kmapentzone: bool = True,
    network_zones: bool = True,
    image_bytes: int = IMAGE_BYTES,
    submaps: Collection[str] = SUBMAPS,
    reserves: Collection[str] = RESERVES,
    direct_bytes: int = 0,
) -> list[Reservation]:
    """List what is carved out of the maps before the load starts, in the order of boot.

    `split`: with kmem_map (and mb_map inside it); otherwise mb_map lies in kernel_map and kmem_map does not exist.
    `kmapentzone`: map entries come from that zone, not from reservations. `network_zones`: sockets, PCBs and syncache
    have zones of their own; PV ENTRY and SWAPMETA always do (in DragonFly to this day). `submaps`, `reserves`: which of
    those that a BSD kernel has this one has. `direct_bytes`: a direct map of physical memory, at the beginning.
    Small tables that cpu_startup allocates (buffer headers, callouts, hash tables) count as part of the image.
    """
    kernel = "kernel_map"
    malloc_bytes = sizing.kmem_map_bytes if split else sizing.kva_bytes
    usage_bytes = _round_page(KMEMUSAGE_BYTES * (malloc_bytes // PAGE))
    exists = {"KMAP ENTRY": kmapentzone and "KMAP ENTRY" in reserves}
    exists |= {name: name in reserves for name in ("PV ENTRY", "SWAPMETA")}
    wanted = [z for z in sizing.interrupt_zones if exists.get(z.name, network_zones)]
    early = [z for z in wanted if z.name in ("KMAP ENTRY", "PV ENTRY")]
    carved = [
        *([Reservation("direct_map", direct_bytes, kernel)] if direct_bytes else []),
        Reservation("kernel image", _round_page(image_bytes), kernel),
        Reservation("kmemusage", usage_bytes, kernel),
        *([Reservation("kmem_map", sizing.kmem_map_bytes, kernel)] if split else []),
        *(Reservation(z.name, z.kva_bytes, kernel) for z in early),
        Reservation("clean_map", sizing.clean_map_bytes, kernel),
        Reservation("buffer_map", sizing.buffer_map_bytes, "clean_map"),
        Reservation("pager_map", sizing.pager_map_bytes, "clean_map"),
        Reservation("exec_map", sizing.exec_map_bytes, kernel),
        Reservation("mb_map", sizing.mb_map_bytes, "kmem_map" if split else kernel),
        *(Reservation(z.name, z.kva_bytes, kernel) for z in wanted if z not in early),
    ]
    left_out = (set(SUBMAPS) - set(submaps)) | ({"kmemusage"} - set(reserves))
    return [r for r in carved if not {r.name, r.parent} & left_out]


def carving(maps: Mapping[str, Any], ram_bytes: int) -> dict[str, Any]:
    """Arguments of `reservations` that the configuration of the maps decides."""
    return {
        "split": maps["layout"] == "split",
        "kmapentzone": maps["entries"] == "kmapentzone",
        "image_bytes": maps["image_bytes"],
        "submaps": maps["submaps"],
        "reserves": maps["reserves"],
        "direct_bytes": ram_bytes if maps["layout"] == "direct" else 0,
    }


def needed_bytes(carved: list[Reservation], parent: str = "kernel_map") -> int:
    """Sum of what lies directly in a map."""
    return sum(r.nbytes for r in carved if r.parent == parent)


def shortfall(sizing: Sizing, carved: list[Reservation]) -> str:
    """Which map is too small for what it must hold, naming the biggest parts; empty where everything fits."""
    room = {"kernel_map": sizing.kva_bytes} | {r.name: r.nbytes for r in carved}
    for parent in dict.fromkeys(r.parent for r in carved):
        need = needed_bytes(carved, parent)
        if need > room[parent]:
            parts = sorted((r for r in carved if r.parent == parent), key=lambda r: -r.nbytes)
            biggest = ", ".join(f"{r.name} {r.nbytes / MIB:.1f} MiB" for r in parts[:4])
            label = "KVA" if parent == "kernel_map" else parent
            return (
                f"{label} of {room[parent] / MIB:.1f} MiB is smaller than what lies in it from boot "
                f"({need / MIB:.1f} MiB): {biggest}{', …' if len(parts) > 4 else ''}"
            )
    return ""


def _buffers(ram_bytes: int, kva_bytes: int) -> int:
    """Nbuf: 50, a buffer per 64 KiB of the first 64 MiB, less above, within the limits of KVA."""
    kib = ram_bytes // KIB
    nbuf = 50
    if kib > 4096:
        nbuf += min((kib - 4096) // 64, 1024)
    if kib > 65536:
        nbuf += (kib - 65536) * 2 // 320
    return max(min(nbuf, VM_BCACHE_SIZE_MAX // BKVASIZE, kva_bytes // (2 * BKVASIZE)), 1)


def _round_page(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE
