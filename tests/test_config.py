"""The cell's identity, sizes, the checks of single nodes, and where the configuration files are."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kmemexp import metrics, values
from kmemexp.config import cell, checks, design, files
from kmemexp.config import schema as config
from kmemexp.errors import ConfigError
from kmemexp.sim import sizing

CELL = {
    "design": {"name": "freebsd4"},
    "maps": {"layout": "split", "arena": "vm_map", "entries": "kmapentzone", "image_bytes": 8388608, "lock": "sleep",
             "submaps": list(sizing.SUBMAPS), "reserves": list(sizing.RESERVES), "reclaim": False, "params": {}},
    "objects": {"malloc": "buckets", "zone": "zalloc", "mbuf": "mbuf", "kinds": {}, "params": {}, "locks": {}},
    "machine": {"cpus": 2, "threads": 4, "domains": 1, "ram_bytes": 134217728, "kva_bytes": 268435456},
    "workload": {
        "name": "filetree",
        "source": "trace",
        "trace": "filetree",
        "copies": 2,
        "shift_s": 1.0,
        "window_s": 0,
    },
    "cost": {"name": "none"},
    "interrupts": {
        "model": "spl", "nested": True, "big_lock": True, "would_sleep": "block", "on_deadlock": "stop", "rate_hz":
        None, "clock_allocates": False, "depth": 32, "queue": 64, "sources": {},
    },
    "memory": {"limited": False},
    "sample": {"points": 96, "snapshots": 8, "bins": 256},
    "seed": 0,
    "policy": {"name": "none", "parts": [], "trim_s": 0.0, "watch_s": 0.0, "floor_bytes": 0},
    "stability": {"kind": ""},
}  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def shuffled(value):
    if isinstance(value, dict):
        return {k: shuffled(value[k]) for k in reversed(value)}
    return [shuffled(v) for v in value] if isinstance(value, list) else value


# The key of a cell.


def test_key_is_what_results_on_disk_are_found_by():
    """Golden: whoever changes this value makes every stored result unreachable, and must raise a version in cell.py."""
    assert cell.cell_key(CELL) == "802b7cc512093059f1a0e05090c136f7"


def test_canonical_form():
    assert cell.canonical({"b": 1.0, "a": [True, None, 2.5, "é"]}) == '{"a":[true,null,2.5,"\\u00e9"],"b":1}'


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_key_does_not_depend_on_the_order_of_keys(tree):
    assert cell.cell_key(shuffled(tree)) == cell.cell_key(tree)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_canonical_form_is_json_of_the_same_value(tree):
    text = cell.canonical(tree)
    assert json.loads(text) == tree
    assert cell.canonical(json.loads(text)) == text
    assert cell.key_of(text) == cell.cell_key(tree)


@pytest.mark.parametrize("path", [("seed",), ("machine", "cpus"), ("sample", "bins"), ("workload", "copies")])
def test_key_depends_on_every_value(path):
    changed = json.loads(json.dumps(CELL))
    place = changed
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] += 1
    assert cell.cell_key(changed) != cell.cell_key(CELL)


def test_key_depends_on_the_model_version(monkeypatch):
    before = cell.cell_key(CELL)
    monkeypatch.setattr(cell, "MODEL_VERSION", cell.MODEL_VERSION + 1)
    assert cell.cell_key(CELL) != before


def test_no_value_that_json_cannot_hold():
    with pytest.raises(ValueError, match="JSON"):
        cell.canonical({"a": float("nan")})


def test_cell_imports_nothing_heavy():
    code = "import sys, kmemexp.config.cell; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"hydra", "omegaconf", "numpy", "pandas", "numba", "ray", "rich"} & set(found)


# Sizes.


@pytest.mark.parametrize(
    ("text", "size"),
    [(4096, 4096), ("4096", 4096), ("16k", 16384), ("16K", 16384), ("16KiB", 16384), ("128MiB", 128 << 20),
     ("128 MB", 128 << 20), ("1GiB", 1 << 30), ("1.5GiB", 3 << 29), ("2T", 2 << 40), ("7B", 7), (4096.0, 4096)],
)  # fmt: skip
def test_byte_count(text, size):
    assert values.byte_count("key", text) == size


@pytest.mark.parametrize("text", ["", "k", "1x", "-1", "1.5", "0.3k", "1e3", "16kk", True, None, [1], 1.5])
def test_no_byte_count(text):
    with pytest.raises(ConfigError, match=r"machine\.kva_bytes=.*128MiB"):
        values.byte_count("machine.kva_bytes", text)


@given(st.integers(1, 1023), st.sampled_from([0, 10, 20, 30]))
def test_size_text_reads_back(number, shift):
    assert values.byte_count("key", values.size_text(number << shift)) == number << shift


# Normal form and checks.


@pytest.mark.parametrize("node", cell.NODES)
def test_normal_form_is_left_alone(node):
    once = checks.check_node(node, CELL[node])
    assert checks.check_node(node, once) == once
    assert once == CELL[node] if node != "workload" else once == CELL[node] | {"digest": once["digest"]}


def test_every_node_has_a_check():
    assert set(checks.CHECKS) == set(cell.NODES)


def test_what_does_not_change_the_simulation_is_dropped():
    assert checks.check_node("design", {"name": "a", "title": "A design"}) == {"name": "a"}
    objects = CELL["objects"] | {"params": {"dfly_slab": {"slide": 4}, "buckets": {}}}
    assert checks.check_node("objects", objects) == CELL["objects"]


def test_sizes_become_integers_in_the_workload_too():
    kind = {"class": "malloc", "rate_hz": 1.0, "size": {"law": "fixed", "bytes": "2k"},
            "lifetime": {"law": "exponential", "mean_s": 1.0}}  # fmt: skip
    assert values.sizes("workload", {"kinds": {"a": kind}})["kinds"]["a"]["size"] == {"law": "fixed", "bytes": 2048}


@pytest.mark.parametrize(
    ("node", "change", "message"),
    [
        ("maps", {"layout": "both"}, "maps.layout=both"),
        ("maps", {"entries": "none"}, "maps.entries=none"),
        ("maps", {"image_bytes": "-1"}, "maps.image_bytes"),
        ("machine", {"cpus": True}, "machine.cpus=True"),
        ("machine", {"ram_bytes": None}, "machine.ram_bytes=None"),
        ("objects", {"zone": "absent"}, "objects.zone=absent"),
        ("sample", {"bins": 0}, "sample.bins=0"),
        ("workload", {"source": "dice"}, "workload.source"),
    ],
)
def test_impossible_value(node, change, message):
    with pytest.raises(ConfigError, match=message):
        checks.check_node(node, CELL[node] | change)


def test_kva_must_hold_what_boot_carves_out_of_it():
    maps, objects, machine = CELL["maps"], CELL["objects"], CELL["machine"]
    design.check_space(maps, objects, machine, ())
    small = machine | {"kva_bytes": 128 << 20}
    with pytest.raises(ConfigError, match=r"machine\.kva_bytes=128MiB.*kmem_map.*machine\.ram_bytes=128MiB"):
        design.check_space(maps, objects, small, ())
    unified = maps | {"layout": "unified", "entries": "reservation"}
    design.check_space(unified, objects | {"zone": "dfly_slab"}, small, ())


# The files.


@pytest.fixture
def conf() -> Path:
    return files.conf_dir()


def test_every_file_says_what_it_is(conf):
    for path in sorted(conf.rglob("*.yaml")):
        comment = [line for line in path.read_text().splitlines() if line.startswith("#") and "@package" not in line]
        assert comment, f"{path} has no comment"


def test_every_metric_of_a_sweep_exists(conf):
    for path in sorted((conf / "sweep").glob("*.yaml")):
        for name in yaml.safe_load(path.read_text())["sweep"].get("metrics", ()):
            values.one_of(path.name, name, metrics.NAMES)


def test_conf_is_found_in_an_installed_package(tmp_path):
    """In a wheel conf/ lies inside the package; the same files, from any current directory."""
    root = Path(config.__file__).parents[2]
    ignore = shutil.ignore_patterns("__pycache__", "data")
    shutil.copytree(root / "kmemexp", tmp_path / "site" / "kmemexp", ignore=ignore)
    shutil.copytree(files.conf_dir(), tmp_path / "site" / "kmemexp" / "conf")
    code = "from kmemexp.config import files; print(files.conf_dir())"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert Path(run.stdout.strip()) == (tmp_path / "site" / "kmemexp" / "conf").resolve()


@pytest.mark.parametrize(
    ("place", "name"), [("malloc", "zalloc"), ("malloc", "mbuf"), ("zone", "mbuf"), ("mbuf", "zalloc")]
)
def test_an_allocator_is_refused_what_it_cannot_serve(place, name):
    with pytest.raises(ConfigError, match=f"objects.{place}={name}: {name} serves"):
        checks.check_node("objects", CELL["objects"] | {place: name})
