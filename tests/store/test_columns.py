from dataclasses import fields, is_dataclass

import pytest

from kmemexp.config.cell import NODES
from kmemexp.config.schema import Config
from kmemexp.store import columns


def schema_keys() -> list[str]:
    """Keys of the schema that an axis may have."""
    keys = []
    for node in fields(Config):
        made = node.default_factory() if callable(node.default_factory) else node.default
        if node.name in NODES and is_dataclass(made):
            keys += [f"{node.name}.{leaf.name}" for leaf in fields(made)]
    return keys


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("design", "design"),
        ("machine.cpus", "cpus"),
        ("machine.kva_bytes", "kva_bytes"),
        ("interrupts.rate_hz", "rate_hz"),
        ("interrupts/sources", "sources"),
        ("interrupts.sources.disk.rate_hz", "disk_rate_hz"),
        ("objects.params.dfly_slab.release_threshold", "dfly_slab_release_threshold"),
        ("workload.kinds.socket.size.bytes", "socket_size_bytes"),
        ("workload.phases[0].seconds", "phases_0_seconds"),
        ("workload.seed", "workload_seed"),  # not the seed of the random numbers
        ("maps.map", "maps_map"),  # a column of the snapshots
        ("workload.lambda", "workload_lambda"),  # no name in Python
    ],
)
def test_an_axis_has_a_plain_name(key, name):
    assert columns.short(key) == name


def test_keys_of_the_schema_have_names_of_their_own():
    names = columns.named(schema_keys())
    own = {key: name for key, name in names.items() if name != columns.short(key)}
    assert len(set(names.values())) == len(names)
    assert {key.rpartition(".")[2] for key in own} <= {"name", "params"}  # no sweep varies them
    assert all(name.isidentifier() for name in names.values())
    assert set(columns.USUAL) & set(names) == {key for key in columns.USUAL if not key.startswith("workload.")}


def test_keys_of_one_name_get_long_ones():
    keys = ("workload.kinds.disk.rate_hz", "interrupts.sources.disk.rate_hz", "machine.cpus")
    assert columns.named(keys) == {
        "interrupts.sources.disk.rate_hz": "interrupts_sources_disk_rate_hz",
        "machine.cpus": "cpus",
        "workload.kinds.disk.rate_hz": "workload_kinds_disk_rate_hz",
    }


def test_a_configuration_gives_values_by_key():
    config = {"machine": {"cpus": 2}, "cost": {"name": "none"}, "seed": 7, "objects": {"params": {}}}
    assert columns.value(config, "machine.cpus") == 2
    assert columns.value(config, "cost") == "none"
    assert columns.value(config, "seed") == 7
    assert columns.value(config, "objects.params.uma.x") is None
    assert columns.value(config, "objects") is None
    assert columns.value(config, "objects.params") is None
