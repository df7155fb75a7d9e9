"""Map pictures: how full each stretch of each map was over the run, designs side by side, every map at one scale.

A picture is a small PNG inside the SVG, a pixel per instant and stretch: addresses grow upwards, time
runs to the right.
"""

import base64
import json
import struct
import zlib
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
FULL = np.array([0x08, 0x30, 0x6B], float)  # dark blue, told from white by lightness alone
EMPTY = np.array([0xF7, 0xFB, 0xFF], float)


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
    end_s: float


def draw(made: Made) -> list[Picture]:
    """Draw replica 0 of the first condition of each load."""
    rows = first_of_loads(made)
    first = rows.sort_values("replica", kind="stable").drop_duplicates("cell_key")
    shots = made.results.tables.read("snapshots").to_pandas()
    shots = shots[shots["map"].isin(SHOWN).to_numpy()]
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


def png(filled: NDArray[np.float64]) -> bytes:
    """Encode shares [rows, columns] of 0 to 1 as a PNG, row 0 at the bottom."""
    shade = EMPTY + (FULL - EMPTY) * np.clip(filled[::-1, :, None], 0, 1)
    pixels = np.round(shade).astype(np.uint8)
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
            found.append(Strip(str(lane["variant"]), name, sizes[name], filled, float(mine["time_ns"].max()) / 1e9))
    return found


def map_bytes(config: dict[str, Any]) -> dict[str, int]:
    """Sizes of a cell's maps: of a submap what boot carves out, of others the whole KVA."""
    machine = config["machine"]
    sized = sizing.size(machine["ram_bytes"], machine["kva_bytes"])
    carved = sizing.reservations(sized, **sizing.carving(config["maps"], machine["ram_bytes"]))
    return dict.fromkeys(SHOWN, machine["kva_bytes"]) | {part.name: part.nbytes for part in carved}


def _text(strips: list[Strip]) -> str:
    ends = ((s, s.filled[:, 0].mean(), s.filled[:, -1].mean()) for s in strips)
    return (
        "; ".join(f"{s.design} {s.name} {first:.0%} full at first, {last:.0%} at last" for s, first, last in ends) + "."
    )


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
    width = LEFT + len(designs) * (WIDTH + BETWEEN)
    return svg.drawing(f"Occupancy of maps over time. {_text(strips)}", width, y, parts)


def _one(s: Strip, x: float, y: float, height: float) -> str:
    data = base64.b64encode(png(s.filled)).decode()
    size = f"{s.nbytes / 2**20:.0f} MiB"
    tip = f"{s.design}, {s.name}: {size}, {s.filled[:, -1].mean():.0%} occupied at {s.end_s:.3g} s"
    return "".join([
        f'<g data-tip="{svg.escaped(tip)}"><image x="{x:.0f}" y="{y:.1f}" width="{WIDTH}" height="{height:.1f}" ',
        f'preserveAspectRatio="none" style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>',
        svg.box(x, y, WIDTH, height, 'fill="none" stroke="#767676"'),
        svg.words(x, y + height + 12, f"0 to {s.end_s:.3g} s, {size}", SMALL), "</g>",
    ])  # fmt: skip
