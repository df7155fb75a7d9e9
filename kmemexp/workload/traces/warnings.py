"""What a recording lacks, in sentences that say what that means for a simulation of it."""

from typing import Any

from kmemexp.workload.traces import gfp
from kmemexp.workload.traces import lines as ln
from kmemexp.workload.traces.lines import Scan

HIDDEN = (
    "the kernel hid {n:,} pointers, so these lines are left out: record with real ones "
    "(`echo 0 > options/hash-ptr` in tracefs, trace option nohash-ptr; or boot with no_hash_pointers)"
)
TICKS = (
    "times are not seconds (trace_clock is a counter, such as counter or x86-tsc): only their order is used; "
    "lifetimes, rates and everything per second mean nothing (`echo mono > trace_clock`)"
)
NO_CPU = (
    "{n:,} lines name no CPU and count as CPU 0: per-CPU caches, frees on other CPUs and locks are not represented "
    "(`perf script -F +cpu`)"
)
UNNAMED = (
    "caches are unknown for {n:,} allocations (before Linux 6.1 the kernel names none): each call site and size stands "
    "for one, with its exact size; which of them were zones, mbufs or typed caches is not represented"
)
NUMERIC = (
    "{n:,} allocations print GFP flags as a number whose layout does not show: it was read as Linux 5.0 or later "
    "prints it (0x400 means may sleep); on an older kernel the share that may not sleep is wrong"
)
OVERWRITTEN = (
    "{n:,} events were overwritten before the trace was read: the CPUs begin at different times, and frees of what was "
    "allocated in the lost part count as frees of older objects"
)


def of(scan: Scan, unnamed: int) -> list[str]:
    """Return the warnings on a text that has been read; `unnamed`: allocations of caches without a name."""
    counts = scan.counts
    said = (
        (HIDDEN, counts[ln.SEEN_HIDDEN]),
        (TICKS, counts[ln.SEEN_TICKS]),
        (NO_CPU, counts[ln.SEEN_NO_CPU]),
        (UNNAMED, unnamed),
        (NUMERIC, counts[ln.SEEN_NUMERIC] if counts[ln.SEEN_GFP] == gfp.UNKNOWN else 0),
        (OVERWRITTEN, counts[ln.SEEN_OVERWRITTEN]),
    )
    return [text.format(n=int(n)) for text, n in said if n]


def damage(report: dict[str, Any]) -> list[str]:
    """Return sentences on what could not be read or was lost, and the warnings; none for a clean trace."""
    found = []
    if report["bad_lines"]:
        where = ", ".join(f"{n:,}" for n in report["first_bad_lines"])
        cut = "; the last line has no end" if report["truncated"] else ""
        found.append(f"{report['bad_lines']:,} lines could not be read and were left out (lines {where} …{cut})")
    if report["lost_markers"]:
        where = ", ".join(f"{n:,}" for n in report["first_lost_lines"])
        found.append(
            f"{report['lost_events']:,} events were lost while recording, in {report['lost_markers']:,} gaps "
            f"(lines {where} …): frees among them count as lost frees"
        )
    return [*found, *report.get("warnings", ())]
