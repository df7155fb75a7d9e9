"""Compiled part of the workload: objects and copies of traces become one sequence of operations in time order."""

from typing import NamedTuple

import numpy as np

from kmemexp.jit import entry, kernel, ref
from kmemexp.sim.aliases import Ns
from kmemexp.workload.stream import OP_ALLOC, OP_FREE, Stream

NEVER = np.iinfo(np.int64).max


class Objects(NamedTuple):
    """Objects of one or more lanes, one row each, lane after lane; the order inside a lane breaks ties."""

    start_ns: np.ndarray  # int64[n], time of the allocation
    end_ns: np.ndarray  # int64[n], time of the free; later than start_ns
    kind: np.ndarray  # int16[n]
    size: np.ndarray  # int32[n]
    cpu: np.ndarray  # int16[n], CPU of the allocation
    free_cpu: np.ndarray  # int16[n]
    flags: np.ndarray  # uint8[n], of the allocation
    free_flags: np.ndarray  # uint8[n]


class Scratch(NamedTuple):
    """Room that the kernels need, which allocate nothing themselves; n is the number of objects."""

    keys: np.ndarray  # int64[n]
    rows: np.ndarray  # int32[n]
    slot_of: np.ndarray  # int32[n], slot of each object
    unused: np.ndarray  # int32[n], stack of the slots that are free


def operations(objects: Objects, first: np.ndarray, horizon_ns: int) -> tuple[Stream, ...]:
    """Put the allocations and frees of every lane in time order and give every object a slot; one stream per lane.

    Lane i owns rows first[i] … first[i+1]-1 of `objects`. Objects that end at `horizon_ns` or later are not freed. At
    equal times frees come before allocations, allocations in their row order and frees in the order of their
    allocations. The slot freed last is used first.
    """
    n = len(objects.kind)
    scratch = Scratch(np.empty(n, np.int64), *(np.empty(n, np.int32) for _ in range(3)))
    order = _by_time(objects.start_ns, first, scratch)
    objects = Objects(*(column[order] for column in objects))  # what is used together now lies together
    ended = np.flatnonzero(objects.end_ns < horizon_ns)
    ended_first = np.searchsorted(ended, first)
    ended = ended[_by_time(objects.end_ns[ended], ended_first, scratch)]
    out_first = first + ended_first
    out = _blank(int(out_first[-1]))
    slots = np.zeros(len(first) - 1, np.int64)
    interleave(objects, first, ended, ended_first, out, out_first, slots, scratch)
    bounds = zip(out_first[:-1], out_first[1:], slots.tolist(), strict=True)
    return tuple(out.rows(slice(low, high))._replace(slots=count) for low, high, count in bounds)


def _blank(n: int) -> Stream:
    return Stream(
        time_ns=np.empty(n, np.int64),
        op=np.empty(n, np.uint8),
        kind=np.empty(n, np.int16),
        slot=np.empty(n, np.int32),
        size=np.empty(n, np.int32),
        cpu=np.empty(n, np.int16),
        flags=np.empty(n, np.uint8),
        slots=0,
    )


def _by_time(time_ns: np.ndarray, first: np.ndarray, scratch: Scratch) -> np.ndarray:
    """Order of the rows inside each lane by time (not negative), ties as they stand."""
    rows = np.arange(len(time_ns), dtype=np.int32)
    sort(time_ns.copy(), rows, first, np.empty(256, np.int64), scratch)
    return rows


@entry
def sort(keys: np.ndarray, rows: np.ndarray, first: np.ndarray, place: np.ndarray, scratch: Scratch) -> None:
    """Sort `keys` and with them `rows` inside each lane: radix sort, a byte at a time."""
    for lane in range(len(first) - 1):
        low, high = first[lane], first[lane + 1]
        _sort_lane(
            keys[low:high], rows[low:high], scratch.keys[: high - low], scratch.rows[: high - low], place, high - low
        )


@kernel
def _sort_lane(
    keys: np.ndarray, rows: np.ndarray, other_keys: np.ndarray, other_rows: np.ndarray, place: np.ndarray, n: int
) -> None:
    """Sort one lane, there and back between the arrays and the scratch ones."""
    latest = 0
    for i in range(n):
        latest = max(latest, keys[i])
    shift = 0
    while shift < 64 and latest >> shift > 0:  # a shift by 64 would be none at all
        _sort_digit(keys, rows, other_keys, other_rows, place, n, shift)
        _sort_digit(other_keys, other_rows, keys, rows, place, n, shift + 8)
        shift += 16


@kernel
def _sort_digit(
    keys: np.ndarray, rows: np.ndarray, to_keys: np.ndarray, to_rows: np.ndarray, place: np.ndarray, n: int, shift: int
) -> None:
    """Move everything into the order of one byte of the keys."""
    place[:] = 0
    for i in range(n):
        place[(keys[i] >> shift) & 255] += 1
    at = 0
    for digit in range(256):
        count = place[digit]
        place[digit] = at
        at += count
    for i in range(n):
        digit = (keys[i] >> shift) & 255
        at = place[digit]
        place[digit] = at + 1
        to_keys[at] = keys[i]
        to_rows[at] = rows[i]


@entry
def interleave(
    objects: Objects, first: np.ndarray, ended: np.ndarray, ended_first: np.ndarray, out: Stream,
    out_first: np.ndarray, slots: np.ndarray, scratch: Scratch,
) -> None:  # fmt: skip
    """Merge the allocations and frees of every lane into `out` and write its number of slots to `slots`.

    `objects` are in the order of their start, `ended` lists the rows that are freed in the order of their end; lane i
    owns the rows from first[i], ended_first[i] and out_first[i].
    """
    objects, out, scratch = ref(objects), ref(out), ref(scratch)
    for lane in range(len(slots)):
        at, spare, used = out_first[lane], 0, 0
        end, last = ended_first[lane], ended_first[lane + 1]
        for i in range(first[lane], first[lane + 1]):
            while end < last and objects.end_ns[ended[end]] <= objects.start_ns[i]:
                scratch.unused[spare] = scratch.slot_of[ended[end]]
                spare += 1
                _put_free(objects, ended[end], scratch.slot_of[ended[end]], out, at)
                end += 1
                at += 1
            if spare > 0:
                spare -= 1
                scratch.slot_of[i] = scratch.unused[spare]
            else:
                scratch.slot_of[i] = used
                used += 1
            _put_alloc(objects, i, scratch.slot_of[i], out, at)
            at += 1
        for j in range(end, last):
            _put_free(objects, ended[j], scratch.slot_of[ended[j]], out, at)
            at += 1
        slots[lane] = used


@kernel
def _put_alloc(objects: Objects, i: int, slot: int, out: Stream, at: int) -> None:
    _put(out, at, objects.start_ns[i], OP_ALLOC, objects.kind[i], slot)
    out.size[at], out.cpu[at], out.flags[at] = objects.size[i], objects.cpu[i], objects.flags[i]


@kernel
def _put_free(objects: Objects, i: int, slot: int, out: Stream, at: int) -> None:
    _put(out, at, objects.end_ns[i], OP_FREE, objects.kind[i], slot)
    out.size[at], out.cpu[at], out.flags[at] = 0, objects.free_cpu[i], objects.free_flags[i]


@kernel
def _put(out: Stream, at: int, time_ns: Ns, op: int, kind: int, slot: int) -> None:
    out.time_ns[at] = time_ns
    out.op[at] = op
    out.kind[at] = kind
    out.slot[at] = slot


@entry
def overlay(
    trace: Stream, shift_ns: np.ndarray, counts: np.ndarray, cpu_step: int, cpus: int, slot_step: int, out: Stream,
    head: np.ndarray, due: np.ndarray,
) -> None:  # fmt: skip
    """Write copies of a trace in time order: the first counts[j] operations of copy j, which begins at shift_ns[j].

    Copy j runs on CPUs moved by j · cpu_step, modulo `cpus`, and owns the slots from j · slot_step. At equal times
    the copy with the lower number comes first. `head` and `due` (int64[copies]) are scratch: the next operation of
    each copy, and its time.
    """
    copies = len(shift_ns)
    for j in range(copies):
        head[j] = 0
        due[j] = trace.time_ns[0] + shift_ns[j] if counts[j] > 0 else NEVER
    for at in range(len(out.op)):
        j = 0
        for other in range(1, copies):
            if due[other] < due[j]:
                j = other
        i = head[j]
        out.time_ns[at] = due[j]
        out.op[at] = trace.op[i]
        out.kind[at] = trace.kind[i]
        out.slot[at] = trace.slot[i] + j * slot_step
        out.size[at] = trace.size[i]
        out.cpu[at] = (trace.cpu[i] + j * cpu_step) % cpus
        out.flags[at] = trace.flags[i]
        head[j] = i + 1
        due[j] = trace.time_ns[i + 1] + shift_ns[j] if i + 1 < counts[j] else NEVER
