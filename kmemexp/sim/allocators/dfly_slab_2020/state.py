"""What a sweep may change of `dfly_slab_2020`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Table, Words

ZONE_RELS_THRESH = 32


MORE_MEMORY_MIB = (7 << 10, 15 << 10, 31 << 10, 63 << 10, 127 << 10)  # each of them doubles the threshold


FEW_CPUS = 32  # with more, each CPU keeps less


ZONE_HEADER = 112  # sizeof(SLZone) on x86_64


class Params(NamedTuple):
    """What a sweep may change, with the values of 2020."""

    zone_bytes: int = 0  # a power of two, 32768 … 131072; 0: by the rule, from the smaller of RAM and KVA
    ram_bytes: int = 0  # physical memory; 0: not smaller than the KVA
    release_threshold: int = -1  # wholly free zones that a CPU may keep on FreeZones; -1: by the rule
    header_bytes: int = ZONE_HEADER  # sizeof(SLZone)
    slide: int = 20  # ZALLOC_SLAB_SLIDE: how far the first chunk index moves with each zone
    slab_order: int = 0  # which zone of a list is used first: 0 the one listed first, 1 the lowest, 2 the fullest
    reap: int = 0  # 1: short memory makes all CPUs give their FreeZones back
    malloc_types: int = 0  # types that the roles of the load's kinds name; 0: of the load
    malloc_type_bytes: int = 0  # limit of each; 0: the kernel's own


class State(NamedTuple):
    """Zones are numbered by address: zone z lies at z * zone_bytes."""

    p: Params  # zone_bytes and release_threshold chosen
    map_number: int
    zone_shift: int  # log2 of zone_bytes
    zone_limit: int  # ZoneLimit: requests of this size or more are oversize

    class_of: Words  # uint8[2049], class by request size in units of 8 bytes, rounded up
    klass: Table  # int64[72, 3]
    zone: Table  # int32[zones, 14]
    link: Table  # int16[zones, zone_bytes / 8], the freed chunk after this one on its list
    types: Table  # int64[types + 1, 2], malloc types and their limits
    zone_first: Table  # int32[cpus, 72], head of the list of zones with free chunks (ZoneAry)
    zone_last: Table  # int32[cpus, 72], its tail
    cpu: Table  # int64[cpus, 6]
    over: Table  # int32[kva / 4096, 2]


def release_threshold(bytes_limit: int, cpus: int) -> int:
    """Idle zones that each CPU may keep, on a machine with this much memory or KVA, whichever is less."""
    zones = ZONE_RELS_THRESH << sum(bytes_limit >> 20 >= mib for mib in MORE_MEMORY_MIB)
    return zones * FEW_CPUS // cpus if cpus > FEW_CPUS else zones
