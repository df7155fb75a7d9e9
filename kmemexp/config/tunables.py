"""Loader tunables of the BSD kernels: `machine.tunables`, and what each kernel called them.

One that is set moves all that the kernel computes from it (kmemexp/sim/sizing); null: the kernel's own rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from kmemexp.errors import ConfigError
from kmemexp.sim import sizing
from kmemexp.values import at_least, byte_count

KERNEL = "kernel"  # where a field keeps the name that the kernel gave it


@dataclass
class Tunables:
    """What a kernel may be told at boot, each by the kernel's own name."""

    maxusers: int | None = field(default=None, metadata={KERNEL: "kern.maxusers"})
    maxproc: int | None = field(default=None, metadata={KERNEL: "kern.maxproc"})
    maxfiles: int | None = field(default=None, metadata={KERNEL: "kern.maxfiles"})
    maxsockets: int | None = field(default=None, metadata={KERNEL: "kern.ipc.maxsockets"})
    nmbclusters: int | None = field(default=None, metadata={KERNEL: "kern.ipc.nmbclusters"})
    nmbufs: int | None = field(default=None, metadata={KERNEL: "kern.ipc.nmbufs"})
    nmbcnt: int | None = field(default=None, metadata={KERNEL: "kern.ipc.nmbcnt"})
    nsfbufs: int | None = field(default=None, metadata={KERNEL: "kern.ipc.nsfbufs"})
    nmbjclusters: int | None = field(default=None, metadata={KERNEL: "kern.ipc.nmbjclusters"})
    nmbjumbop: int | None = field(default=None, metadata={KERNEL: "kern.ipc.nmbjumbop"})
    nmbjumbo9: int | None = field(default=None, metadata={KERNEL: "kern.ipc.nmbjumbo9"})
    nmbjumbo16: int | None = field(default=None, metadata={KERNEL: "kern.ipc.nmbjumbo16"})
    maxmbufmem_bytes: Any = field(default=None, metadata={KERNEL: "kern.ipc.maxmbufmem"})
    maxpipekva_bytes: Any = field(default=None, metadata={KERNEL: "kern.ipc.maxpipekva"})
    nbuf: int | None = field(default=None, metadata={KERNEL: "kern.nbuf"})
    maxbcache_bytes: Any = field(default=None, metadata={KERNEL: "kern.maxbcache"})
    maxswzone_bytes: Any = field(default=None, metadata={KERNEL: "kern.maxswzone"})
    maxphys_bytes: Any = field(default=None, metadata={KERNEL: "kern.maxphys"})
    bio_transient_maxcnt: int | None = field(default=None, metadata={KERNEL: "kern.bio_transient_maxcnt"})
    exec_map_entries: int | None = field(default=None, metadata={KERNEL: "vm.exec_map_entries"})
    shpgperproc: int | None = field(default=None, metadata={KERNEL: "vm.pmap.shpgperproc"})
    vm_kmem_size_bytes: Any = field(default=None, metadata={KERNEL: "kern.vm.kmem.size, since 2004 vm.kmem_size"})
    vm_kmem_size_min_bytes: Any = field(default=None, metadata={KERNEL: "vm.kmem_size_min"})
    vm_kmem_size_max_bytes: Any = field(default=None, metadata={KERNEL: "vm.kmem_size_max"})
    vm_kmem_size_scale: int | None = field(default=None, metadata={KERNEL: "vm.kmem_size_scale"})


NAMES: dict[str, str] = {f.name: f.metadata[KERNEL] for f in fields(Tunables)}
"""The kernels' own names, by key."""


def in_normal_form(given: Mapping[str, Any]) -> dict[str, int]:
    """Those that are set, as integers. Raises ConfigError."""
    found = {}
    for key, value in given.items():
        if value is not None:
            name = f"machine.tunables.{key}"
            found[key] = at_least(name, byte_count(name, value) if key.endswith("_bytes") else value, 1)
    return found


def check_read(given: Mapping[str, int], kernel: str) -> None:
    """Refuse a tunable that a kernel does not have. Raises ConfigError."""
    known = sizing.KERNELS[kernel].tunables
    for key in given:
        if key not in known:
            others = ", ".join(k for k in NAMES if k in known) or "none"
            raise ConfigError(
                f"machine.tunables.{key}: the kernel of this design has no {NAMES[key]} "
                f"(maps.kernel={kernel}); it reads {others}"
            )
