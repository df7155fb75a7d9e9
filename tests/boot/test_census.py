"""The census at boot of each BSD design: maps, reserved KVA, zones and limits are those of its kernel's tables."""

import json

import numpy as np
import pytest

from kmemexp.boot import census
from kmemexp.boot.machine import looks
from kmemexp.boot.tasks import with_upkeep
from kmemexp.errors import ConfigError
from kmemexp.planning.plan import plan_from
from kmemexp.sim.sizing import KERNELS as KERNELS_OF_TODAY
from kmemexp.sim.slots import TEND_WATCH
from kmemexp.workload import roles, synthetic

MIB, PAGE = 1 << 20, 4096
IMAGE = 8.0
SMALL = ["machine=i386_512m", "workload=server2003"]
KVA = 1021 * MIB


def cell(*overrides: str) -> dict:
    (plan,) = plan_from([*SMALL, *overrides])
    return json.loads(plan.cells["config"].iloc[0])


def carved(config: dict) -> dict[str, float]:
    return {name: round(nbytes / MIB, 2) for name, nbytes, _ in census.maps(config)}


def served(config: dict) -> dict[str, census.Served]:
    rows = config["workload"]["kinds"]
    kinds = synthetic.kinds_table(tuple(sorted(rows)), [rows[name] for name in sorted(rows)])
    return {row.kind: row for row in census.served(config, roles.cast(kinds, config["roles"]))}


# On 512 MiB of RAM, in MiB. Clean range, KMAP ENTRY and swap of i386 kernels from 2003 to 2010 are alike.
CLEAN = {"clean_map": 101.58, "buffer_map": 61.58, "pager_map": 40.0}
ZONES = {"socket": 1.51, "udpcb": 1.51, "tcpcb": 4.52, "syncache": 2.34, "ripcb": 1.51, "divcb": 1.51}
VM = {"PV ENTRY": 25.48, "SWAPMETA": 10.0}
ENTRIES = {"KMAP ENTRY": 0.75}
EXEC, MB, USAGE = {"exec_map": 1.19}, {"mb_map": 13.5}, {"kmemusage": 1.0}
KERNELS = {
    "freebsd4": {**CLEAN, **ZONES, **VM, **ENTRIES, **EXEC, **MB, "kmem_map": 184.16, "kmemusage": 0.18},
    "dragonfly_2003aug25": {**CLEAN, **ZONES, **VM, **ENTRIES, **EXEC, **MB, **USAGE},
    "dragonfly_2003aug27": {**CLEAN, **ZONES, **VM, **EXEC, **MB, **USAGE},
    "dragonfly_2003oct": {**CLEAN, **ZONES, **VM, **EXEC, **MB, **USAGE},
    "dragonfly_2005": {**CLEAN, **ZONES, **VM, **EXEC, **USAGE},
    "dragonfly_2010": {**CLEAN, **VM, **USAGE},
    "mail2003": {**CLEAN, **VM, **EXEC, **MB, **USAGE},
}


@pytest.mark.parametrize("design", KERNELS)
def test_maps_and_reserved_kva_at_boot_are_those_of_the_kernel(design: str) -> None:
    found = carved(cell(f"design={design}"))
    assert found.pop("kernel image") == IMAGE
    assert found == pytest.approx(KERNELS[design], abs=0.011)


def test_freebsd_5_has_its_own_clusters_and_a_map_for_pipes() -> None:
    found = carved(cell("design=freebsd5_uma"))
    assert (found["mb_map"], found["pipe_map"]) == (42.5, 8.0)
    assert found["kmem_map"] == pytest.approx(213.25, abs=0.01)
    later = carved(cell("design=freebsd_mbuma"))
    assert "mb_map" not in later
    assert later["kmem_map"] == pytest.approx(170.67, abs=0.01)


@pytest.mark.parametrize(
    ("machine", "cpus", "gib", "clean", "pipe", "pages", "limits"),
    [
        ("amd64_4g", 8, 4, 1.410, 64, 104, (1677721, 262144)),
        ("amd64_64g", 32, 64, 2.616, 1024, 1664, (26843545, 4194304)),
        ("amd64_64g", 64, 256, 2.616, 4096, 6656, (107374182, 16777216)),
    ],
)
def test_freebsd_15_carves_by_ram(
    machine: str, cpus: int, gib: int, clean: float, pipe: int, pages: int, limits: tuple[int, int]
) -> None:
    small = ["workload=server2003", "design=freebsd15", f"machine={machine}", f"machine.cpus={cpus}"]
    (plan,) = plan_from([*small, f"machine.ram_bytes={gib}GiB"])
    config = json.loads(plan.cells["config"].iloc[0])
    found = carved(config)
    assert found["clean_map"] / 1024 == pytest.approx(clean, abs=0.001)
    assert (found["pipe_map"], found["vm_page array"], found["zero region"]) == (pipe, pages, 2)
    assert found["exec_map"] == pytest.approx({8: 32.5, 32: 129.3, 64: 258.3}[cpus], abs=0.1)
    assert found["direct_map"] == gib * 1024
    rows = served(config)
    assert (rows["mbuf"].limit, rows["mbuf_cluster"].limit) == limits
    assert {row.allocator for row in rows.values()} == {"uma_today", ""}
    assert rows["pipe_buffer"].map == "pipe_map"
    assert rows["socket"].limit == rows["unpcb"].limit == {4: 131072, 64: 2097152, 256: 8388608}[gib]  # maxfiles
    assert (rows["uarea"].klass, rows["uarea"].map) == ("zone", "kernel_map")  # kstack_cache


@pytest.mark.parametrize(("bytes_", "limit"), [(4096, 131072), (9216, 38836), (16384, 21845), (5000, 262144)])
def test_jumbo_clusters_have_limits_of_their_own(bytes_: int, limit: int) -> None:
    """What is none of these sizes is a chain."""
    size = f"workload.kinds.mbuf_cluster.size.bytes={bytes_}"
    rows = served(cell("design=freebsd15", "machine=amd64_4g", size))
    assert rows["mbuf_cluster"].limit == limit


def test_kernels_that_are_no_bsd_limit_no_malloc_type() -> None:
    assert served(cell("design=linux_7_1"))["file"].limit == 0


def test_freebsd_15_has_a_reclaim_thread_where_its_limit_is_below_its_memory() -> None:
    assert looks(cell("design=freebsd15", "machine=amd64_4g")) == (0,)
    tuned = cell("design=freebsd15", "machine=amd64_4g", "machine.tunables.vm_kmem_size_bytes=1GiB", "cost=opteron2003")
    assert looks(tuned) == (1_000_000_000,)
    assert with_upkeep({}, tuned)["watch_uma_today"]["program"] == [{"sleep": 1_000_000_000}, {"tend": (0, TEND_WATCH)}]


def test_freebsd_15_runs_on_amd64_only() -> None:
    with pytest.raises(ConfigError, match=r"machine.arch=i386: maps.kernel=freebsd_15 runs on amd64 only"):
        cell("design=freebsd15")


@pytest.mark.parametrize("machine", ["amd64_4g", "amd64_64g", "amd64_512g"])
def test_illumos_on_amd64_carves_nothing_out_of_its_heap(machine: str) -> None:
    config = cell("design=illumos_amd64", f"machine={machine}")
    assert carved(config) == {"kernel image": 0.0}  # a page
    heap = KERNELS_OF_TODAY["illumos"].heap
    assert heap is not None
    whole = heap(config["machine"]["ram_bytes"]) + PAGE
    rows = served(config)
    assert {(row.allocator, row.map, row.limit) for row in rows.values()} == {
        ("illumos_kmem", "kernel_map", 0), ("", "kernel_map", whole)
    }  # fmt: skip
    assert {"file", "ucred"} <= {row.kind for row in rows.values() if row.klass == "zone"}
    assert rows["namei"].klass == "malloc"


def test_illumos_on_amd64_runs_on_amd64_only() -> None:
    with pytest.raises(ConfigError, match=r"machine.arch=i386: maps.kernel=illumos runs on amd64 only"):
        cell("design=illumos_amd64")


# Kinds of the load by who serves them, at each date.
ZONED = {"proc", "vmspace", "vnode", "namei", "socket", "tcpcb", "udpcb", "unpcb", "syncache", "pipe", "map_entry",
         "vm_object", "knote"}  # fmt: skip
GREW = {"vnode", "pipe"}  # on malloc since 2004
GONE = GREW - {"vnode"} | {"proc", "socket", "tcpcb", "udpcb", "unpcb", "syncache"}
SERVED = {
    "freebsd4": {"zalloc": ZONED, "mbuf": {"mbuf", "mbuf_cluster"}},
    "dragonfly_2003aug25": {"zalloc": ZONED, "mbuf": {"mbuf", "mbuf_cluster"}},
    "dragonfly_2003aug27": {"zalloc": ZONED, "mbuf": {"mbuf", "mbuf_cluster"}},
    "dragonfly_2003oct": {"zalloc": ZONED, "mbuf": {"mbuf", "mbuf_cluster"}},
    "dragonfly_2005": {"zalloc": ZONED - GREW, "objcache": {"mbuf", "mbuf_cluster"}},
    "dragonfly_2010": {
        "zalloc": {"map_entry", "vm_object", "knote"},
        "objcache": {"mbuf", "mbuf_cluster", "vnode", "vmspace", "namei"},
    },
    "dragonfly_2020": {"zalloc": {"map_entry"}, "objcache_2020": {"mbuf", "mbuf_cluster", "vmspace", "namei", "file"}},
    "mail2003": {"dfly_slab": ZONED - {"proc", "tcpcb", "udpcb", "unpcb"},
                 "percpu_freelist": {"proc", "tcpcb", "udpcb", "unpcb"}, "mbuf": {"mbuf", "mbuf_cluster"}},
}  # fmt: skip
MALLOC = {"freebsd4": "buckets", "dragonfly_2003aug25": "buckets", "dragonfly_2005": "objcache",
          "dragonfly_2010": "objcache", "dragonfly_2020": "objcache_2020"}  # fmt: skip


@pytest.mark.parametrize("design", SERVED)
def test_each_kind_is_served_by_what_served_it_at_that_date(design: str) -> None:
    rows = served(cell(f"design={design}"))
    found: dict[str, set[str]] = {}
    for row in rows.values():
        if row.allocator and row.klass != "malloc":
            found.setdefault(row.allocator, set()).add(row.kind)
    assert found == SERVED[design]
    assert {row.allocator for row in rows.values() if row.klass == "malloc"} == {MALLOC.get(design, "dfly_slab")}


def test_limits_are_those_of_the_date_and_the_machine() -> None:
    of_2003, of_2005, of_2010 = (served(cell(f"design=dragonfly_{d}")) for d in ("2003oct", "2005", "2010"))
    assert [(rows["mbuf"].limit, rows["mbuf_cluster"].limit) for rows in (of_2003, of_2005, of_2010)] == [
        (18432, 4608), (9216, 4608), (9216, 4608)
    ]  # fmt: skip
    assert (of_2003["mbuf"].map, of_2005["mbuf"].map) == ("mb_map", "kernel_map")
    assert (of_2003["socket"].limit, of_2003["syncache"].limit, of_2003["socket"].own_kva) == (8232, 15359, True)
    assert not of_2010["socket"].own_kva
    small = served(cell("design=dragonfly_2003oct", "machine.ram_bytes=64MiB"))
    assert small["socket"].limit == 1064
    assert served(cell("design=freebsd4"))["file"].limit == pytest.approx(85.33 * MIB, abs=0.01 * MIB)
    assert of_2003["file"].limit == pytest.approx(51.2 * MIB, abs=0.01 * MIB)
    assert (of_2003["file"].held, of_2003["large"].held) == (True, False)
    assert (of_2005["exec_arguments"].map, of_2010["exec_arguments"].map) == ("exec_map", "kernel_map")


def test_map_requests_have_no_allocator_and_kinds_keep_their_numbers() -> None:
    config = cell("design=freebsd5_uma")
    rows = served(config)
    assert (rows["pipe_buffer"].allocator, rows["pipe_buffer"].map) == ("", "pipe_map")
    assert rows["uarea"].map == "kernel_map"
    assert list(rows) == sorted(config["workload"]["kinds"])
    assert np.all([row.limit % PAGE == 0 for row in rows.values() if not row.allocator])
