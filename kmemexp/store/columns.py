"""Names of columns: an axis of a plan becomes a column with a plain name, in files and in data frames alike."""

import json
import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Any

from kmemexp.metrics import NAMES, SERIES

MACHINE = {"cpus": "machine.cpus", "ram_bytes": "machine.ram_bytes", "kva_bytes": "machine.kva_bytes", "seed": "seed"}
"""Columns that every row has, and the keys that they are."""

USUAL = (
    "machine.threads", "machine.domains", "interrupts.rate_hz", "interrupts.clock_allocates", "workload.copies",
    "workload.duration_s", "workload.path", "workload.scale", "workload.shift_s", "workload.start", "workload.stream",
    "workload.window_s",
)  # fmt: skip
"""Keys that are known by their column's name alone, in a table that does not say what its axes are."""

HOLDERS = ("kinds", "params", "sources")
"""Words of a key that say nothing which the next one does not."""

RESERVED = {
    *NAMES, *SERIES, "cell_key", "replica", "status", "error", "axes", "config", "panic", "deadlock", "sample",
    "what", "count", "mean_ns", "p50_ns", "p99_ns", "p999_ns", "max_ns", "map", "occupancy", "moment", "allocator",
    "cache", "object_bytes", "objects_count", "slabs_count", "pages_count", "metric", "n", "failed", "mean", "low",
    "high", "verdict", "test", "role", "best", "better", "family", "margin", "error_kind",
}  # fmt: skip


def short(key: str) -> str:
    """Name the column of a configuration key: `machine.kva_bytes` is kva_bytes.

    >>> [short(key) for key in ("design", "interrupts/sources", "objects.params.dfly_slab.release_threshold")]
    ['design', 'sources', 'dfly_slab_release_threshold']
    """
    words = re.findall(r"[A-Za-z0-9_]+", key)
    if not words:
        return "axis"
    last = [word for word in words[1:-1] if word not in HOLDERS] + words[-1:]
    name = "_".join(last)
    if name in MACHINE and MACHINE[name] != key:
        name = "_".join(words)
    if name in RESERVED or keyword.iskeyword(name) or not name.isidentifier():
        name = "_".join(words) if len(words) > 1 else f"{name}_"
    return name if name.isidentifier() else f"axis_{name}"


def named(keys: Iterable[str]) -> dict[str, str]:
    """Name the column of each key; those that would have the same name get a long one."""
    names = {key: short(key) for key in sorted(set(keys))}
    taken = list(names.values())
    return {
        key: name if taken.count(name) == 1 else "_".join(re.findall(r"[A-Za-z0-9_]+", key))
        for key, name in names.items()
    }


def value(config: Mapping[str, Any], key: str) -> Any:
    """Look a key up in a cell's configuration, a group by the name of what was chosen; None where it says nothing."""
    found: Any = config
    for word in key.split("."):
        if not isinstance(found, Mapping) or word not in found:
            return None
        found = found[word]
    if isinstance(found, Mapping) and "." not in key:
        found = found.get("name")
    return None if isinstance(found, Mapping) else found


def keys_of(axes: Iterable[str]) -> list[str]:
    """Keys in texts of axes, such as ``{"design":"freebsd4","machine.cpus":2}``, sorted."""
    return sorted({key for cell in parsed(set(axes)) for key in cell})


def parsed(axes: Iterable[str]) -> list[dict[str, Any]]:
    """Decode texts of axes, all at once: one by one takes five times as long. Raises ValueError."""
    texts = [text or "{}" for text in axes]
    found: list[dict[str, Any]] = json.loads(f"[{','.join(texts)}]")
    if len(found) != len(texts):
        raise ValueError("a text of axes is no mapping")
    return found
