"""The checks of single nodes, and the normal form that they return."""

import pytest
from plain_cell import CELL

from kmemexp.config import cell, checks
from kmemexp.config.design import check_machine, check_space
from kmemexp.errors import ConfigError


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


@pytest.mark.parametrize(
    ("node", "change", "message"),
    [
        ("maps", {"layout": "both"}, "maps.layout=both"),
        ("maps", {"entries": "none"}, "maps.entries=none"),
        ("maps", {"image_bytes": "-1"}, "maps.image_bytes"),
        ("machine", {"cpus": True}, "machine.cpus=True"),
        ("machine", {"arch": "vax"}, "machine.arch=vax"),
        ("maps", {"areas": {"vax": {"kernel_map": 1}}}, "maps.areas=vax"),
        ("maps", {"areas": {"amd64": "2TiB"}}, r"maps.areas.amd64=2TiB: must say how large kernel_map is"),
        ("maps", {"areas": {"amd64": {"kernel_map": "much"}}}, r"maps.areas.amd64.kernel_map=much"),
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
    check_space(maps, objects, machine, ())
    small = machine | {"kva_bytes": 128 << 20}
    with pytest.raises(ConfigError, match=r"machine\.kva_bytes=128MiB.*kmem_map.*machine\.ram_bytes=128MiB"):
        check_space(maps, objects, small, ())
    unified = maps | {"layout": "unified", "entries": "reservation"}
    check_space(unified, objects | {"zone": "dfly_slab"}, small, ())


def test_more_address_space_than_allocators_cover_is_refused_by_name():
    maps, objects, machine = CELL["maps"], CELL["objects"], CELL["machine"]
    check_space(maps, objects, machine | {"kva_bytes": 8 << 40}, ())
    with pytest.raises(ConfigError, match=r"machine\.kva_bytes=128TiB: buckets .* 8TiB at most.*machine\.arch=amd64"):
        check_space(maps, objects, machine | {"arch": "amd64", "kva_bytes": 128 << 40}, ())
    areas = {"areas": {"amd64": {"kernel_map": 2 << 40}}}
    check_space(maps | areas, objects, machine | {"arch": "amd64", "kva_bytes": 128 << 40}, ())


def test_an_architecture_and_areas_are_part_of_a_cell_only_where_they_are_given():
    assert checks.check_node("machine", CELL["machine"] | {"arch": "i386"}) == CELL["machine"]
    assert checks.check_node("maps", CELL["maps"] | {"areas": {}}) == CELL["maps"]
    areas = {"amd64": {"kernel_map": "32TiB"}}
    assert checks.check_node("maps", CELL["maps"] | {"areas": areas})["areas"] == {"amd64": {"kernel_map": 32 << 40}}


@pytest.mark.parametrize(
    ("place", "name"), [("malloc", "zalloc"), ("malloc", "mbuf"), ("zone", "mbuf"), ("mbuf", "zalloc")]
)
def test_an_allocator_is_refused_what_it_cannot_serve(place, name):
    with pytest.raises(ConfigError, match=f"objects.{place}={name}: {name} serves"):
        checks.check_node("objects", CELL["objects"] | {place: name})


@pytest.mark.parametrize(
    ("domains", "ram_mib", "why"),
    [(5, 1024, "linux_mm has figures of 4 NUMA nodes at most"), (4, 15, "4 nodes share 3840 pages")],
)
def test_numa_nodes_that_linux_cannot_tell_apart_are_refused(domains: int, ram_mib: int, why: str) -> None:
    maps = CELL["maps"] | {"arena": "linux_mm"}
    machine = CELL["machine"] | {"cpus": 8, "domains": domains, "ram_bytes": ram_mib << 20}
    with pytest.raises(ConfigError, match=rf"machine\.domains={domains}: {why}.*maps\.params\.linux_mm\.by_node=0"):
        check_machine(maps, CELL["objects"], machine)
    check_machine(maps | {"params": {"linux_mm": {"by_node": 0}}}, CELL["objects"], machine)
    with pytest.raises(ConfigError, match=f"machine.domains={domains}"):  # given to the arena alone
        check_machine(maps | {"params": {"linux_mm": {"domains": domains}}}, CELL["objects"], machine | {"domains": 1})
    check_machine(CELL["maps"], CELL["objects"], machine)
    check_machine(maps, CELL["objects"], machine | {"domains": 4, "ram_bytes": 1 << 30})
