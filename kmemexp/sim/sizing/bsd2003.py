"""The i386 kernels of 2003 to 2010: FreeBSD 4, DragonFly from its fork to 2.6, FreeBSD 5.

Sources: sys/i386/i386/machdep.c (cpu_startup), i386/include/{param,pmap,vmparam}.h, kern/{kern_malloc,subr_param,
uipc_mbuf,subr_mbuf}.c, vm/{vm_map,swap_pager}.c, i386/i386/pmap.c, netinet/tcp_syncache.c; DragonFly at 984263bcb8
(17 June 2003, which is RELENG_4), 03aa8d994f (25 August 2003), c4cc84a0f6 (31 October 2003), 7f3602fe7a (8 June 2005)
and aabd5ce88e (21 February 2010); freebsd-src sys/kern/{kern_malloc,subr_mbuf}.c of 2003, and after mbuma (2004).
"""

from collections.abc import Callable

from kmemexp.sim.network import MCLBYTES, MSIZE
from kmemexp.sim.sizing.rules import (
    BKVASIZE,
    EXEC_MAP_SIZE,
    KERNBASE,
    KIB,
    MAP_ENTRY_BYTES,
    MAXPHYS,
    MIB,
    PAGER_MAP_SIZE,
    PV_ENTRY_BYTES,
    SWAPMETA_BYTES,
    SWAPMETA_MAX_BYTES,
    SYNCACHE_ENTRIES,
    VM_MIN_KERNEL_ADDRESS,
    Facts,
    Given,
    InterruptZone,
    Sizing,
    buffers,
    round_page,
)
from kmemexp.sim.slots import PAGE

VM_KMEM_SIZE = 12 * MIB
VM_KMEM_SIZE_SCALE = 3
VM_KMEM_SIZE_MAX = 200 * MIB
VM_BCACHE_SIZE_MAX = 200 * MIB
SHPGPERPROC = 200  # PMAP_SHPGPERPROC

COMMON = ("maxusers", "maxproc", "maxfiles", "nmbclusters", "nmbufs", "nbuf", "maxbcache_bytes", "maxswzone_bytes")
"""Tunables that all of them have."""
ZONES = ("maxsockets", "shpgperproc")
RELENG_4 = (*COMMON, *ZONES, "vm_kmem_size_bytes")
DRAGONFLY = (*COMMON, *ZONES)
FREEBSD_5 = (*RELENG_4, "nmbcnt", "nsfbufs", "maxpipekva_bytes")
MBUMA = (*COMMON[:4], *COMMON[5:], *ZONES, "maxpipekva_bytes", "vm_kmem_size_bytes", "vm_kmem_size_max_bytes",
         "vm_kmem_size_scale")  # fmt: skip


def freebsd4(facts: Facts, given: Given) -> Sizing:
    """RELENG_4 of June 2003: mb_map is a part of kmem_map, and adds to it."""
    sized = _base(facts, given)
    kmem = _kmem(facts, given)
    return sized._replace(
        vm_kmem_bytes=kmem,
        kmem_map_bytes=(kmem + sized.nmbufs * MSIZE + sized.nmbclusters * MCLBYTES) // PAGE * PAGE,
        malloc_type_bytes=kmem // 2,
    )


def no_kernel(facts: Facts, given: Given) -> Sizing:
    """What stands in for the sizes of a kernel that is none of these: it limits no malloc type."""
    return freebsd4(facts, given)._replace(malloc_type_bytes=0)


def dragonfly_2003(facts: Facts, given: Given) -> Sizing:
    """DragonFly, August to October 2003, NO_KMEM_MAP: FreeBSD 4's mbufs; a malloc type has up to a tenth of RAM."""
    return _base(facts, given)._replace(malloc_type_bytes=_tenth(facts))


def dragonfly_2005(facts: Facts, given: Given) -> Sizing:
    """DragonFly of June 2005: no mb_map, and half as many mbufs for a cluster."""
    sized = _base(facts, given, mbufs_each=2)
    return sized._replace(mb_map_bytes=0, map_entries=0, malloc_type_bytes=_tenth(facts))


def dragonfly_2010(facts: Facts, given: Given) -> Sizing:
    """DragonFly of February 2010: more files; sockets and PCBs are malloc's; no exec_map."""
    sized = _base(facts, given, mbufs_each=2, files_each=16)
    kept = tuple(zone for zone in sized.interrupt_zones if zone.name in ("PV ENTRY", "SWAPMETA"))
    return sized._replace(
        mb_map_bytes=0, map_entries=0, exec_map_bytes=0, malloc_type_bytes=_tenth(facts), interrupt_zones=kept,
        limits=(),
    )  # fmt: skip


def freebsd5(facts: Facts, given: Given) -> Sizing:
    """FreeBSD 5-CURRENT of August 2003: mb_alloc with a submap of kmem_map for each sort, and pipe_map."""
    sized = _base(facts, given, mbufs_each=2, clusters=lambda users: 1024 + 64 * users)
    kmem = _kmem(facts, given)
    nmbcnt = given.get("nmbcnt") or sized.nmbclusters + (given.get("nsfbufs") or 512 + 16 * sized.maxusers)
    mbufs, clusters = sized.nmbufs * MSIZE, sized.nmbclusters * MCLBYTES
    return sized._replace(
        nmbcnt=nmbcnt,
        vm_kmem_bytes=kmem,
        mb_map_bytes=mbufs // (2 * PAGE) * 2 * PAGE + clusters // (4 * PAGE) * 4 * PAGE,
        kmem_map_bytes=(mbufs + clusters + 4 * nmbcnt + kmem) // PAGE * PAGE,
        pipe_map_bytes=pipe_map(facts, given),
        malloc_type_bytes=0,
    )


def freebsd_mbuma(facts: Facts, given: Given) -> Sizing:
    """FreeBSD from 31 May 2004: mbufs are zones in kmem_map; of them only the clusters have a limit."""
    sized = _base(facts, given, mbufs_each=2, clusters=lambda users: 1024 + 64 * users)
    least = VM_KMEM_SIZE + sized.nmbclusters * PAGE
    kmem = _kmem(facts, given, least)
    return sized._replace(
        nmbufs=0,
        mb_map_bytes=0,
        vm_kmem_bytes=kmem,
        kmem_map_bytes=round_page(kmem),
        pipe_map_bytes=pipe_map(facts, given),
        malloc_type_bytes=0,
    )


def pipe_map(facts: Facts, given: Given) -> int:
    """KVA for the buffers of pipes: a 64th of RAM, at least 512 KiB, at most a 64th of the KVA."""
    by_rule = min(max(512 * KIB, facts.ram_bytes // 64), facts.kva_bytes // 64)
    return (given.get("maxpipekva_bytes") or by_rule) // PAGE * PAGE


def _base(
    facts: Facts,
    given: Given,
    *,
    mbufs_each: int = 4,
    files_each: int = 2,
    clusters: Callable[[int], int] = lambda users: 512 + 16 * users,
) -> Sizing:
    """What these kernels compute alike. `mbufs_each`: mbufs for a cluster."""
    pages = facts.pages
    maxusers = given.get("maxusers") or min(max(pages // 512, 32), 384)
    maxproc = min(given.get("maxproc") or 20 + 16 * maxusers, pages // 12)
    maxfiles = given.get("maxfiles") or files_each * maxproc
    nmbclusters = given.get("nmbclusters") or clusters(maxusers)
    nmbufs = max(given.get("nmbufs") or mbufs_each * nmbclusters, 2 * nmbclusters)
    maxsockets = max(given.get("maxsockets", 0), maxfiles, nmbclusters)
    nbuf = given.get("nbuf") or _buffers(facts, given.get("maxbcache_bytes") or VM_BCACHE_SIZE_MAX)
    nswbuf = max(min(nbuf // 4, 256), 16)
    # Where the KVA is smaller than the i386's, the limits that follow from it apply: those of nbuf and of map entries.
    entries = max(min((facts.kva_bytes - (KERNBASE - VM_MIN_KERNEL_ADDRESS)) // PAGE, pages) // 8, 1)
    zones = _interrupt_zones(facts, given, maxproc, maxsockets, entries)
    buffer_map, pager_map = nbuf * BKVASIZE, nswbuf * MAXPHYS + PAGER_MAP_SIZE
    return Sizing(
        ram_bytes=facts.ram_bytes,
        kva_bytes=facts.kva_bytes,
        maxusers=maxusers,
        maxproc=maxproc,
        maxfiles=maxfiles,
        maxsockets=maxsockets,
        nmbclusters=nmbclusters,
        nmbufs=nmbufs,
        mb_map_bytes=round_page(nmbufs * MSIZE + nmbclusters * MCLBYTES),
        nbuf=nbuf,
        nswbuf=nswbuf,
        buffer_map_bytes=buffer_map,
        pager_map_bytes=pager_map,
        clean_map_bytes=buffer_map + pager_map,
        exec_map_bytes=EXEC_MAP_SIZE,
        map_entries=entries,
        vnodes=maxproc + pages // 4,
        callouts=16 + maxproc + maxfiles,
        interrupt_zones=zones,
        limits=tuple((zone.name, zone.entries) for zone in zones),
    )


def _kmem(facts: Facts, given: Given, least: int = VM_KMEM_SIZE) -> int:
    """Bytes that malloc may have: vm_kmem_size."""
    most = given.get("vm_kmem_size_max_bytes") or VM_KMEM_SIZE_MAX
    scale = given.get("vm_kmem_size_scale") or VM_KMEM_SIZE_SCALE
    by_rule = min(max(least, facts.ram_bytes // scale), most)
    return min(given.get("vm_kmem_size_bytes") or by_rule, 2 * facts.ram_bytes)


def _tenth(facts: Facts) -> int:
    """Limit of a malloc type where kmem_map is gone."""
    return min(facts.ram_bytes, facts.kva_bytes) // 10


def _buffers(facts: Facts, maxbcache: int) -> int:
    """Nbuf within the limits of KVA."""
    nbuf = buffers(facts.ram_bytes // KIB)
    return max(min(nbuf, maxbcache // BKVASIZE, facts.kva_bytes // (2 * BKVASIZE)), 1)


def _interrupt_zones(
    facts: Facts, given: Given, maxproc: int, maxsockets: int, map_entries: int
) -> tuple[InterruptZone, ...]:
    """Zones that set KVA aside at boot, with their limits."""
    shared = given.get("shpgperproc") or SHPGPERPROC
    most = (given.get("maxswzone_bytes") or SWAPMETA_MAX_BYTES) // 144
    return (
        InterruptZone("KMAP ENTRY", MAP_ENTRY_BYTES, map_entries),
        InterruptZone("PV ENTRY", PV_ENTRY_BYTES, shared * maxproc + facts.pages),
        InterruptZone("socket", 192, maxsockets),
        InterruptZone("udpcb", 192, maxsockets),
        InterruptZone("tcpcb", 576, maxsockets),
        InterruptZone("syncache", 160, SYNCACHE_ENTRIES),
        InterruptZone("ripcb", 192, maxsockets),
        InterruptZone("divcb", 192, maxsockets),
        InterruptZone("SWAPMETA", SWAPMETA_BYTES, min(facts.pages // 2, most)),
    )
