"""Address spaces of kernels on machines, and what allocators must cover of them."""

import pytest

from kmemexp.parts import spaces

GIB, TIB = 1 << 30, 1 << 40
AREAS = {"amd64": {"kernel_map": 32 * TIB}}


def machine(**given):
    return {"arch": "amd64", "ram_bytes": 64 * GIB, "kva_bytes": 128 * TIB} | given


def maps(layout="direct", **given):
    return {"layout": layout, "image_bytes": 8 << 20, "areas": AREAS} | given


def test_a_direct_map_comes_on_top_of_what_the_layout_gives_kernel_map():
    assert spaces.kva_bytes(maps(), machine()) == 64 * GIB + (8 << 20) + 32 * TIB
    assert spaces.kva_bytes(maps("unified"), machine()) == (8 << 20) + 32 * TIB


@pytest.mark.parametrize("given", [{"arch": "arm64"}, {"kva_bytes": TIB}])
def test_other_architectures_and_smaller_machines_have_all_of_their_kva(given):
    assert spaces.kva_bytes(maps(), machine(**given)) == machine(**given)["kva_bytes"]


@pytest.mark.parametrize(
    ("name", "layout", "covered"),
    [
        ("slub", "direct", 64 * GIB),
        ("slub", "unified", 512 * GIB),
        ("zalloc", "direct", 512 * GIB),  # interrupt zones have KVA of their own
        ("uma_today", "direct", 512 * GIB),  # knows of both
    ],
)
def test_allocators_cover_the_direct_map_or_all_they_may_use(name, layout, covered):
    assert spaces.covered_bytes(name, maps(layout), machine(kva_bytes=512 * GIB)) == covered


@pytest.mark.parametrize(
    ("given", "mib"),
    [({"arch": "i386", "kva_bytes": 1 * GIB}, 4), ({"kva_bytes": 1 * GIB}, 2), ({"arch": "arm64"}, 2), ({}, 2)],
)
def test_superpages_by_architecture(given, mib):
    assert spaces.superpage_bytes(machine(**given)) == mib << 20
