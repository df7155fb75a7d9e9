"""The whole tables of the sizing formulas for the i386 of 2003, and what follows from small KVA and overrides."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemexp.sim import sizing
from kmemexp.sim.sizing import Tunables

MIB = 1 << 20

# RAM MiB, maxusers, maxproc, nmbclusters, nmbufs, mb_map, vm_kmem, kmem_map (MiB), nbuf, buffer_map, clean_map (MiB),
# kmapentzone entries
MACHINES = [
    (64, 32, 532, 1024, 4096, 3.00, 21.33, 24.33, 1010, 15.78, 55.28, 2048),
    (128, 64, 1044, 1536, 6144, 4.50, 42.67, 47.16, 1483, 23.17, 63.17, 4096),
    (256, 128, 2068, 2560, 10240, 7.50, 85.33, 92.83, 2302, 35.97, 75.97, 8192),
    (512, 256, 4116, 4608, 18432, 13.50, 170.67, 184.16, 3941, 61.58, 101.58, 16384),
    (768, 384, 6164, 6656, 26624, 19.50, 200, 219.50, 5579, 87.17, 127.17, 24576),
    (1024, 384, 6164, 6656, 26624, 19.50, 200, 219.50, 7218, 112.78, 152.78, 32640),
    (2048, 384, 6164, 6656, 26624, 19.50, 200, 219.50, 12800, 200, 240, 32640),
]


def mib(nbytes):
    return round(nbytes / MIB, 2)


@pytest.mark.parametrize("row", MACHINES, ids=lambda row: f"{row[0]} MiB")
def test_sizes_follow_the_table(row):
    z = sizing.size(row[0] * MIB)
    assert row[1:] == (
        z.maxusers,
        z.maxproc,
        z.nmbclusters,
        z.nmbufs,
        mib(z.mb_map_bytes),
        mib(z.vm_kmem_bytes),
        mib(z.kmem_map_bytes),
        z.nbuf,
        mib(z.buffer_map_bytes),
        mib(z.clean_map_bytes),
        z.map_entries,
    )


@pytest.mark.parametrize(
    ("ram", "reserved", "severe", "minimum", "target"),
    [(64, 103, 143, 183, 835), (256, 167, 330, 493, 2139), (512, 252, 579, 906, 3876), (1024, 423, 1077, 1732, 7351)],
)
def test_page_reserves_follow_the_table(ram, reserved, severe, minimum, target):
    assert sizing.page_reserves(ram * MIB) == (2, 34, reserved, severe, minimum, target)


def test_page_reserves_of_a_very_small_machine():
    assert sizing.page_reserves(4 * MIB) == (2, 34, 75, 77, 79, 233)


def test_layout_constants():
    assert sizing.KVA_BYTES == 1021 * MIB + 4096
    assert sizing.KVA_BYTES - sizing.KVA_BYTES_SMP == 4 * MIB
    assert (sizing.VM_MAX_KERNEL_ADDRESS - sizing.KERNBASE) // 4096 == 261120
    assert sizing.EXEC_MAP_SIZE == 1_245_184


def test_interrupt_zones_of_a_512_mib_machine():
    zones = {z.name: z for z in sizing.size(512 * MIB).interrupt_zones}
    assert (zones["PV ENTRY"].item_bytes, zones["PV ENTRY"].entries) == (28, 200 * 4116 + 131072)
    assert zones["PV ENTRY"].kva_bytes / MIB == pytest.approx(25.5, abs=0.05)
    assert zones["SWAPMETA"].kva_bytes == 10 * MIB
    assert zones["KMAP ENTRY"].kva_bytes == 768 * 1024
    assert zones["tcpcb"].kva_bytes / MIB == pytest.approx(4.5, abs=0.05)
    assert zones["syncache"].entries == 15359
    for name in ("socket", "udpcb", "ripcb", "divcb"):
        assert (zones[name].item_bytes, zones[name].entries) == (192, 8232)
        assert zones[name].kva_bytes / MIB == pytest.approx(1.5, abs=0.05)


def test_limits_of_a_512_mib_machine():
    z = sizing.size(512 * MIB)
    assert (z.maxproc, z.maxfiles, z.maxsockets, z.vnodes) == (4116, 8232, 8232, 36884)
    assert z.callouts == 16 + 4116 + 8232


def test_swap_metadata_is_capped():
    zones = {z.name: z for z in sizing.size(4096 * MIB).interrupt_zones}
    assert zones["SWAPMETA"].entries == (32 << 20) // 144


def test_small_kva_caps_buffers_and_map_entries():
    z = sizing.size(2048 * MIB, 128 * MIB)
    assert z.nbuf == 128 * MIB // (2 * 16384)
    assert z.map_entries == (128 * MIB - (0xC0000000 - 0xBFEFF000)) // 4096 // 8


def test_overrides_and_what_follows_from_them():
    z = sizing.size(128 * MIB, given=Tunables(maxusers=100, nmbclusters=4096, nbuf=500, vm_kmem_bytes=1 << 40))
    assert z.maxproc == 20 + 16 * 100
    assert (z.nmbufs, z.mb_map_bytes) == (16384, 16384 * 256 + 4096 * 2048)
    assert (z.buffer_map_bytes, z.nswbuf) == (500 * 16384, 125)
    assert z.vm_kmem_bytes == 2 * 128 * MIB
    assert sizing.size(128 * MIB, given=Tunables(nmbclusters=4096, nmbufs=100)).nmbufs == 8192
    assert sizing.size(128 * MIB, given=Tunables(maxproc=10**6)).maxproc == 128 * MIB // 4096 // 12
    given = Tunables(
        maxfiles=9999,
        mb_map_bytes=5000,
        kmem_map_bytes=1,
        buffer_map_bytes=4097,
        clean_map_bytes=3,
        exec_map_bytes=2,
        map_entries=77,
    )
    z = sizing.size(128 * MIB, given=given)
    assert (z.maxfiles, z.maxsockets, z.map_entries) == (9999, 9999, 77)
    assert (z.mb_map_bytes, z.kmem_map_bytes, z.buffer_map_bytes, z.clean_map_bytes, z.exec_map_bytes) == (
        (8192, 4096, 8192, 4096, 4096)
    )


def test_boot_order_split():
    z = sizing.size(128 * MIB)
    carved = sizing.reservations(z, split=True)
    assert [(r.name, r.parent) for r in carved] == [
        ("kernel image", "kernel_map"),
        ("kmemusage", "kernel_map"),
        ("kmem_map", "kernel_map"),
        ("KMAP ENTRY", "kernel_map"),
        ("PV ENTRY", "kernel_map"),
        ("clean_map", "kernel_map"),
        ("buffer_map", "clean_map"),
        ("pager_map", "clean_map"),
        ("exec_map", "kernel_map"),
        ("mb_map", "kmem_map"),
        *((name, "kernel_map") for name in ("socket", "udpcb", "tcpcb", "syncache", "ripcb", "divcb", "SWAPMETA")),
    ]
    assert {r.name: r.nbytes for r in carved}["kmemusage"] == -(-z.kmem_map_bytes // 4096 * 4 // 4096) * 4096


def test_boot_order_unified():
    z = sizing.size(128 * MIB)
    carved = sizing.reservations(z, split=False, image_bytes=4 * MIB)
    assert carved[0].nbytes == 4 * MIB
    assert "kmem_map" not in {r.name for r in carved}
    assert ("mb_map", z.mb_map_bytes, "kernel_map") in carved
    few = sizing.reservations(z, split=False, kmapentzone=False, network_zones=False)
    names = [r.name for r in few]
    submaps = ["clean_map", "buffer_map", "pager_map", "exec_map", "mb_map"]
    assert names == ["kernel image", "kmemusage", "PV ENTRY", *submaps, "SWAPMETA"]
    assert "KMAP ENTRY" in {r.name for r in sizing.reservations(z, split=False, network_zones=False)}


def test_shortfall_names_the_biggest_parts():
    z = sizing.size(1024 * MIB, 256 * MIB)
    text = sizing.shortfall(z, sizing.reservations(z, split=True))
    assert text.startswith("KVA of 256.0 MiB is smaller")
    assert text.index("kmem_map 219.5 MiB") < text.index("clean_map 152.8 MiB") < text.index("PV ENTRY 39.9 MiB")
    z = sizing.size(512 * MIB, given=Tunables(kmem_map_bytes=12 * MIB))
    assert sizing.shortfall(z, sizing.reservations(z, split=True)) == (
        "kmem_map of 12.0 MiB is smaller than what lies in it from boot (13.5 MiB): mb_map 13.5 MiB"
    )
    z = sizing.size(128 * MIB, 256 * MIB)
    assert sizing.shortfall(z, sizing.reservations(z, split=True)) == ""


@given(ram=st.integers(4, 4096), kva=st.integers(16, 1021), split=st.booleans())
def test_everything_is_whole_pages_and_consistent(ram, kva, split):
    z = sizing.size(ram * MIB, kva * MIB)
    carved = sizing.reservations(z, split)
    assert all(r.nbytes > 0 and r.nbytes % 4096 == 0 for r in carved)
    assert z.clean_map_bytes == z.buffer_map_bytes + z.pager_map_bytes
    assert z.kmem_map_bytes - z.mb_map_bytes <= z.vm_kmem_bytes
    assert (sizing.needed_bytes(carved) <= kva * MIB) == (sizing.shortfall(z, carved) == "")


def test_importing_it_loads_no_numba_or_numpy():
    code = "import sys, kmemexp.sim.sizing; print(any(m in sys.modules for m in ('numpy', 'numba')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
