"""How large the address spaces of a kernel are on a machine, and how much of them each allocator must cover.

`maps.areas` says, by architecture, how much address space a kernel's layout gives kernel_map (vmalloc, the heap).
Where it says nothing of the machine's architecture, kernel_map is all of machine.kva_bytes; or what the kernel's rule
makes it by RAM (`sizing.Kernel.heap`).
"""

from collections.abc import Mapping
from typing import Any

from kmemexp.parts.finding import parameters, sets_aside
from kmemexp.sim import sizing

ARCHITECTURES = ("i386", "amd64", "arm64")
SUPERPAGES = {"i386": 4 << 20, "amd64": 2 << 20, "arm64": 2 << 20}
"""Bytes of a large page: i386 without PAE, the others with a table of 4 KiB pages below it."""


def kva_bytes(maps: Mapping[str, Any], machine: Mapping[str, Any]) -> int:
    """Bytes of the address space that a cell's kernel divides: of a direct map too, which lies at its beginning."""
    whole: int = machine["kva_bytes"]
    if rule := sizing.KERNELS[maps.get("kernel", sizing.USUAL)].heap:
        return min(whole, int(maps["image_bytes"] + rule(machine["ram_bytes"])))
    area = maps.get("areas", {}).get(machine.get("arch", ARCHITECTURES[0]))
    if area is None:
        return whole
    direct = machine["ram_bytes"] if maps["layout"] == "direct" else 0
    return min(whole, int(direct + maps["image_bytes"] + area["kernel_map"]))


def superpage_bytes(machine: Mapping[str, Any]) -> int:
    """Bytes of a superpage of a cell's machine. An i386 with more KVA than 32 bits can name is none."""
    large = machine["kva_bytes"] > 1 << 32
    return SUPERPAGES["amd64" if large else machine.get("arch", ARCHITECTURES[0])]


def backed_bytes(machine: Mapping[str, Any]) -> int | None:
    """Bytes of RAM where they bound what address space is good for: with addresses of 64 bits; an i386 lacks KVA."""
    return None if machine.get("arch", ARCHITECTURES[0]) == ARCHITECTURES[0] else int(machine["ram_bytes"])


def covered_bytes(name: str, maps: Mapping[str, Any], machine: Mapping[str, Any]) -> int:
    """Bytes of address space, from 0 on, that an allocator's memory can lie in.

    With a direct map, all of it lies there, unless the allocator knows of it (a parameter `direct_map`) and uses
    kernel_map as well, or has KVA set aside for it at boot.
    """
    direct = maps["layout"] == "direct"
    if direct and not sets_aside(name) and "direct_map" not in parameters("allocators", name):
        return int(machine["ram_bytes"])
    return kva_bytes(maps, machine)
