"""`machine.tunables`: which there are, what they move, and what a kernel that has none says."""

from dataclasses import fields

import pytest
from plain_cell import CELL

from kmemexp.config import checks, tunables
from kmemexp.config.design import check_space
from kmemexp.errors import ConfigError
from kmemexp.sim import sizing

MIB = 1 << 20
MAPS, OBJECTS, MACHINE = CELL["maps"], CELL["objects"], CELL["machine"]


def test_each_key_has_the_name_of_the_kernel_and_is_read_by_one() -> None:
    read = {key for kernel in sizing.KERNELS.values() for key in kernel.tunables}
    assert set(tunables.NAMES) == read
    assert all(name.startswith(("kern.", "vm.")) for name in tunables.NAMES.values())
    assert all(f.default is None for f in fields(tunables.Tunables))


def test_what_is_not_set_is_no_part_of_a_cell() -> None:
    none = dict.fromkeys(tunables.NAMES)
    assert checks.check_node("machine", MACHINE | {"tunables": none}) == MACHINE
    given = none | {"nmbclusters": 4096, "vm_kmem_size_bytes": "400MiB"}
    found = checks.check_node("machine", MACHINE | {"tunables": given})["tunables"]
    assert found == {"nmbclusters": 4096, "vm_kmem_size_bytes": 400 * MIB}
    with pytest.raises(ConfigError, match=r"machine\.tunables\.nbuf=0: must be at least 1"):
        checks.check_node("machine", MACHINE | {"tunables": {"nbuf": 0}})


def test_a_tunable_that_the_kernel_does_not_have_is_refused_by_its_name() -> None:
    machine = MACHINE | {"tunables": {"vm_kmem_size_scale": 2}}
    with pytest.raises(ConfigError, match=r"vm_kmem_size_scale: the kernel of this design has no vm\.kmem_size_scale"):
        check_space(MAPS, OBJECTS, machine, {})
    with pytest.raises(ConfigError, match=r"maps\.kernel=none\); it reads none"):
        check_space(MAPS | {"kernel": "none"}, OBJECTS, MACHINE | {"tunables": {"maxusers": 100}}, {})


def test_a_limit_of_the_allocator_of_mbufs_is_the_tunable() -> None:
    objects = OBJECTS | {"params": {"mbuf": {"nmbclusters": 8192}}}
    by_part = sizing.of_cell(MAPS, objects, MACHINE)
    by_tunable = sizing.of_cell(MAPS, OBJECTS, MACHINE | {"tunables": {"nmbclusters": 8192}})
    assert by_part == by_tunable
    assert (by_part.nmbufs, by_part.mb_map_bytes) == (32768, 24 * MIB)


def test_a_tunable_may_ask_for_more_than_the_kva_has() -> None:
    with pytest.raises(ConfigError, match=r"KVA of 256\.0 MiB is smaller.*kmem_map 260\.5 MiB"):
        check_space(MAPS, OBJECTS, MACHINE | {"tunables": {"vm_kmem_size_bytes": 1 << 30}}, {})
