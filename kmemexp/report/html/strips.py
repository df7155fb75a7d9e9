"""Map pictures: how full each stretch of each map was over the run, designs side by side, every map at one scale.

A picture is a small PNG inside the SVG, a pixel per instant and stretch: addresses grow upwards, time
runs to the right. Where it is known who uses a map, a stretch has their colours, each as strong as its share.
"""

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kmemexp.report.html import svg
from kmemexp.report.html.figures import first_of_loads
from kmemexp.report.tables import Made
from kmemexp.sim import sizing

SHOWN = ("kernel_map", "kmem_map", "mb_map", "direct_map")
WIDTH, TALLEST, LEAST, GAP, LEFT, BETWEEN = 230, 300.0, 14.0, 26, 66, 20
SMALL = 'font-size="10"'
DESIGNS = 6
FULL = "#08306b"  # dark blue, told from white by lightness alone
EMPTY = "#f7fbff"
OTHER = "#8a8a8a"
USERS = {"malloc": "#0072b2", "zone": "#e69f00", "mbuf": "#009e73", "mapped": "#cc79a7", "wired": "#9a3412"}
"""Colours of users, told apart by those who are colour-blind (Okabe and Ito's, but the last)."""
WORDS = {
    "malloc": "malloc", "zone": "zones", "mbuf": "mbufs", "mapped": "mapped (pipes, exec …)",
    "wired": "wired (u-areas …)",
}  # fmt: skip
REST = "taken, but in no live object (allocators, submaps, boot)"


class Picture(NamedTuple):
    """The maps of several designs under one condition."""

    title: str
    text: str
    svg: str


class Strip(NamedTuple):
    """One map of one design."""

    design: str
    name: str
    nbytes: int
    filled: NDArray[np.float64]  # [stretches, instants], 0 to 1
    used: dict[str, NDArray[np.float64]]  # the same by user, where that is known
    end_s: float


def draw(made: Made) -> list[Picture]:
    """Draw replica 0 of the first condition of each load."""
    rows = first_of_loads(made)
    first = rows.sort_values("replica", kind="stable").drop_duplicates("cell_key")
    shots = made.results.tables.read("snapshots").to_pandas()
    found = []
    for where, there in first.groupby("where", sort=False):
        strips: list[Strip] = []
        for lane in there.head(DESIGNS).to_dict("records"):
            mine = shots[((shots["cell_key"] == lane["cell_key"]) & (shots["replica"] == lane["replica"])).to_numpy()]
            strips += _strips(lane, mine)
        if strips:
            number = int(there["replica"].iloc[0])
            found.append(Picture(f"{where}, replica {number}", _text(strips), _svg(strips)))
    return found


def shade(filled: NDArray[np.float64], used: Mapping[str, NDArray[np.float64]]) -> NDArray[np.uint8]:
    """Colour shares [rows, columns] of 0 to 1: one colour, or those of `used` by user and grey for the rest."""
    white = _rgb(EMPTY)
    parts = [(_rgb(USERS[name]), share) for name, share in used.items()]
    rest = filled - sum((share for _, share in parts), np.zeros_like(filled))
    parts.append((_rgb(OTHER if parts else FULL), np.clip(rest, 0, 1)))
    mixed = white + sum((share[:, :, None] * (colour - white) for colour, share in parts), np.zeros((*filled.shape, 3)))
    return np.round(np.clip(mixed, 0, 255)).astype(np.uint8)


def _rgb(colour: str) -> NDArray[np.float64]:
    return np.array(list(bytes.fromhex(colour[1:])), float)


def png(shaded: NDArray[np.uint8]) -> bytes:
    """Encode pixels, uint8[rows, columns, 3], as a PNG, row 0 at the bottom."""
    pixels = shaded[::-1]
    height, width, _ = pixels.shape
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def _strips(lane: dict[Any, Any], shots: pd.DataFrame) -> list[Strip]:
    sizes = map_bytes(json.loads(lane["config"]))
    found = []
    for name in SHOWN:
        mine = shots[(shots["map"] == name).to_numpy()].sort_values("time_ns")
        if len(mine):
            filled = np.stack([np.asarray(shot, np.float64) / 255 for shot in mine["occupancy"]], axis=1)
            used = _used(name, shots, mine["time_ns"], filled)
            end_s = float(mine["time_ns"].max()) / 1e9
            found.append(Strip(str(lane["variant"]), name, sizes[name], filled, used, end_s))
    return found


def _used(name: str, shots: pd.DataFrame, times: "pd.Series[int]", filled: NDArray[np.float64]) -> dict[str, Any]:
    """What each user takes of a map, by user; users that it does not have are left out."""
    column = {time: i for i, time in enumerate(times)}
    found: dict[str, NDArray[np.float64]] = {}
    for user in USERS:
        those = shots[(shots["map"] == f"{name}:{user}").to_numpy()]
        if len(those):
            found[user] = np.zeros_like(filled)
            for time, shot in zip(those["time_ns"], those["occupancy"], strict=True):
                found[user][:, column[time]] = np.asarray(shot, np.float64) / 255
    return found


def map_bytes(config: dict[str, Any]) -> dict[str, int]:
    """Sizes of a cell's maps: of a submap what boot carves out, of others the whole KVA."""
    machine = config["machine"]
    sized = sizing.size(machine["ram_bytes"], machine["kva_bytes"])
    carved = sizing.reservations(sized, **sizing.carving(config["maps"], machine["ram_bytes"]))
    return dict.fromkeys(SHOWN, machine["kva_bytes"]) | {part.name: part.nbytes for part in carved}


def _text(strips: list[Strip]) -> str:
    return "; ".join(map(_told, strips)) + "."


def _told(s: Strip) -> str:
    first, last = s.filled[:, 0].mean(), s.filled[:, -1].mean()
    return f"{s.design} {s.name} {first:.0%} full at first, {last:.0%} at last{_by(s)}"


def _by(s: Strip) -> str:
    """Say what each user has at the end."""
    by = ", ".join(f"{WORDS[user].partition(' ')[0]} {share[:, -1].mean():.1%}" for user, share in s.used.items())
    return f" ({by})" if by else ""


def _svg(strips: list[Strip]) -> str:
    """One row of pictures per map, one column per design."""
    designs = list(dict.fromkeys(s.design for s in strips))
    across = {design: LEFT + i * (WIDTH + BETWEEN) for i, design in enumerate(designs)}
    scale = TALLEST / max(s.nbytes for s in strips)
    parts = [svg.words(x, 14, design, 'font-weight="bold"') for design, x in across.items()]
    y = 20.0
    for name in SHOWN:
        heights = [(s, max(s.nbytes * scale, LEAST)) for s in strips if s.name == name]
        if not heights:
            continue
        tallest = max(height for _, height in heights)
        parts.append(svg.words(0, y + 12, name, SMALL))
        parts += [_one(s, across[s.design], y + tallest - height, height) for s, height in heights]
        y += tallest + GAP
    users = [user for user in USERS if any(user in s.used for s in strips)]
    if users:
        parts += _legend({WORDS[user]: USERS[user] for user in users} | {REST: OTHER, "free": EMPTY}, y + 4)
        y += 22
    width = LEFT + len(designs) * (WIDTH + BETWEEN)
    return svg.drawing(f"Occupancy of maps over time. {_text(strips)}", width, y, parts)


def _legend(colours: Mapping[str, str], y: float) -> list[str]:
    parts, x = [], float(LEFT)
    for word, colour in colours.items():
        parts.append(svg.box(x, y, 12, 12, f'fill="{colour}" stroke="#767676"'))
        parts.append(svg.words(x + 17, y + 10, word, SMALL))
        x += 34 + 5.6 * len(word)
    return parts


def _one(s: Strip, x: float, y: float, height: float) -> str:
    data = base64.b64encode(png(shade(s.filled, s.used))).decode()
    size = f"{s.nbytes / 2**20:.0f} MiB"
    tip = f"{s.design}, {s.name}: {size}, {s.filled[:, -1].mean():.0%} occupied at {s.end_s:.3g} s{_by(s)}"
    return "".join([
        f'<g data-tip="{svg.escaped(tip)}"><image x="{x:.0f}" y="{y:.1f}" width="{WIDTH}" height="{height:.1f}" ',
        f'preserveAspectRatio="none" style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>',
        svg.box(x, y, WIDTH, height, 'fill="none" stroke="#767676"'),
        svg.words(x, y + height + 12, f"0 to {s.end_s:.3g} s, {size}", SMALL), "</g>",
    ])  # fmt: skip
