"""How each kernel sizes its maps and limits from RAM, KVA and CPUs, and what loader tunables move.

A kernel is a name in KERNELS. A tunable has a key of `machine.tunables` (kmemexp/config/tunables.py has the kernels'
own names); one that is set moves whatever the kernel computed from it. Plain integers in bytes, pages or counts; no
NumPy here. May import only leaves of kmemexp.sim (slots, network).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kmemexp.sim.sizing import bsd2003, bsd_today, illumos, pages
from kmemexp.sim.sizing.carving import (
    IMAGE_BYTES,
    KNOWN_RESERVES,
    RESERVES,
    SUBMAPS,
    Reservation,
    carving,
    needed_bytes,
    reservations,
    shortfall,
)
from kmemexp.sim.sizing.pages import PageReserves
from kmemexp.sim.sizing.rules import EXEC_MAP_SIZE, KVA_BYTES, KVA_BYTES_SMP, Facts, Given, InterruptZone, Sizing

__all__ = [
    "EXEC_MAP_SIZE",
    "IMAGE_BYTES",
    "KERNELS",
    "KNOWN_RESERVES",
    "KVA_BYTES",
    "KVA_BYTES_SMP",
    "RESERVES",
    "SUBMAPS",
    "InterruptZone",
    "Kernel",
    "PageReserves",
    "Reservation",
    "Sizing",
    "carving",
    "needed_bytes",
    "of_cell",
    "page_reserves",
    "reservations",
    "shortfall",
    "size",
]  # fmt: skip


class Kernel(NamedTuple):
    """Whose rules they are."""

    size: Callable[[Facts, Given], Sizing]
    tunables: tuple[str, ...]  # that it reads
    page_reserves: Callable[[int], PageReserves] = pages.bsd2003
    page_rule: str = "exclusive"  # engine.machine.PAGE_RULES
    machines: tuple[str, ...] = ()  # that it runs on, or is compared on with older kernels; (): all
    heap: Callable[[int], int] | None = None  # bytes of kernel_map by those of RAM; None: as `maps.areas` has it


KERNELS = {
    "freebsd4": Kernel(bsd2003.freebsd4, bsd2003.RELENG_4),
    "dragonfly_2003": Kernel(bsd2003.dragonfly_2003, bsd2003.DRAGONFLY),
    "dragonfly_2005": Kernel(bsd2003.dragonfly_2005, bsd2003.DRAGONFLY, page_rule="bits"),
    "dragonfly_2010": Kernel(bsd2003.dragonfly_2010, bsd2003.COMMON, page_rule="bits"),
    "dragonfly_2020": Kernel(
        bsd_today.dragonfly_2020,
        bsd_today.DRAGONFLY,
        pages.dragonfly_2020,
        "floor",
        ("amd64", "i386"),
        bsd_today.dragonfly_heap,
    ),
    "freebsd5": Kernel(bsd2003.freebsd5, bsd2003.FREEBSD_5),
    "freebsd_mbuma": Kernel(bsd2003.freebsd_mbuma, bsd2003.MBUMA),
    "freebsd_15": Kernel(bsd_today.freebsd_15, bsd_today.FREEBSD, pages.freebsd_15, "count", ("amd64",)),
    "illumos": Kernel(illumos.illumos, (), illumos.page_reserves, "floor", ("amd64",), illumos.heap_bytes),
    "none": Kernel(bsd2003.no_kernel, ()),  # no BSD: nothing of this is looked at
}
"""By name, as `maps.kernel` has it."""
USUAL = "freebsd4"
NONE: Given = {}


def size(
    ram_bytes: int, kva_bytes: int = KVA_BYTES, kernel: str = USUAL, tunables: Mapping[str, int] = NONE, cpus: int = 1
) -> Sizing:
    """Size everything as a kernel does. `tunables`: those that are set, all of which the kernel must read."""
    return KERNELS[kernel].size(Facts(ram_bytes, kva_bytes, cpus), tunables)


def page_reserves(ram_bytes: int, kernel: str = USUAL) -> PageReserves:
    """Thresholds of the page daemon of a kernel, in pages."""
    return KERNELS[kernel].page_reserves(ram_bytes)


def of_cell(maps: Mapping[str, Any], objects: Mapping[str, Any], machine: Mapping[str, Any], kva_bytes: int) -> Sizing:
    """Size the machine of a cell by its design's kernel, which has `kva_bytes` of address space to divide.

    A limit that is set as a parameter of the allocator of mbufs is the tunable of that name: the kernel has no other.
    """
    name = maps.get("kernel", USUAL)
    of_mbufs = objects["params"].get(objects["mbuf"], {})
    given = {key: value for key, value in of_mbufs.items() if value and key in KERNELS[name].tunables}
    given |= machine.get("tunables", {})
    return size(machine["ram_bytes"], kva_bytes, name, given, machine["cpus"])
