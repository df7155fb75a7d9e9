"""What boot carves out of the maps, in its order, and whether it fits."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from kmemexp.sim.sizing.rules import MIB, Sizing, round_page
from kmemexp.sim.slots import PAGE

IMAGE_BYTES = 8 * MIB  # text, data, bss and boot data; the kernels of 2003 took 4 to 8 MiB
KMEMUSAGE_BYTES = 4

SUBMAPS = ("clean_map", "buffer_map", "pager_map", "exec_map", "mb_map")  # besides kmem_map
ZERO_REGION_BYTES = 2 * MIB
OPTIONAL = (
    "direct_map", "vm_page array", "zero region", "kmem_map", "pipe_map", *SUBMAPS,
)  # fmt: skip
"""A size of 0 says that this kernel has none."""
PAGE_ARRAY, ZERO_REGION = "vm_page array", "zero region"  # of FreeBSD today
RESERVES = ("kmemusage", "KMAP ENTRY", "PV ENTRY", "SWAPMETA")  # KVA that every BSD kernel of 2003 sets aside
KNOWN_RESERVES = (*RESERVES, PAGE_ARRAY, ZERO_REGION)


class Reservation(NamedTuple):
    """A range carved out of a map at boot."""

    name: str
    nbytes: int
    parent: str  # the map it lies in


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
    usage_bytes = round_page(KMEMUSAGE_BYTES * (malloc_bytes // PAGE))
    exists = {"KMAP ENTRY": kmapentzone and "KMAP ENTRY" in reserves}
    exists |= {name: name in reserves for name in ("PV ENTRY", "SWAPMETA")}
    wanted = [z for z in sizing.interrupt_zones if exists.get(z.name, network_zones)]
    early = [z for z in wanted if z.name in ("KMAP ENTRY", "PV ENTRY")]
    carved = [
        Reservation("direct_map", direct_bytes, kernel),
        Reservation("kernel image", round_page(image_bytes), kernel),
        Reservation("kmemusage", usage_bytes, kernel),
        Reservation(PAGE_ARRAY, sizing.page_array_bytes if PAGE_ARRAY in reserves else 0, kernel),
        Reservation(ZERO_REGION, ZERO_REGION_BYTES if ZERO_REGION in reserves else 0, kernel),
        Reservation("kmem_map", sizing.kmem_map_bytes if split else 0, kernel),
        *(Reservation(z.name, z.kva_bytes, kernel) for z in early),
        Reservation("clean_map", sizing.clean_map_bytes, kernel),
        Reservation("buffer_map", sizing.buffer_map_bytes, "clean_map"),
        Reservation("pager_map", sizing.pager_map_bytes, "clean_map"),
        Reservation("exec_map", sizing.exec_map_bytes, kernel),
        Reservation("pipe_map", sizing.pipe_map_bytes, kernel),
        Reservation("mb_map", sizing.mb_map_bytes, "kmem_map" if split else kernel),
        *(Reservation(z.name, z.kva_bytes, kernel) for z in wanted if z not in early),
    ]
    left_out = (set(SUBMAPS) - set(submaps)) | ({"kmemusage"} - set(reserves))
    return [r for r in carved if not {r.name, r.parent} & left_out and (r.nbytes or r.name not in OPTIONAL)]


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
