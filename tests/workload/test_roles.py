"""Roles: tables of what recorded caches and synthetic kinds are to a design."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from kmemexp.config import files
from kmemexp.errors import ConfigError
from kmemexp.sim import items
from kmemexp.sim.items import Traits
from kmemexp.workload import roles
from kmemexp.workload import stream as form


def table(name: str) -> dict:
    return roles.node(yaml.safe_load((Path(files.conf_dir()) / "roles" / f"{name}.yaml").read_text()))


def kinds(*names: str, recorded: bool = True) -> form.Kinds:
    """Kinds as a recording gives them: kmalloc's of class malloc, vmalloc areas, caches of 100 bytes each 104."""
    klass = [form.MALLOC if n.startswith("kmalloc") else form.KVA_WIRED if n == "vmap" else form.ZONE for n in names]
    none = np.zeros(len(names), np.int32)
    strides = tuple(Traits(104 * (c == form.ZONE)) for c in klass)
    return form.Kinds(names, np.array(klass, np.int8), none + 100, none, none, strides, recorded=recorded)


def test_bsd_kernels_of_2003_had_zones_for_some():
    names = ("kmalloc", "kmalloc accounted", "task_struct", "btrfs_inode_cache", "xfs_inode", "lsm_inode_cache",
             "sock_inode_cache", "skbuff_head_cache", "never heard of", "(unnamed) f+0x1 192", "vmap")  # fmt: skip
    found = roles.cast(kinds(*names), table("bsd2003"))
    m, z, b = form.MALLOC, form.ZONE, form.MBUF
    assert found.klass.tolist() == [m, m, z, z, z, m, z, b, m, z, form.KVA_WIRED]
    assert found.growth.tolist() == [0, 0, 5, 5, 5, 0, 1, 0, 0, 1, 0]
    assert all(each.kmalloc == 0 and not each.flags for each in found.traits)


def test_in_linux_each_cache_is_one_and_kmalloc_has_sets():
    found = roles.cast(kinds("dentry", "maple_node", "kmalloc", "kmalloc reclaimable", "vmap"), table("linux"))
    assert found.klass.tolist() == [form.ZONE, form.ZONE, form.MALLOC, form.MALLOC, form.KVA_WIRED]
    assert [each.stride for each in found.traits] == [104, 104, 0, 0, 0]
    assert [each.kmalloc for each in found.traits] == [0, 0, 0, items.KMALLOC_SETS.index("reclaimable"), 0]
    assert [each.sheaf for each in found.traits] == [0, 32, 0, 0, 0]


def test_the_longest_line_that_fits_counts():
    lines = {"*": {"growth": 1}, "a*": {"growth": 2}, "abc*": {"growth": 3}, "abcd": {"growth": 4}}
    assert [roles.line_for(n, lines)["growth"] for n in ("x", "ab", "abcde", "abcd")] == [1, 2, 3, 4]
    assert roles.line_for("x", {"a*": {}}) is None


def test_a_line_changes_of_a_synthetic_kind_only_what_it_says():
    load = kinds("vnode", "socket", recorded=False)._replace(growth=np.array([5, 1], np.int32))
    said = roles.node({"name": "mine", "recorded": {}, "synthetic": {"vnode": {"rcu": True, "ctor": True}}})
    found = roles.cast(load, said)
    assert found.klass.tolist() == load.klass.tolist()
    assert found.growth.tolist() == [5, 1]
    assert found.traits[0].flags == items.RCU | items.CTOR
    assert found.traits[1] == items.PLAIN
    assert roles.cast(load, table("bsd2003")) is load


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"class": "zon"}, "roles.recorded.dentry.class=zon: unknown (did you mean zone?)"),
        ({"grow": 1}, "roles.recorded.dentry.grow: unknown key (did you mean growth?)"),
        ({"growth": -1}, "roles.recorded.dentry.growth=-1: must be at least 0"),
        ({"rcu": 1}, "roles.recorded.dentry.rcu=1: must be true or false"),
        ({"kmalloc": "cg"}, "roles.recorded.dentry.kmalloc=cg: unknown"),
        ({"free": "kfree_rcu"}, "a recording's frees come when they came"),
        ("zone", "roles.recorded.dentry=zone: must be a mapping"),
    ],
)
def test_a_wrong_line_is_named(line, said):
    with pytest.raises(ConfigError) as error:
        roles.node({"name": "mine", "recorded": {"dentry": line}})
    assert said in str(error.value)


def test_recorded_kinds_need_a_table():
    with pytest.raises(ConfigError, match="roles: is missing"):
        roles.cast(kinds("dentry"), None)
