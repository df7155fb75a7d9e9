import json
from dataclasses import fields, is_dataclass

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemexp.config.cell import NODES
from kmemexp.config.schema import Config
from kmemexp.store import columns, rows


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


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.integers(0, 99), st.floats(allow_nan=False),
    st.text(max_size=5), st.sampled_from(["2003-08-27", "2003-08-27 10:00:00", "12:00", "", "a\nb", '"', "é"]),
    st.lists(st.integers(0, 3), max_size=2),
)  # fmt: skip
ONE_KIND = (st.integers(-(2**63), 2**63 - 1), st.floats(-1e9, 1e9), st.booleans(), st.sampled_from("abc"))


def told(texts: list[str]) -> None:
    axes = columns.Axes(pa.array(texts, pa.string()))
    assert axes.keys == sorted({key for text in texts for key in json.loads(text)})
    for key in [*axes.keys, "no such key"]:
        values = axes.values(key)
        found = values.to_pylist() if isinstance(values, pa.Array) else values
        wanted = [json.loads(text).get(key) for text in texts]
        assert found == wanted
        kinds = {type(value) for value in wanted if value is not None}
        assert kinds == {int, float} or {type(value) for value in found if value is not None} == kinds


@given(st.lists(st.dictionaries(st.sampled_from(["design", "machine.cpus", "seed"]), VALUES), min_size=1, max_size=6))
def test_axes_are_decoded_as_json_says(cells: list[dict[str, object]]) -> None:
    told([json.dumps(cell, separators=(",", ":")) for cell in cells])


@given(st.data())
def test_axes_of_one_kind_each(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(["a", "b.c", "d"]), min_size=1, unique=True))
    kinds = {name: data.draw(st.sampled_from(ONE_KIND)) for name in names}
    cells = data.draw(st.lists(st.fixed_dictionaries(kinds), min_size=1, max_size=6))
    told([json.dumps(cell) for cell in cells])


@pytest.mark.parametrize("text", ["{", "[1]", "1", '{"a":1}{"a":2}', '{"a":1},{"a":2}'])
def test_a_text_that_is_no_axes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no mapping|delimiter|Expecting"):
        columns.Axes(pa.array(["{}", text]))


KEYS = st.text("0123456789abcdef", min_size=32, max_size=32)


@given(st.lists(st.one_of(KEYS, KEYS.map(lambda key: "0" * 16 + key[16:]), KEYS.map(lambda key: "0" * 8 + key[8:])),
                unique=True))  # fmt: skip
def test_keys_are_sorted_as_texts(keys: list[str]) -> None:
    array = pa.array(["", *keys], pa.string()).slice(1)
    assert [keys[i] for i in rows.sorting(array)] == sorted(keys)


@given(st.lists(st.text(max_size=20), unique=True))
def test_any_texts_are_sorted(texts: list[str]) -> None:
    array = pa.array(texts, pa.string())
    assert [texts[i] for i in rows.sorting(array)] == sorted(texts, key=str.encode)
