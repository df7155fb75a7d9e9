"""The report as one file: what is in it, that it needs nothing else, and that it works in a browser."""

import io
import re
import struct
import zlib

import browser
import numpy as np
import pyarrow as pa
import pytest
import report_fakes as fakes
from rich.console import Console

from kmemexp.metrics import SERIES
from kmemexp.report import ending, tables
from kmemexp.report.html import page, strips, svg, witness
from kmemexp.report.results import Results
from kmemexp.store.schema import SCHEMAS
from kmemexp.store.store import with_results

METRICS = ["kernel_map_external_frag_mean_ratio", "held_peak_bytes", "irq_device_done_p99_ns", "alloc_failures_count"]
DEADLOCK = witness.Witness(
    "freebsd4_unified, cell 0123, replica 0",
    "main on CPU 0 holding kernel_map is preempted; net waits for kernel_map (main)",
    [
        {
            "context": "main",
            "cpu": 0,
            "kind": "holds",
            "lock": "kernel_map",
            "begin_ns": 10,
            "end_ns": 100,
            "open": True,
        },
        {
            "context": "net",
            "cpu": 0,
            "kind": "waits",
            "lock": "kernel_map",
            "begin_ns": 40,
            "end_ns": 100,
            "open": True,
        },
    ],
    ["10 ns main takes kernel_map", "40 ns net <spins>"],
    100,
)


def full(made):
    """Give results series, latencies and pictures of maps."""
    lanes = made.frame[["cell_key", "replica"]].to_dict("records")
    series = [
        lane
        | {"sample": i}
        | dict.fromkeys(SERIES, 0)
        | {
            "time_ns": 10**7 * (i + 1),
            "held_bytes": 10**6 * (i + n % 3),
            "map_free_bytes": 100,
            "map_largest_run_bytes": 50 + i,
        }
        for n, lane in enumerate(lanes)
        for i in range(4)
    ]
    latency = [
        lane
        | {
            "what": what,
            "count": 5000,
            "mean_ns": 900.0,
            "p50_ns": 800.0 + n,
            "p99_ns": 5e3,
            "p999_ns": None,
            "max_ns": 2e4,
        }
        for n, lane in enumerate(lanes)
        for what in ("alloc_main", "irq_net_done")
    ]
    shots = [
        lane | {"time_ns": 10**7 * (i + 1), "map": name, "occupancy": taken}
        for lane in lanes
        for i in range(3)
        for name, taken in (
            ("kernel_map", [255, 200 - 20 * i, 0, 0]),
            ("kmem_map", [255, 200 - 20 * i, 0, 0]),
            ("kernel_map:malloc", [128, 0, 0, 0]),
        )
    ]
    caches = [
        lane | {"time_ns": 10**7, "moment": "peak", "allocator": "slub", "cache": f"kmalloc-{8 << k}",
                "object_bytes": 8 << k, "objects_count": 5, "slabs_count": 300 * (k + n % 3),
                "pages_count": 300 * (k + n % 3), "requested_bytes": 9 << k, "granted_bytes": 800_000 * k}
        for n, lane in enumerate(lanes) if lane["replica"] == 0 for k in range(20)
    ]  # fmt: skip
    given = {"series": series, "latency": latency, "snapshots": shots, "caches": caches}
    found = {name: pa.Table.from_pylist(rows, SCHEMAS[name]) for name, rows in given.items()}
    metrics = made.results.tables.read("metrics")
    results = Results.from_tables(metrics, **found)
    return made._replace(results=results)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report of everything that a report may hold, in a file."""
    root = tmp_path_factory.mktemp("results") / "made_up"
    metrics = fakes.metrics_table(fakes.grid(workloads=("<file&tree>", "pgbench")))
    fakes.write(root, metrics)
    plan = fakes.plan(root, metrics, description="Is <this> better?", metrics=METRICS)
    path = root / "all.html"
    path.write_text(page.render(plan, full(tables.make(plan, with_results(str(root)))), [DEADLOCK]), "utf-8")
    return path


@pytest.fixture(scope="module")
def text(written):
    return written.read_text("utf-8")


SECTIONS = ("answer", "verdicts", "tables", "courses", "latency", "curves", "tradeoffs", "caches", "maps", "deadlocks",
            "limits", "provenance")  # fmt: skip


def test_every_section_is_there_and_linked(text):
    for name in SECTIONS:
        assert f'<section id="{name}">' in text
        assert f'href="#{name}"' in text


def test_it_is_small_and_needs_nothing_else(text):
    assert len(text.encode()) < page.MOST_BYTES
    urls = set(re.findall(r'(?:https?:)?//[^\s"\'<>)]+', re.sub(r'xmlns(:\w+)?="[^"]+"', "", text)))
    assert not [url for url in urls if "w3.org" not in url]
    assert not re.search(r"<(link|iframe|img)\b|@import|\bsrc=", text)


def test_text_of_results_is_not_markup(text):
    assert "Is &lt;this&gt; better?" in text
    assert "<file&tree>" not in text
    assert "net &lt;spins&gt;" in text


def test_drawings_have_names_and_ids_of_their_own(text):
    drawings = re.findall(r"<svg [^>]*>", text)
    assert len(drawings) > 8
    assert all('role="img"' in one and re.search(r'aria-label="[^"]{20,}"', one) for one in drawings)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_the_table_holds_the_comparison(text):
    assert len(re.findall(r"<tr><td>.*held peak", text)) == 4 * 3
    assert "What the metrics are" in text


SETTINGS = [{"design": "dragonfly_slab", "objects.params.slab.zone_bytes": 4096 * i} for i in range(1, 20)]
ODD = {
    "a single cell": ([{}], {"baseline": {}}),
    "no axes but the design": ([{"design": d} for d in fakes.ADVANTAGE], {}),
    "scenarios of one design each": ([{"scenario": d[:9], "design": d} for d in fakes.ADVANTAGE], {"baseline": {}}),
    "many settings": ([{"design": "freebsd4"}, *SETTINGS], {}),
    "some without an axis": ([{"design": "freebsd4"}, {"design": "freebsd4", "workload.copies": 4}], {"baseline": {}}),
}


@pytest.mark.parametrize("name", ODD)
def test_results_of_any_shape_have_a_report(tmp_path, name):
    cells, changes = ODD[name]
    metrics = fakes.metrics_table(cells, replicas=2)
    fakes.write(tmp_path, metrics)
    plan = fakes.plan(tmp_path, metrics, **({"metrics": METRICS} | changes))
    made = full(tables.make(plan, with_results(str(tmp_path))))
    assert '<section id="answer">' in page.render(plan, made)


def test_a_report_of_failures_only_says_so(tmp_path):
    cells = fakes.grid(workloads=("pgbench",), kva=(fakes.MIB,))
    metrics = fakes.metrics_table(cells, replicas=1, failed=tuple((c, 0) for c in range(3)))
    fakes.write(tmp_path, metrics)
    plan = fakes.plan(tmp_path, metrics, metrics=METRICS)
    assert "failed: freebsd4 in 1 of 1 runs" in page.render(plan, tables.make(plan, with_results(str(tmp_path))))


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_apart_as_wcag_asks(scheme):
    blocks = re.findall(r":root \{([^}]+)\}", page._text("style.css"))
    colour = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[scheme]))
    words = ("better", "worse", "equivalent", "inconclusive")
    pairs = [(name, "page") for name in ("text", "quiet", "link", *words)]
    pairs += [("text", "head"), *((word, f"{word}-back") for word in words)]
    assert {
        pair: round(contrast(colour[pair[0]], colour[pair[1]]), 2)
        for pair in pairs
        if contrast(colour[pair[0]], colour[pair[1]]) < 4.5
    } == {}
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_a_picture_of_a_map_is_the_map():
    filled = np.array([[0.0, 1.0], [1.0, 0.0]])  # [stretch, instant], stretch 0 at the bottom
    png = strips.png(strips.shade(filled, {}))
    at, data = 8, b""
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        data += body if kind == b"IDAT" else b""
        at += size + 12
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(2, 7)[:, 1:].reshape(2, 2, 3)
    full, empty = (list(bytes.fromhex(colour[1:])) for colour in (strips.FULL, strips.EMPTY))
    assert (rows[0, 0] == full).all()  # the upper stretch at the first instant
    assert (rows[0, 1] == empty).all()
    assert (rows[1, 1] == full).all()


def test_a_stretch_has_the_colours_of_who_uses_it():
    one = np.array([[1.0, 1.0, 0.0]])
    zones = {"zone": np.array([[1.0, 0.5, 0.0]])}
    zone, other, empty = (
        np.array(list(bytes.fromhex(c[1:])), float) for c in (strips.USERS["zone"], strips.OTHER, strips.EMPTY)
    )
    assert strips.shade(one, zones)[0].tolist() == [
        zone.tolist(),
        np.round(zone / 2 + other / 2).tolist(),
        empty.tolist(),
    ]


def test_a_map_says_who_uses_it(text):
    assert "kmem_map: " in text
    assert re.search(r'data-tip="freebsd4, kernel_map: [^"]+occupied at [^"]+\(malloc 12.5%\)"', text)
    assert "100% full at first" not in text


def test_maps_are_drawn_at_one_scale(text):
    found = re.findall(r'data-tip="freebsd4, (\w+):[^>]+><image[^>]+? height="([\d.]+)"', text)
    heights = {name: float(height) for name, height in found}
    sizes = strips.map_bytes(fakes.CONFIG)
    assert heights["kmem_map"] / heights["kernel_map"] == pytest.approx(
        sizes["kmem_map"] / sizes["kernel_map"], abs=0.01
    )


def test_swim_lanes_show_who_holds_and_who_waits():
    drawn = witness.draw(DEADLOCK)
    assert "CPU 0 main" in drawn.svg
    assert "net waits for kernel_map from 40 ns and for ever" in drawn.svg
    assert svg.escaped(DEADLOCK.summary) in drawn.svg


def test_the_end_of_a_sweep_writes_it_and_a_rerun_misses_it(tmp_path):
    metrics = fakes.metrics_table(fakes.grid(workloads=("pgbench",)), replicas=3)
    fakes.write(tmp_path, metrics)
    plan = fakes.plan(tmp_path, metrics, report=True, metrics=METRICS)
    path = tmp_path / ending.REPORT

    def end():
        out = io.StringIO()
        ending.finish(plan, Console(file=out, width=80))
        assert f"Report: {path}" in out.getvalue()
        return path.stat().st_mtime_ns

    first = end()
    assert end() == first  # it stands
    path.unlink()
    assert end() > first
    assert len(tables.make(plan, with_results(str(tmp_path))).table)
    assert '<section id="answer">' in path.read_text("utf-8")


@pytest.fixture(scope="module")
def opened(written, tmp_path_factory):
    if browser.PROGRAM is None:
        pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium)")
    shown = browser.Page(tmp_path_factory.mktemp("profile"))
    try:
        shown.open(written)
        yield shown
    finally:
        shown.close()


def test_a_browser_has_nothing_to_complain_of(opened):
    opened.run("1")
    assert opened.problems == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "about:"))] == []


def test_marks_are_present(opened):
    assert opened.run("document.querySelectorAll('#courses svg path').length") > 20
    assert opened.run("document.querySelectorAll('#maps image').length") == 2 * 3 * 2
    assert opened.run("document.querySelectorAll('#deadlocks svg [data-tip]').length") == 2


MEANS = "[...document.querySelectorAll('.sortable tbody tr')].map(r => Number(r.cells[3].dataset.v))"


def test_the_table_sorts_by_mouse_and_keyboard(opened):
    assert opened.run("document.querySelectorAll('.sortable th button').length") == 7
    opened.run("document.querySelectorAll('.sortable th button')[3].click()")
    up = opened.run(MEANS)
    assert up == sorted(up)
    opened.run("document.querySelectorAll('.sortable th button')[3].focus()")
    opened.press("Enter", 13)
    assert opened.run(MEANS) == sorted(up, reverse=True)
    assert opened.run("document.querySelectorAll('.sortable th')[3].getAttribute('aria-sort')") == "descending"


def test_the_keyboard_reaches_the_answer(opened):
    opened.run("document.activeElement.blur(); scrollTo(0, 0)")
    opened.press("Tab", 9)
    assert opened.run("document.activeElement.className") in ("skip", "")
    reachable = opened.run("document.querySelectorAll('a[href], button, summary, [tabindex=\"0\"]').length")
    assert reachable > 20


def test_sections_are_not_blank_in_light_and_dark(opened):
    for scheme in ("light", "dark"):
        opened.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        found = {name: opened.picture(f"#{name}") for name in SECTIONS}
        assert {name: share for name, share in found.items() if share < 0.003} == {}
    assert opened.run("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 28)"
    opened.send("Emulation.setEmulatedMedia", features=[])


def test_it_prints(opened):
    printed = opened.send("Page.printToPDF", printBackground=True)
    assert len(printed["data"]) > 50_000


def test_it_fits_a_narrow_screen(opened):
    opened.send("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=False)
    assert opened.run("document.documentElement.scrollWidth") <= 430
