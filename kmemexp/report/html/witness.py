"""A deadlock as swim lanes: a row per context, bars for the locks that it holds and waits for, over the last events."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kmemexp.report.html import svg

WIDTH, ROW, LEFT, TOP = 640, 34, 190, 26
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

HATCH = (
    '<defs><pattern id="w-hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="3" height="6" fill="#fff"/></pattern></defs>'
)


class Witness(NamedTuple):
    """A lane that deadlocked, as it was simulated again with a log."""

    title: str
    summary: str  # the circle in words
    tracks: Sequence[Mapping[str, Any]]  # of lane.witness.tracks: context, cpu, kind, lock, begin_ns, end_ns, open
    events: Sequence[str]  # the last ones, a line each
    end_ns: int


class Lanes(NamedTuple):
    """A witness drawn."""

    title: str
    text: str
    svg: str
    events: Sequence[str]


def draw(one: Witness) -> Lanes:
    """Draw the swim lanes of a witness."""
    tracks = sorted(one.tracks, key=lambda t: t["cpu"])
    rows = {key: i for i, key in enumerate(dict.fromkeys((t["cpu"], t["context"]) for t in tracks))}
    tints = {lock: COLOURS[i % len(COLOURS)] for i, lock in enumerate(dict.fromkeys(t["lock"] for t in tracks))}
    begin = min((t["begin_ns"] for t in tracks), default=0)
    span = max(one.end_ns - begin, 1)
    height = TOP + ROW * len(rows) + 40
    parts = [HATCH]
    for (cpu, context), i in rows.items():
        y = TOP + i * ROW
        parts.append(svg.words(0, y + 20, f"CPU {cpu} {context}"))
        parts.append(svg.box(LEFT, y + ROW - 2, WIDTH, 1, 'fill="#ddd"'))
    parts += [_bar(t, TOP + rows[t["cpu"], t["context"]] * ROW, tints[t["lock"]], (begin, span)) for t in tracks]
    x = LEFT
    for lock, tint in tints.items():
        parts += [svg.box(x, 4, 12, 12, f'fill="{tint}"'), svg.words(x + 16, 15, lock)]
        x += 30 + 7 * len(lock)
    foot = f"{begin:,} ns to {one.end_ns:,} ns; solid: holds, hatched: waits, beyond the right end: for ever"
    parts.append(svg.words(LEFT, height - 10, foot, 'font-size="11"'))
    drawn = svg.drawing(one.summary, max(LEFT + WIDTH + 20, x), height, parts)
    return Lanes(one.title, one.summary, drawn, one.events)


def _bar(t: Mapping[str, Any], y: float, tint: str, at: tuple[int, int]) -> str:
    """Draw a span; `at`: where the drawing begins, and how long it is, ns."""
    begin, length = at
    x = LEFT + WIDTH * (t["begin_ns"] - begin) / length
    width = max(WIDTH * (t["end_ns"] - t["begin_ns"]) / length, 2.0) + (12 if t["open"] else 0)
    waits = t["kind"] == "waits"
    tip = f"{t['context']} {t['kind']}{' for' if waits else ''} {t['lock']} from {t['begin_ns']:,} ns"
    tip += " and for ever" if t["open"] else f" to {t['end_ns']:,} ns"
    place = (x, y + (15 if waits else 2), width, 12)
    solid = svg.box(*place, f'fill="{tint}"')
    hatch = svg.box(*place, 'fill="url(#w-hatch)" opacity="0.75"') if waits else ""
    return f'<g data-tip="{svg.escaped(tip)}">{solid}{hatch}</g>'
