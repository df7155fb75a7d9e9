"""What designs there are: every file of conf/design is listed with what it is, its parts, and what these leave out."""

from pathlib import Path

import pytest

import kmemexp
from kmemexp.config import files
from kmemexp.parts import finding
from kmemexp.report import catalogue

DESIGNS = sorted(path.stem for path in (files.conf_dir() / "design").glob("*.yaml"))
WANTED = {
    "freebsd4", "freebsd4_unified", "dragonfly_nokmem", "dragonfly_slab", "dragonfly_slab_v1", "dragonfly_percpu",
    "freebsd5_uma", "freebsd5_uma_unified", "freebsd_mbuma", "freebsd_vmem", "illumos", "linux_slub", "dragonfly_2020",
    "linux_6_12", "linux_6_18", "linux_7_1", "proactive",
}  # fmt: skip
PARTS = [
    *(("allocators", name) for name in finding.parts("allocators")),
    *(("arenas", name) for name in finding.parts("arenas")),
]


def test_every_design_is_listed_with_its_parts() -> None:
    listed = kmemexp.designs()
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
