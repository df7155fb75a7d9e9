"""What boot makes of a cell: a server for each kind, maps carved out, and errors that name the key."""

import numpy as np
import pytest
from small_cell import KINDS, MIB, cell

from kmemexp.boot.machine import Machine, boot, carved_at_boot
from kmemexp.errors import ConfigError
from kmemexp.sim import sizing, slots
from kmemexp.sim.arenas import soft_submaps
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.maps import BUFFER, EXEC, KERNEL, KMEM, MB, PAGER
from kmemexp.sim.probes import SERVER_A, SERVER_B, SERVER_C, SERVER_MAP
from kmemexp.sim.tables import obj
from kmemexp.workload.stream import CLASS_NAMES, Kinds

NAMES = tuple(KINDS)
WORDS = [kind["class"] for kind in KINDS.values()]


def kinds() -> Kinds:
    none = np.zeros(len(NAMES), np.int32)
    klass = np.array([CLASS_NAMES.index(word) for word in WORDS], np.int8)
    limit = np.array([KINDS[name].get("limit", 0) for name in NAMES], np.int32)
    return Kinds(NAMES, klass, none + 128, none + 1, limit)


def booted(layout: str = "split") -> Machine:
    return boot(cell(layout, "buckets", "kmapentzone"), kinds(), 10)


def test_every_kind_has_the_server_of_its_class() -> None:
    machine = booted()
    server = {"malloc": SERVER_A, "zone": SERVER_B, "mbuf": SERVER_C}
    assert machine.kind_rows[:, mc.KIND_SERVER].tolist() == [server.get(word, SERVER_MAP) for word in WORDS]
    item = {"malloc": slots.ITEM_MALLOC, "mbuf": slots.ITEM_MBUF}
    zones = iter(range(len(WORDS)))
    wanted = [next(zones) if word == "zone" else item.get(word, 0) for word in WORDS]
    assert machine.kind_rows[:, mc.KIND_ITEM].tolist() == wanted
    assert machine.items == (0, WORDS.count("zone"), 0)
    for column, field in ((mc.KIND_SERVER, "server"), (mc.KIND_ITEM, "item"), (mc.KIND_MAP, "target_map")):
        assert machine.kind_rows[:, column].tolist() == getattr(machine.world, field).tolist()


def test_a_wired_kind_and_one_with_a_map_of_its_own() -> None:
    rows = dict(zip(NAMES, booted().kind_rows.tolist(), strict=True))
    assert rows["uarea"][mc.KIND_ATTR] == slots.ATTR_WIRED
    assert rows["pipe"][mc.KIND_ATTR] == slots.ATTR_PAGEABLE
    assert rows["pipe"][mc.KIND_MAP] == rows["uarea"][mc.KIND_MAP] == KERNEL
    assert rows["args"][mc.KIND_MAP] == EXEC


def test_without_a_submap_its_kinds_come_from_kernel_map() -> None:
    config = cell("split", "buckets", "kmapentzone")
    config["maps"]["submaps"] = [name for name in sizing.SUBMAPS if name != "exec_map"]
    rows = boot(config, kinds(), 1).kind_rows
    assert rows[NAMES.index("args"), mc.KIND_MAP] == KERNEL


def test_allocators_grow_in_the_maps_of_the_layout() -> None:
    split, unified = booted(), booted("unified")
    assert split.homes == (KMEM, KERNEL, MB)
    assert unified.homes == (KERNEL, KERNEL, MB)
    assert (split.malloc_map, unified.malloc_map) == (KMEM, KERNEL)
    assert split.maps == [KERNEL, KMEM, MB, EXEC]


def test_maps_have_the_sizes_that_boot_carved_out_and_some_serve_one_purpose() -> None:
    config = cell("split", "buckets", "kmapentzone")
    machine = booted()
    sized = sizing.size(config["machine"]["ram_bytes"], config["machine"]["kva_bytes"])
    carved = {name: nbytes for name, nbytes, _ in carved_at_boot(config, sized)}
    assert machine.map_bytes == (160 * MIB, carved["kmem_map"], carved["mb_map"], carved["exec_map"])
    assert machine.shared == [m not in (BUFFER, PAGER, EXEC) for m in machine.maps]


def test_nothing_lives_after_boot_and_nothing_has_been_counted() -> None:
    world = booted().world
    assert len(world.objects) == 10
    assert (world.objects[:, obj.ADDR] == obj.ABSENT).all()
    assert not world.counters.any()


def test_a_class_that_an_allocator_cannot_serve_is_refused() -> None:
    config = cell("split", "buckets", "kmapentzone")
    config["objects"] = config["objects"] | {"kinds": {"vnode": "mbuf"}}
    with pytest.raises(ConfigError, match="objects: mbuf cannot serve vnode, which is of class zone"):
        boot(config, kinds(), 1)


def test_a_parameter_that_a_part_refuses_is_named() -> None:
    config = cell("unified", "slab", "reservation", dfly_slab={"zone_bytes": 5000})
    with pytest.raises(ConfigError, match=r"objects\.params\.dfly_slab: zone_bytes"):
        boot(config, kinds(), 1)


def test_what_zones_set_aside_may_be_a_guarantee_in_part() -> None:
    taken, promised = {}, {}
    for percent in (100, 15):
        config = cell("unified", "slab", "own")
        config["maps"] |= {"arena": "soft_submaps", "params": {"soft_submaps": {"zones_percent": percent}}}
        arena = boot(config, kinds(), 1).world.arena
        taken[percent], promised[percent] = soft_submaps.used(arena, KERNEL), soft_submaps.census(arena)
    sized = sizing.size(config["machine"]["ram_bytes"], config["machine"]["kva_bytes"])
    zones = [zone.kva_bytes for zone in sized.interrupt_zones if zone.name in ("PV ENTRY", "SWAPMETA")]
    kept = [-(-nbytes * 15 // (100 * slots.PAGE)) * slots.PAGE for nbytes in zones]
    assert taken[100] - taken[15] == sum(zones) - sum(kept) > 0
    more = promised[15]["promised_slots"] - promised[100]["promised_slots"]
    assert more == sum(-(-(a - b) // (128 << 10)) for a, b in zip(zones, kept, strict=True))
