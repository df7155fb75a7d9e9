"""The x86-64 kernels of today: DragonFly of July 2020, FreeBSD 15.

Sources: DragonFly f875a8eec7 sys/kern/{subr_param,uipc_mbuf}.c, platform/pc64/x86_64/machdep.c and
platform/pc64/include/{pmap,vmparam}.h (NKPML4E, MPPTDI); freebsd-src
sys/kern/{kern_mbuf,subr_param,vfs_bio,kern_malloc}.c, vm/vm_init.c, amd64/include/vmparam.h (2020 to 2026).
ASSUMPTIONS: DragonFly's pv and swap entries take twice the bytes of the i386's, and its nbuf is not held down by
sizeof(struct buf), both of which were not seen; FreeBSD's vm_page takes 104 bytes.
"""

from kmemexp.sim.network import MCLBYTES
from kmemexp.sim.sizing.bsd2003 import SHPGPERPROC, pipe_map
from kmemexp.sim.sizing.carving import IMAGE_BYTES
from kmemexp.sim.sizing.rules import (
    BKVASIZE,
    KIB,
    MAXPHYS,
    MIB,
    PAGER_MAP_SIZE,
    PV_ENTRY_BYTES,
    SWAPMETA_BYTES,
    SWAPMETA_MAX_BYTES,
    Facts,
    Given,
    InterruptZone,
    Sizing,
    buffers,
    round_page,
)
from kmemexp.sim.slots import PAGE

DFLY_BKVASIZE = 64 * KIB
DFLY_KVA = 16 * 512 * 1024 * MIB - 16 * MIB  # slots of the topmost page table, without the per-CPU data at their end
MSIZE_15 = 256
EXEC_ARGUMENTS = 1024 + 512 * KIB  # PATH_MAX, ARG_MAX
BIO_TRANSIENT = 1024
MAXPHYS_15 = MIB
VM_PAGE_BYTES = 104
SUPERPAGE = 2 * MIB
MOST_BUFFERS = 32 * 1024 * MIB // (16 * 20 * KIB)  # above the first 64 MiB: a tenth of the first 16 GiB, in 16 KiB

COMMON = ("maxusers", "maxproc", "maxfiles", "maxsockets", "nmbclusters", "nmbufs", "nbuf", "maxswzone_bytes")
DRAGONFLY = (*COMMON, "nmbjclusters", "shpgperproc")
FREEBSD = (
    *COMMON[:-1], "maxbcache_bytes", "maxmbufmem_bytes", "nmbjumbop", "nmbjumbo9", "nmbjumbo16", "maxpipekva_bytes",
    "exec_map_entries", "bio_transient_maxcnt", "maxphys_bytes", "vm_kmem_size_bytes", "vm_kmem_size_min_bytes",
    "vm_kmem_size_max_bytes", "vm_kmem_size_scale",
)  # fmt: skip


def dragonfly_2020(facts: Facts, given: Given) -> Sizing:
    """DragonFly of July 2020: limits by RAM, buffers of 64 KiB, no submap for exec or mbufs."""
    mib = facts.ram_bytes // MIB
    maxusers = given.get("maxusers") or max(32, mib // 8)
    maxproc = min(given.get("maxproc") or 20 + 16 * maxusers, 40 * mib)
    maxfiles = given.get("maxfiles") or 16 * maxproc
    nmbclusters = given.get("nmbclusters") or 512 + 4 * maxproc
    nmbufs = max(given.get("nmbufs") or nmbclusters // 2 + maxfiles, 2 * nmbclusters)
    nbuf = given.get("nbuf") or _dragonfly_buffers(facts)
    buffer_map = (nbuf + 16) * DFLY_BKVASIZE
    memory, space = min(max(nbuf // 32, 8), 512), min(max(nbuf // 4, 16), 512)
    pager_map = (memory + space) * MAXPHYS + PAGER_MAP_SIZE
    shared, swap = given.get("shpgperproc") or SHPGPERPROC, given.get("maxswzone_bytes") or SWAPMETA_MAX_BYTES
    return Sizing(
        ram_bytes=facts.ram_bytes,
        kva_bytes=facts.kva_bytes,
        maxusers=maxusers,
        maxproc=maxproc,
        maxfiles=maxfiles,
        maxsockets=given.get("maxsockets") or maxfiles,
        nmbclusters=nmbclusters,
        nmbufs=nmbufs,
        jumbo=(given.get("nmbjclusters") or nmbclusters // 4,),
        nbuf=nbuf,
        nswbuf=memory + space,
        buffer_map_bytes=buffer_map,
        pager_map_bytes=pager_map,
        clean_map_bytes=buffer_map + pager_map,
        exec_map_bytes=0,
        malloc_type_bytes=min(facts.ram_bytes, facts.kva_bytes) // 10,
        interrupt_zones=(
            InterruptZone("PV ENTRY", 2 * PV_ENTRY_BYTES, shared * maxproc + facts.pages),
            InterruptZone("SWAPMETA", 2 * SWAPMETA_BYTES, min(facts.pages // 2, swap // 144)),
        ),
    )


def dragonfly_heap(ram_bytes: int) -> int:
    """Bytes of kernel_map beside the image, however much RAM there is: physical memory is mapped elsewhere."""
    return DFLY_KVA - IMAGE_BYTES


def _dragonfly_buffers(facts: Facts) -> int:
    """Nbuf: two per 640 KiB above 128 MiB, in at most half of the KVA and half of RAM."""
    nbuf = 50 + max(facts.ram_bytes // KIB - 131072, 0) // 320
    return max(min(nbuf, facts.kva_bytes // 2 // DFLY_BKVASIZE, facts.ram_bytes // 2 // BKVASIZE), 1)


def freebsd_15(facts: Facts, given: Given) -> Sizing:
    """FreeBSD 15 on amd64: the limit of kernel memory is soft, mbufs have limits by RAM, buffers are carved at boot."""
    pages = facts.pages
    users = pages // 512
    maxusers = given.get("maxusers") or max(32, users if users <= 384 else 384 + (users - 384) // 8)
    maxproc = min(given.get("maxproc") or 20 + 16 * maxusers, pages // 12, 99999)
    maxfiles = given.get("maxfiles") or min(max(2 * maxproc, pages // 8), pages // 4)
    nbuf = given.get("nbuf") or buffers(facts.ram_bytes // KIB, MOST_BUFFERS)
    nbuf = min(nbuf, given["maxbcache_bytes"] // BKVASIZE) if "maxbcache_bytes" in given else nbuf
    buffer_map = nbuf * BKVASIZE
    transient = (given.get("bio_transient_maxcnt") or BIO_TRANSIENT) * (given.get("maxphys_bytes") or MAXPHYS_15)
    soft = _soft_limit(facts, given)
    sockets = max(given.get("maxsockets", 0), maxfiles)
    mbufs, clusters, jumbo = _network(facts, given, soft)
    execs = given.get("exec_map_entries") or 8 * facts.cpus
    return Sizing(
        ram_bytes=facts.ram_bytes,
        kva_bytes=facts.kva_bytes,
        maxusers=maxusers,
        maxproc=maxproc,
        maxfiles=maxfiles,
        maxsockets=sockets,
        nmbclusters=clusters,
        nmbufs=mbufs,
        jumbo=jumbo,
        nbuf=nbuf,
        nswbuf=max(min(nbuf // 4, 256), 16),
        buffer_map_bytes=buffer_map,
        pager_map_bytes=transient,
        clean_map_bytes=buffer_map + transient,
        exec_map_bytes=execs * round_page(EXEC_ARGUMENTS) + 64 * PAGE,
        pipe_map_bytes=pipe_map(facts, given),
        vm_kmem_bytes=soft,
        soft_limit_bytes=soft,
        page_array_bytes=-(-pages * VM_PAGE_BYTES // SUPERPAGE) * SUPERPAGE,
        vnodes=maxproc + pages // 4,
        limits=tuple((zone, sockets) for zone in ("socket", "tcpcb", "udpcb", "unpcb")),
    )


def _soft_limit(facts: Facts, given: Given) -> int:
    """uma_kmem_limit: all of RAM, where nothing is set."""
    limit = given.get("vm_kmem_size_bytes") or facts.ram_bytes // (given.get("vm_kmem_size_scale") or 1)
    least = given.get("vm_kmem_size_min_bytes") or 12 * MIB
    most = given.get("vm_kmem_size_max_bytes") or facts.kva_bytes * 3 // 5
    return min(max(limit, least), most, 2 * facts.ram_bytes)


def _network(facts: Facts, given: Given, kmem: int) -> tuple[int, int, tuple[int, ...]]:
    """Limits of mbufs, of clusters, and of clusters of a page, of 9 and of 16 KiB."""
    real = min(facts.ram_bytes, kmem)
    memory = min(given.get("maxmbufmem_bytes") or real // 2, real // 4 * 3)
    rules = (
        ("nmbclusters", MCLBYTES, 4), ("nmbjumbop", PAGE, 4), ("nmbjumbo9", 9 * KIB, 6), ("nmbjumbo16", 16 * KIB, 6),
    )  # fmt: skip
    counts = [given.get(key) or memory // nbytes // share for key, nbytes, share in rules]
    mbufs = max(given.get("nmbufs") or memory // MSIZE_15 // 5, sum(counts))
    return mbufs, counts[0], tuple(counts[1:])
