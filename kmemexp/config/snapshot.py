"""`machine.from=FOLDER`: a machine as the kernel that ran on it describes it, in copies of files of /proc.

FOLDER is /proc itself, or holds copies: `zoneinfo` (RAM, nodes, CPUs), `cpuinfo` (the architecture) and, if it is
there, `sys/vm/min_free_kbytes` (or `min_free_kbytes`). What is read takes the place of the keys of the machine. The
cell does not remember the folder: it is the same wherever the copies lie.
"""

import re
from pathlib import Path
from typing import Any

from kmemexp.errors import ConfigError
from kmemexp.sim.slots import PAGE

KVA_BYTES = {"i386": 1021 << 20, "amd64": 128 << 40, "arm64": 256 << 40}
"""The kernel's part of an address space: of 4 GiB as usual on the i386, of addresses of 48 bits."""


def machine_of(folder: Any) -> dict[str, Any]:
    """Keys of the machine in a folder of copies. Raises ConfigError, naming the file and what it lacks."""
    if not isinstance(folder, str) or not (root := Path(folder).expanduser()).is_dir():
        raise ConfigError(f"machine.from={folder}: is no folder; copy /proc/zoneinfo and /proc/cpuinfo into one")
    arch = _architecture(root / "cpuinfo")
    return {"arch": arch, "kva_bytes": KVA_BYTES[arch], **_zones(root / "zoneinfo"), **_min_free(root)}


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"machine.from: {path} cannot be read ({error.strerror}); copy it from /proc") from error


def _architecture(path: Path) -> str:
    """Find the architecture by what only its kernel writes."""
    text = _text(path)
    if re.search(r"^CPU architecture\s*:\s*(8|AArch64)\s*$", text, re.MULTILINE):
        return "arm64"
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    if not flags:
        raise ConfigError(f"machine.from: {path} has neither flags (x86) nor 'CPU architecture: 8' (arm64)")
    return "amd64" if "lm" in flags[1].split() else "i386"


def _zones(path: Path) -> dict[str, int]:
    """RAM is what the page allocator manages; a node counts if it has memory, a CPU if it has lists of pages."""
    nodes, cpus, managed = set(), set(), 0
    node = ""
    for line in _text(path).splitlines():
        if begin := re.match(r"Node\s+(\d+), zone", line):
            node = begin[1]
        elif pages := re.match(r"\s+managed\s+(\d+)\s*$", line):
            managed += int(pages[1])
            if int(pages[1]):
                nodes.add(node)
        elif cpu := re.match(r"\s+cpu:\s+(\d+)\s*$", line):
            cpus.add(cpu[1])
    if not (managed and cpus):
        raise ConfigError(f"machine.from: {path} has no zone with managed pages and per-CPU lists: no /proc/zoneinfo")
    return {"cpus": len(cpus), "domains": len(nodes), "ram_bytes": managed * PAGE}


def _min_free(root: Path) -> dict[str, int]:
    for path in (root / "sys" / "vm" / "min_free_kbytes", root / "min_free_kbytes"):
        if path.is_file():
            text = _text(path).strip()
            if not text.isdecimal():
                raise ConfigError(f"machine.from: {path} must hold a number of KiB, not {text[:40]!r}")
            return {"min_free_bytes": int(text) << 10}
    return {}
