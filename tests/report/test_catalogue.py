"""What designs there are: every file of conf/design is listed with what it is, its parts, and what these leave out."""

import functools
import io
from pathlib import Path

import pytest
from rich.console import Console

import kmemexp
from kmemexp.config import files
from kmemexp.parts import finding
from kmemexp.report import catalogue

DESIGNS = sorted(path.stem for path in (files.conf_dir() / "design").glob("*.yaml"))
WANTED = {
    "freebsd4", "freebsd4_unified", "dragonfly_2003aug25", "dragonfly_2003oct", "dragonfly_2003aug27", "mail2003",
    "freebsd5_uma", "freebsd5_uma_unified", "freebsd_mbuma", "freebsd15", "illumos", "linux_slub", "dragonfly_2020",
    "linux_6_12", "linux_6_18", "linux_7_1", "proactive", "dragonfly_2005", "dragonfly_2010", "dragonfly_2021",
    "mail2003_bare", "illumos_amd64",
}  # fmt: skip
built_in = functools.cache(kmemexp.designs)
PARTS = [
    *(("allocators", name) for name in finding.parts("allocators")),
    *(("arenas", name) for name in finding.parts("arenas")),
]


def test_every_design_is_listed_with_its_parts() -> None:
    listed = built_in()
    assert listed["design"].tolist() == DESIGNS
    assert set(DESIGNS) >= WANTED
    assert (listed["title"].str.len() > 5).all()
    assert (listed["about"].str.len() > 20).all()
    for row in listed.to_dict("records"):
        assert {row["malloc"], row["zone"], row["mbuf"], row["arena"]} <= set(row["models"])
        assert all(row["models"].values())


@pytest.mark.parametrize(("room", "name"), PARTS)
def test_a_part_says_what_it_models_and_what_it_leaves_out(room: str, name: str) -> None:
    said = catalogue.part(room, name)
    assert len(said.models) > 40
    assert len(said.leaves_out) > 20


def test_a_users_own_design_is_listed_too() -> None:
    listed = kmemexp.designs(str(Path(__file__).parents[2] / "experiments" / "own_allocator"))
    (own,) = listed[listed["design"] == "eager_slab"].to_dict("records")
    assert "caches per CPU" in own["leaves_out"]["eager_slab"]
    assert set(DESIGNS) < set(listed["design"])


def test_all_that_a_part_leaves_out_is_shown_not_its_first_list_only() -> None:
    mbufs = "objcaches that mbufs had before the slab allocator are left out"
    assert mbufs in catalogue.part("allocators", "kmalloc_obj").leaves_out
    vmem = catalogue.part("arenas", "vmem").leaves_out
    assert "second bucket of a CPU" in vmem
    assert "superpage reservations" in vmem


def test_kinds_are_shown_with_their_allocator_map_and_limit() -> None:
    served = [
        catalogue.Served("mbuf", "mbuf", "mbuf", "mb_map", 18432, own_kva=False),
        catalogue.Served("socket", "zone", "zalloc", "kernel_map", 8232, own_kva=True),
        catalogue.Served("tcpcb", "zone", "zalloc", "kernel_map", 8232, own_kva=True),
        catalogue.Served("file", "malloc", "buckets", "kmem_map", 8 << 20, own_kva=False),
        catalogue.Served("large", "malloc", "buckets", "kmem_map", 8 << 20, own_kva=False, held=False),
        catalogue.Served("pipe_buffer", "kva", "", "pipe_map", 8 << 20, own_kva=False),
    ]
    frame = built_in()
    console = Console(width=200, record=True, file=io.StringIO())
    catalogue.show(frame[frame["design"] == "freebsd4"], console, {"freebsd4": served})
    shown = console.export_text()
    assert "mbuf: mbuf, mb_map, up to 18,432" in shown
    assert "socket, tcpcb: zalloc, kernel_map, up to 8,232, KVA of its own" in shown
    assert "file: buckets, kmem_map, the type up to 8MiB" in shown
    assert "large: buckets, kmem_map, types, here not told apart, up to 8MiB" in shown
    assert "pipe_buffer: the map itself, pipe_map, up to 8MiB" in shown
