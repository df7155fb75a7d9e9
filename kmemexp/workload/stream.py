"""The form in which every workload, recorded or synthetic, reaches the simulated machine."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from kmemexp.sim import ops
from kmemexp.sim.items import PLAIN, Traits
from kmemexp.sim.slots import CLASS_MALLOC, CLASS_MBUF, CLASS_ZONE, SERVED

OP_ALLOC, OP_FREE, OP_WORK, OP_WATCH, OP_READ = ops.ALLOC, ops.FREE, ops.WORK, ops.WATCH, ops.READ
READ_CHECKS, READ_LAST = ops.CHECKS, ops.LAST

# Class of a kind: who serves it. The first three go to the design's object allocators, the rest straight to a map.
MALLOC, ZONE, MBUF = CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF
KVA = 3  # kernel_map, pageable (pipe buffers, device mappings)
KVA_WIRED = 4  # kernel_map, wired (u-areas, tables)
EXEC = 5  # exec_map
BUFFER = 6  # buffer_map
PAGER = 7  # pager_map
# Physical pages without KVA of their own: only of an arena that shares its pages with them, without a clock.
ANON = 8  # user memory
FILE = 9  # page cache, which is reclaimed when pages run short
PAGES = 10  # the kernel's own: page tables, stacks, buffers of pipes and sockets
KERNEL_CLASSES = (*SERVED, "kva", "kva_wired", "exec", "buffer", "pager")
CLASS_NAMES = (*KERNEL_CLASSES, "anon", "file", "pages")
MAX_CPUS = 32767  # what the column `cpu` of a stream holds


class Kinds(NamedTuple):
    """Object kinds of a workload: k entries, the order is the kind number."""

    names: tuple[str, ...]
    klass: np.ndarray  # int8[k], MALLOC …
    size: np.ndarray  # int32[k], bytes of a zone's item (for other classes: the usual request, informative)
    growth: np.ndarray  # int32[k], pages a zone grows by (0 counts as 1)
    limit: np.ndarray  # int32[k], entries of an interrupt zone with preallocated KVA; 0 = ordinary zone
    traits: tuple[Traits, ...] = ()  # by kind, as far as there are any
    recorded: bool = False  # kinds are caches of a recorded kernel: what they are to a design its roles say

    def traits_of(self, kind: int) -> Traits:
        """What Linux knows of a kind."""
        return self.traits[kind] if kind < len(self.traits) else PLAIN


class Stream(NamedTuple):
    """One lane's n operations in time order. A slot names a live object and is used again after its free."""

    time_ns: np.ndarray  # int64[n], not decreasing; of a closed load, the pause before the operation
    op: np.ndarray  # uint8[n], OP_ALLOC or OP_FREE
    kind: np.ndarray  # int16[n], index into Kinds (set on frees too)
    slot: np.ndarray  # int32[n], object slot
    size: np.ndarray  # int32[n], bytes requested (0 on frees)
    cpu: np.ndarray  # int16[n]
    flags: np.ndarray  # uint8[n], slots.F_* bits
    slots: int  # number of object slots

    @property
    def length(self) -> int:
        """Number of operations."""
        return len(self.op)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All columns, in the order of the fields."""
        return self[:-1]

    def rows(self, which: "slice | np.ndarray") -> "Stream":
        """Select operations, by a slice, a mask or their numbers; the slots stay what they are."""
        return stream_of((column[which] for column in self.arrays), self.slots)


def stream_of(columns: Iterable[np.ndarray], slots: int) -> Stream:
    """Put columns, in the order of the fields, together."""
    return Stream._make((*columns, slots))


class Handlers(NamedTuple):
    """Interrupts of a recording, in time order: n handlers that used a CPU for a while."""

    time_ns: np.ndarray  # int64[n], not decreasing
    cpu: np.ndarray  # int16[n]
    flags: np.ndarray  # uint8[n], flag.SOFT or flag.HARD
    ns: np.ndarray  # int32[n], how long


class Watched(NamedTuple):
    """What a stream says of references to the objects of one kind."""

    kind: int
    watches: int  # objects that are freed while a reference to them is left that will be read
    references: int  # references that end before their object is gone


class Load(NamedTuple):
    """A workload's kinds and its streams, one per replica; of a recording the interrupts too, if they are wanted."""

    kinds: Kinds
    streams: tuple[Stream, ...]
    handlers: tuple[Handlers, ...] = ()
    watched: tuple[Watched, ...] = ()  # by stream, where a kind's references are looked at


def columns(stream: Stream) -> tuple[np.ndarray, ...]:
    """Columns that a driver without a clock takes, in its order."""
    return stream.op, stream.kind, stream.slot, stream.size, stream.cpu, stream.flags


def one_allocation(kind: int, size: int) -> Stream:
    """Make a stream of one allocation, in slot 0."""
    return Stream(
        time_ns=np.zeros(1, np.int64),
        op=np.full(1, OP_ALLOC, np.uint8),
        kind=np.full(1, kind, np.int16),
        slot=np.zeros(1, np.int32),
        size=np.full(1, size, np.int32),
        cpu=np.zeros(1, np.int16),
        flags=np.zeros(1, np.uint8),
        slots=1,
    )
