"""Roles: what the objects of a load are to a design. The load stays the same; who serves its objects changes.

A table names recorded caches, or the kinds of a synthetic load; `*` in a name stands for any letters, and of several
lines that fit the longest counts. A recorded cache that no line fits is malloc's. A line of a synthetic kind changes
only what it says. Operations on a map itself, such as those of vmalloc(), stay what they are, but for a kind of wired
ones that a line of its own names: kernel stacks, where a kernel caches them.
"""

import fnmatch
from collections.abc import Mapping
from typing import Any

import numpy as np

from kmemexp.errors import ConfigError
from kmemexp.sim import items
from kmemexp.sim.items import FREES, KMALLOC_SETS, PLAIN, Traits
from kmemexp.values import at_least, close, one_of
from kmemexp.workload.stream import CLASS_NAMES, KERNEL_CLASSES, KVA, KVA_WIRED, MALLOC, Kinds

NUMBERS = ("growth", "limit", "align", "sheaf")
FLAGS = {
    "reclaim": items.RECLAIM, "account": items.ACCOUNT, "rcu": items.RCU, "hwalign": items.HWALIGN,
    "ctor": items.CTOR, "unmerged": items.UNMERGED, "nofree": items.NOFREE, "smr": items.SMR, "kstack": items.KSTACK,
}  # fmt: skip
KEYS = ("class", *NUMBERS, "kmalloc", "free", "type", *FLAGS)
"""What a line may say: the class that serves it; pages that a zone grows by; entries of an interrupt zone; what a Linux
cache or a zone of UMA is created with; which of kmalloc's sets of caches it comes from; whether a synthetic kind's free
waits for a grace period of RCU; which malloc type a kind of malloc's is, where it is one and not many."""

Line = dict[str, Any]


def node(roles: Mapping[str, Any]) -> dict[str, Any]:
    """Check a table of roles and return it in normal form. Raises ConfigError."""
    tables = {
        table: {str(name): _line(f"roles.{table}.{name}", line) for name, line in (roles.get(table) or {}).items()}
        for table in ("recorded", "synthetic")
    }
    return {"name": roles["name"], **tables}


def _line(where: str, line: Any) -> Line:
    if not isinstance(line, Mapping):
        raise ConfigError(f"{where}={line}: must be a mapping; there are {', '.join(KEYS)}")
    found: Line = {}
    for key, value in line.items():
        if key not in KEYS:
            raise ConfigError(f"{where}.{key}: unknown key{close(key, KEYS)}; there are {', '.join(KEYS)}")
        if key == "class":
            one_of(f"{where}.class", value, KERNEL_CLASSES)
        elif key == "kmalloc":
            one_of(f"{where}.kmalloc", value, KMALLOC_SETS)
        elif key == "free":
            one_of(f"{where}.free", value, FREES)
            if value != FREES[0] and where.startswith("roles.recorded."):
                raise ConfigError(f"{where}.free={value}: a recording's frees come when they came")
        elif key == "type":
            if not isinstance(value, str):
                raise ConfigError(f"{where}.type={value}: must be the name of a malloc type")
        elif key in NUMBERS:
            at_least(f"{where}.{key}", value, 0)
        elif not isinstance(value, bool):
            raise ConfigError(f"{where}.{key}={value}: must be true or false")
        if value not in (0, False, "", KMALLOC_SETS[0], FREES[0]):
            found[key] = value
    return found


def cast(kinds: Kinds, roles: Mapping[str, Any] | None) -> Kinds:
    """Give each kind its role. Raises ConfigError where recorded kinds have no table."""
    if kinds.recorded and roles is None:
        raise ConfigError("roles: is missing: what recorded caches are to a design")
    table = (roles or {}).get("recorded" if kinds.recorded else "synthetic") or {}
    lines = [_line_of(name, klass, table) for name, klass in zip(kinds.names, kinds.klass.tolist(), strict=True)]
    if not kinds.recorded and not any(lines):
        return kinds
    types = sorted({line["type"] for line in lines if line and "type" in line})
    roles_of = (_role(kinds, k, line, types) for k, line in enumerate(lines))
    columns = [list(column) for column in zip(*roles_of, strict=True)]
    klass, growth, limit, traits = columns
    return kinds._replace(
        klass=np.array(klass, np.int8),
        growth=np.array(growth, kinds.growth.dtype),
        limit=np.array(limit, kinds.limit.dtype),
        traits=tuple(traits),
    )


def _line_of(name: str, klass: int, table: Mapping[str, Line]) -> Line | None:
    """Find the line of a kind. What is asked of a map has one only if it is named: a kernel stack, say."""
    if klass < KVA:
        return line_for(name, table)
    return table.get(name) if klass == KVA_WIRED else None


def line_for(name: str, table: Mapping[str, Line]) -> Line | None:
    """Find the line of a cache or a kind: its own, else the longest pattern that fits."""
    if name in table:
        return table[name]
    fitting = [pattern for pattern in table if "*" in pattern and fnmatch.fnmatchcase(name, pattern)]
    return table[max(fitting, key=lambda pattern: (len(pattern), pattern))] if fitting else None


def _role(kinds: Kinds, k: int, line: Line | None, types: list[str]) -> tuple[int, int, int, Traits]:
    """Class, growth, limit and traits of a kind; `types`: the malloc types that roles name."""
    klass, growth, limit = int(kinds.klass[k]), int(kinds.growth[k]), int(kinds.limit[k])
    known, line = kinds.traits_of(k), line or {}
    if "class" in line:
        klass = CLASS_NAMES.index(line["class"])
    elif kinds.recorded and klass < KVA:
        klass = MALLOC
    traits = Traits(
        stride=known.stride,
        kmalloc=KMALLOC_SETS.index(line.get("kmalloc", "plain")),
        flags=sum(bit for name, bit in FLAGS.items() if line.get(name)) | known.flags & items.PACKET,
        align=line.get("align", 0),
        sheaf=line.get("sheaf", 0),
        free=FREES.index(line.get("free", FREES[0])),
        type=types.index(line["type"]) + 1 if klass == MALLOC and "type" in line else 0,
    )
    return (
        klass,
        line.get("growth", growth),
        line.get("limit", limit),
        traits if line else PLAIN._replace(flags=known.flags & items.PACKET),
    )
