"""The answer of a sweep laid out in lines for a terminal."""

import math
from collections.abc import Sequence

from kmemexp.report.labels import short
from kmemexp.report.shown import MARKS
from kmemexp.report.told import EFFECTS, STEPS, WORDS, Answer

BLOCKS = "▁▂▃▄▅▆▇█"
DESIGNS = 11  # that are shown
COURSES = 8  # sparklines
MIB = 1 << 20
Line = tuple[str, str]
"""A line and its style."""


def lines(found: Answer, width: int) -> list[Line]:
    """Lay the answer out in `width` columns: lines, each with a style."""
    out: list[Line] = []
    if found.tallies:
        out += _tallies(found, width)
        out += _effects(found, width)
    else:
        out.append((f"{many(found.conditions)}, no baseline: means only (tables=all shows them).", ""))
    out += _courses(found, width)
    out.append(("", ""))
    bad = ("deadlocks", "panics", "failed", "saturated")
    out += [(line[0].upper() + line[1:] + ".", "red" if line.startswith(bad) else "") for line in found.trouble]
    loads = ", ".join(f"{load} ({many(count)})" for load, count in found.loads.items())
    return [*out, *([(f"Loads: {loads}.", "dim")] if loads else [])]


def spark(values: Sequence[float], low: float, high: float) -> str:
    """Draw values as one line of blocks between `low` and `high`; a blank where there is none."""
    span = (high - low) or 1.0
    return "".join(
        " " if not math.isfinite(v) else BLOCKS[min(int((v - low) / span * len(BLOCKS)), len(BLOCKS) - 1)]
        for v in values
    )


def _tallies(found: Answer, width: int) -> list[Line]:
    name = max(len(t.design) for t in found.tallies)
    name = min(max(name, 20), width - 44)
    heads = f"{'✓ better':>10}{'✗ worse':>10}{'= same':>10}{'? open':>10}"
    out = [
        ("", ""),
        (f"Against {found.baseline}: {len(found.metrics)} metrics in {many(found.conditions)}", "bold"),
        (f"{'':{name}}  {heads}", "dim"),
    ]
    out += [
        (f"{cut(t.design, name):{name}}  " + "".join(f"{t.counts[word]:>10}" for word in WORDS), "")
        for t in found.tallies[:DESIGNS]
    ]
    if (more := len(found.tallies) - DESIGNS) > 0:
        out.append((f"… and {more} more, in the report and the tables", "dim"))
    return out


def many(conditions: int) -> str:
    """Write how many conditions there are."""
    return f"{conditions} condition{'' if conditions == 1 else 's'}"


def cut(text: str, width: int) -> str:
    """Shorten a long name in its middle."""
    return text if len(text) <= width else text[: width // 2 - 1] + "…" + text[-(width - width // 2) :]


def _effects(found: Answer, width: int) -> list[Line]:
    told = [t for t in found.tallies if t.effects]
    if not told:
        return [("", ""), ("No difference is certain; tables=all says what could have been seen.", "")]
    each = EFFECTS if len(told) <= 4 else 1
    out = [("", ""), ("What matters most (paired difference where it is median, 95 %; conditions)", "bold")]
    label = max(len(short(e.metric)) for t in told for e in t.effects[:each])
    for t in told[:DESIGNS]:
        if each > 1:
            out.append((t.design, ""))
        for e in t.effects[:each]:
            mark = MARKS[e.verdict]
            lead = f"  {mark} " if each > 1 else f"{mark} {cut(t.design, 20):20} "
            text = f"{lead}{short(e.metric):{label}}  {e.text:>22} {e.unit:4} {e.times:>6}"
            out.append((f"{text}  {e.agree}/{e.conditions}"[:width], "green" if e.verdict == "better" else "red"))
    return out


def _courses(found: Answer, width: int) -> list[Line]:
    """One sparkline per load and design, all on one scale."""
    if not found.sparks:
        return []
    every = [v for s in found.sparks for v in s.values if math.isfinite(v)]
    low, high = min(every, default=0.0), max(every, default=1.0)
    places = list(dict.fromkeys(s.where for s in found.sparks))
    if len(found.sparks) > COURSES:
        places = places[:1]
    name = min(max(len(s.design) for s in found.sparks), width - STEPS - 16)
    title = f"Largest piece that malloc could get over the run, {low / MIB:.0f} to {high / MIB:.0f} MiB"
    out = [("", ""), (title, "bold")]
    for place in places:
        out.append((cut(place, width), "dim"))
        for s in (s for s in found.sparks if s.where == place):
            ends = [v for v in s.values if math.isfinite(v)] or [math.nan]
            course = f"{cut(s.design, name):{name}} {spark(s.values, low, high)}"
            out.append((f"{course} {ends[0] / MIB:4.0f} → {ends[-1] / MIB:4.0f}", ""))
    return out
