"""The whole tables of the sizing formulas for the i386 of 2003, and what follows from small KVA and overrides."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemexp.parts.spaces import kva_bytes
from kmemexp.sim import sizing
from kmemexp.sim.sizing import rules

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40

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
    assert (rules.VM_MAX_KERNEL_ADDRESS - rules.KERNBASE) // 4096 == 261120
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


def test_one_tunable_moves_all_that_it_moves_in_the_kernel():
    z = sizing.size(
        128 * MIB, tunables={"maxusers": 100, "nmbclusters": 4096, "nbuf": 500, "vm_kmem_size_bytes": 1 << 40}
    )
    assert z.maxproc == 20 + 16 * 100
    assert (z.nmbufs, z.mb_map_bytes) == (16384, 16384 * 256 + 4096 * 2048)
    assert (z.buffer_map_bytes, z.nswbuf) == (500 * 16384, 125)
    assert z.vm_kmem_bytes == 2 * 128 * MIB
    assert z.kmem_map_bytes == z.vm_kmem_bytes + z.mb_map_bytes
    assert sizing.size(128 * MIB, tunables={"nmbclusters": 4096, "nmbufs": 100}).nmbufs == 8192
    assert sizing.size(128 * MIB, tunables={"maxproc": 10**6}).maxproc == 128 * MIB // 4096 // 12
    assert sizing.size(128 * MIB, tunables={"maxfiles": 9999}).maxsockets == 9999


def test_mbuf_clusters_of_freebsd4_by_hand():
    z = sizing.size(512 * MIB, tunables={"nmbclusters": 32768})
    assert (z.nmbufs, mib(z.mb_map_bytes), mib(z.kmem_map_bytes)) == (131072, 96, 266.66)
    z = sizing.size(512 * MIB, tunables={"nmbclusters": 32768, "nmbufs": 1000})
    assert (z.nmbufs, mib(z.mb_map_bytes)) == (65536, 80)
    assert mib(sizing.size(2048 * MIB, tunables={"vm_kmem_size_bytes": 400 * MIB}).vm_kmem_bytes) == 400
    assert mib(sizing.size(64 * MIB, tunables={"vm_kmem_size_bytes": 200 * MIB}).vm_kmem_bytes) == 128


# RAM MiB, nmbclusters, nmbufs of DragonFly 2003, mb_map MiB there, nmbufs of 2005 to 2010, limit of a malloc type MiB
DRAGONFLY = [
    (64, 1024, 4096, 3.0, 2048, 6.4),
    (128, 1536, 6144, 4.5, 3072, 12.8),
    (256, 2560, 10240, 7.5, 5120, 25.6),
    (512, 4608, 18432, 13.5, 9216, 51.2),
    (1024, 6656, 26624, 19.5, 13312, 102.1),
]


@pytest.mark.parametrize("row", DRAGONFLY, ids=lambda row: f"{row[0]} MiB")
def test_mbufs_of_dragonfly_have_the_limits_of_their_year(row):
    ram, clusters, mbufs_2003, mb_map, mbufs_later, type_limit = row
    old = sizing.size(ram * MIB, kernel="dragonfly_2003")
    assert (old.nmbclusters, old.nmbufs, mib(old.mb_map_bytes)) == (clusters, mbufs_2003, mb_map)
    for kernel in ("dragonfly_2005", "dragonfly_2010"):
        z = sizing.size(ram * MIB, kernel=kernel)
        assert (z.nmbclusters, z.nmbufs, z.mb_map_bytes) == (clusters, mbufs_later, 0)
        assert round(z.malloc_type_bytes / MIB, 1) == type_limit
    assert sizing.size(ram * MIB, kernel="dragonfly_2010").maxfiles == 16 * old.maxproc


# RAM GiB, maxusers, maxproc, maxfiles, nmbclusters, jumbo clusters, nmbufs, nbuf, buffer_map GiB
DRAGONFLY_2020 = [
    (4, 512, 8212, 131392, 33360, 8340, 148072, 12747, 0.78),
    (16, 2048, 32788, 524608, 131664, 32916, 590440, 52069, 3.18),
    (64, 8192, 131092, 2097472, 524880, 131220, 2359912, 209355, 12.78),
    (256, 32768, 524308, 8388928, 2097744, 524436, 9437800, 838501, 51.18),
]


@pytest.mark.parametrize("row", DRAGONFLY_2020, ids=lambda row: f"{row[0]} GiB")
def test_limits_of_dragonfly_2020(row):
    z = sizing.size(row[0] * GIB, 8 * TIB, "dragonfly_2020")
    assert row[1:7] == (z.maxusers, z.maxproc, z.maxfiles, z.nmbclusters, *z.jumbo, z.nmbufs)
    assert (z.nbuf, round(z.buffer_map_bytes / GIB, 2)) == row[7:]
    assert z.exec_map_bytes == z.mb_map_bytes == 0


# RAM MiB, nmbclusters, nmbufs, the two submaps MiB, kmem_map MiB of 2003, of mbuma with at most 200 and 320 MiB
FREEBSD_5 = [
    (64, 3072, 6144, 7.5, 28.85, 24, 24),
    (128, 5120, 10240, 12.5, 55.19, 42.67, 42.67),
    (256, 9216, 18432, 22.5, 107.88, 85.33, 85.33),
    (512, 17408, 34816, 42.5, 213.25, 170.67, 170.67),
    (1024, 25600, 51200, 62.5, 262.62, 200, 320),
]


@pytest.mark.parametrize("row", FREEBSD_5, ids=lambda row: f"{row[0]} MiB")
def test_mbufs_of_freebsd_5_have_rules_of_their_own(row):
    ram, clusters, mbufs, submaps, kmem, of_200, of_320 = row
    z = sizing.size(ram * MIB, kernel="freebsd5")
    assert (z.nmbclusters, z.nmbufs, mib(z.mb_map_bytes)) == (clusters, mbufs, submaps)
    assert mib(z.kmem_map_bytes) == pytest.approx(kmem, abs=0.01)
    assert z.pipe_map_bytes == min(max(512 * 1024, ram * MIB // 64), sizing.KVA_BYTES // 64 // 4096 * 4096)
    z = sizing.size(ram * MIB, kernel="freebsd_mbuma")
    assert (z.nmbclusters, z.nmbufs, mib(z.vm_kmem_bytes)) == (clusters, 0, of_200)
    most = {"vm_kmem_size_max_bytes": 320 * MIB}
    assert mib(sizing.size(ram * MIB, kernel="freebsd_mbuma", tunables=most).vm_kmem_bytes) == of_320


def test_clusters_push_vm_kmem_size_of_mbuma_up_to_its_maximum():
    z = sizing.size(512 * MIB, kernel="freebsd_mbuma", tunables={"nmbclusters": 65536})
    assert mib(z.kmem_map_bytes) == 200


# RAM GiB, nbuf, buffers MiB, clean range GiB, pipe_map MiB, array of vm_page MiB, maxusers, maxproc, maxfiles
FREEBSD_15 = [
    (4, 26878, 420.0, 1.410, 64, 104, 592, 9492, 131072),
    (16, 105522, 1648.8, 2.610, 256, 416, 1360, 21780, 524288),
    (64, 105931, 1655.2, 2.616, 1024, 1664, 4432, 70932, 2097152),
    (256, 105931, 1655.2, 2.616, 4096, 6656, 16720, 99999, 8388608),
]


@pytest.mark.parametrize("row", FREEBSD_15, ids=lambda row: f"{row[0]} GiB")
def test_what_boot_of_freebsd_15_carves_out(row):
    z = sizing.size(row[0] * GIB, 2 * TIB, "freebsd_15")
    assert row[1:4] == (z.nbuf, round(z.buffer_map_bytes / MIB, 1), round(z.clean_map_bytes / GIB, 3))
    assert row[4:] == (z.pipe_map_bytes // MIB, z.page_array_bytes // MIB, z.maxusers, z.maxproc, z.maxfiles)
    assert z.soft_limit_bytes == row[0] * GIB
    for cpus in (8, 32, 64):
        z = sizing.size(row[0] * GIB, 2 * TIB, "freebsd_15", cpus=cpus)
        assert z.exec_map_bytes == cpus * 4_227_072 + 262_144


# RAM MiB, nmbclusters, jumbop, jumbo9, jumbo16, nmbufs
NETWORK_15 = [
    (128, 8192, 4096, 1213, 682, 52428),
    (4096, 262144, 131072, 38836, 21845, 1677721),
    (16384, 1048576, 524288, 155344, 87381, 6710886),
    (65536, 4194304, 2097152, 621378, 349525, 26843545),
    (262144, 16777216, 8388608, 2485513, 1398101, 107374182),
]


@pytest.mark.parametrize("row", NETWORK_15, ids=lambda row: f"{row[0]} MiB")
def test_limits_of_mbufs_of_freebsd_15(row):
    z = sizing.size(row[0] * MIB, 2 * TIB, "freebsd_15")
    assert (z.nmbclusters, *z.jumbo, z.nmbufs) == row[1:]


def test_page_thresholds_of_the_kernels_of_today():
    of_4, of_16 = (sizing.page_reserves(n * GIB, "dragonfly_2020") for n in (4, 16))
    assert (of_4.minimum, of_4.reserved, of_4.severe, of_4.interrupt_free_min) == (5306, 2660, 2653, 670)
    assert (of_16.minimum, of_16.reserved, of_16.severe, of_16.interrupt_free_min) == (21035, 10524, 10517, 2636)
    rows = {4: (1431, 6672, 4051, 22395), 16: (5527, 26497, 16012, 89407), 64: (21911, 105795, 63853, 357447),
            256: (87447, 422990, 255218, 1429619)}  # fmt: skip
    for ram, row in rows.items():
        z = sizing.page_reserves(ram * GIB, "freebsd_15")
        assert (z.reserved, z.minimum, z.severe, z.target) == row


# GiB of RAM, and of the heap: 2047 (with 512 GiB of RAM 4607) less page_t's and their hash, segkp, segkvmm, segzio,
# devices and segmap.
ILLUMOS = {
    4: 2047 - (124 / 1024 + 2 + 16 + 6 + 1 + 1 / 16),
    64: 2047 - (1984 / 1024 + 2 + 256 + 96 + 1 + 1 / 16),
    256: 2047 - (7936 / 1024 + 2 + 1024 + 384 + 1 + 1 / 16),
    512: 4607 - (15872 / 1024 + 2 + 2048 + 768 + 1 + 1 / 16),
}


@pytest.mark.parametrize("ram", ILLUMOS)
def test_the_heap_of_illumos_is_what_the_other_segments_leave(ram):
    heap = sizing.KERNELS["illumos"].heap(ram * GIB)
    assert heap == pytest.approx(ILLUMOS[ram] * GIB, abs=4 * MIB)
    assert heap >= 1.5 * ram * GIB  # startup_memlist() promises so much
    lots = ram * GIB // 4096 // 64
    z = sizing.page_reserves(ram * GIB, "illumos")
    assert (z.minimum, z.severe, z.reserved, z.interrupt_free_min) == (lots, lots // 2, lots // 4, lots // 8)


def test_the_kernel_of_dragonfly_2020_has_sixteen_slots_of_the_topmost_page_table():
    maps = {"kernel": "dragonfly_2020", "image_bytes": 8 * MIB, "layout": "unified"}
    machine = {"arch": "amd64", "ram_bytes": 64 * GIB, "kva_bytes": 128 * 1024 * GIB}
    assert kva_bytes(maps, machine) == 16 * 512 * GIB - 16 * MIB
    assert kva_bytes(maps, machine | {"kva_bytes": 1021 * MIB}) == 1021 * MIB


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
    z = sizing.size(512 * MIB)._replace(kmem_map_bytes=12 * MIB)
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
