"""Axes from text, zip, when and exclude, and what predicates may say."""

import itertools
import operator

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from kmemexp.errors import ConfigError
from kmemexp.planning import axes
from kmemexp.planning.axes import Grid
from kmemexp.planning.predicates import Predicate

GROUPS = {"design": ("dragonfly_2003oct", "freebsd4"), "workload": ("filetree", "pgbench"), "sweep": ("one", "two")}


def groups(name):
    return GROUPS.get(name, ())


def read(*texts):
    return axes.read_overrides(texts, lambda hydra: groups)


def sweep(**entries):
    return {"axes": {}, "zip": [], "when": {}, "exclude": [], "sample": {}, "union": []} | entries


# What Hydra 1.3's grammar makes of the command line (a change there would change what users' commands mean).


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("seed=range(1,9,2)", [1, 3, 5, 7]),
        ("seed=sort(3,1,2,reverse=true)", [3, 2, 1]),
        ("seed=choice(4,5)", [4, 5]),
        ("seed=1e3,2e3", [1000, 2000]),
        ("design=freebsd4,dragonfly_2003oct", ["freebsd4", "dragonfly_2003oct"]),
        ("design=glob(*)", ["dragonfly_2003oct", "freebsd4"]),
        ("design=glob(*,exclude=free*)", ["dragonfly_2003oct"]),
        ("machine.kva_bytes=128MiB,1GiB", [128 << 20, 1 << 30]),
        ("machine.kva_bytes='128MiB','1 GiB'", [128 << 20, 1 << 30]),
        ("workload.level=range(1.0,2.0,0.25)", [1, 1.25, 1.5, 1.75]),
        ("objects.params.dfly_slab.slide=4,8", [4, 8]),
        ("+objects.params.dfly_slab.slide=4,8", [4, 8]),
    ],
)
def test_sweep_on_the_command_line(text, values):
    line = read(text)
    assert list(line.swept.values()) == [values]
    assert line.fixed == {}


@pytest.mark.parametrize("text", ["x=[1,2]", "x='1,2'", "x=5", "~x", "cluster.address=ray://127.0.0.1:10001"])
def test_not_a_sweep(text):
    line = read(text)
    assert line.swept == {}
    assert list(line.fixed.values()) == [text]


def test_interval_is_a_sweep_without_values():
    interval = OverridesParser.create().parse_override("x=interval(0,1)")
    assert interval.is_sweep_override()
    assert not interval.is_discrete_sweep()
    assert (interval.value().start, interval.value().end) == (0.0, 1.0)
    with pytest.raises(ConfigError, match="interval"):
        read("seed=interval(0,1)")


def test_shuffle_is_taken_once():
    line = read("seed=shuffle(1,2,3,4,5,6,7,8,9)")
    assert sorted(line.swept["seed"]) == list(range(1, 10))
    assert isinstance(line.swept["seed"], list)


def test_later_override_of_a_key_wins():
    assert read("seed=1,2", "seed=3")[2:4] == ({"seed": "seed=3"}, {})
    assert read("seed=3", "seed=1,2")[2:4] == ({}, {"seed": [1, 2]})


@pytest.mark.parametrize(
    ("text", "sweeps"),
    [("+sweep=one", ["+sweep=one"]), ("+sweep=one,two", ["+sweep=one", "+sweep=two"]),
     ("+sweep=glob(*)", ["+sweep=one", "+sweep=two"])],
)  # fmt: skip
def test_sweeps(text, sweeps):
    assert read(text).sweeps == sweeps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hydra.verbose=true,false", "Hydra itself"),
        ("cluster.num_cpus=1,2", "cannot be swept"),
        ("cluster=local,serial", "cannot be swept"),
        ("action=run,plan", "cannot be swept"),
        ("store.root=a,b", "cannot be swept"),
        ("design=freebsd4,freebsd5", "design=freebsd5.*freebsd4"),
        ("machine.ncpu=1,2", "machine.ncpu.*cpus, threads, domains, ram_bytes, kva_bytes"),
        ("nonsense=1,2", "nonsense: unknown key"),
        ("machine.cpus=1,many", "machine.cpus=many.*Integer"),
        ("machine.cpus=1.5,2", r"machine.cpus=1\.5"),
        ("machine.kva_bytes=1MiB,1XB", "machine.kva_bytes=1XB"),
        ("design=glob(x*)", "no value to sweep over; there are"),
        ("seed=range(3", "seed=range"),
    ],
)
def test_impossible_sweep(text, message):
    with pytest.raises(ConfigError, match=message):
        read(text)


# Sweep files.


def test_file_values_are_lists_or_text():
    blocks = axes.read_file(
        sweep(axes={"design": "glob(*)", "machine.cpus": "range(1,4)", "seed": 5, "machine.kva_bytes": ["64MiB"]}),
        groups,
    )
    assert blocks == [
        {"design": ["dragonfly_2003oct", "freebsd4"]}, {"machine.cpus": [1, 2, 3]}, {"seed": [5]},
        {"machine.kva_bytes": [64 << 20]},
    ]  # fmt: skip


def test_nested_keys_are_dotted():
    assert axes.read_file(sweep(axes={"machine": {"cpus": [1, 2]}}), groups) == [{"machine.cpus": [1, 2]}]


def test_zip_goes_row_by_row():
    entry = {"machine.ram_bytes": ["64MiB", "1GiB"], "seed": [1, 2]}
    grid = Grid(axes.read_file(sweep(zip=[entry], axes={"machine.cpus": [1, 2]}), groups))
    assert grid.count == 4
    cells = [tuple(grid.assignment(i, list(grid.codes)).values()) for i in range(4)]
    assert cells == [(1, 64 << 20, 1), (1, 1 << 30, 2), (2, 64 << 20, 1), (2, 1 << 30, 2)]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"zip": [{"seed": [1, 2], "machine.cpus": [1]}]}, r"zip\[0\].*seed has 2, machine.cpus has 1"),
        ({"zip": ["seed"]}, r"zip\[0\].*mapping"),
        ({"zip": [{"seed": [1]}], "axes": {"seed": [1]}}, "seed stands in more than one"),
        ({"axes": {"seed": []}}, "seed: no value"),
        ({"axes": {"seed": "range(1"}}, "sweep.axes: seed="),
        ({"axes": {"workload": ["nfs"]}}, "workload=nfs"),
    ],
)
def test_impossible_file(entries, message):
    with pytest.raises(ConfigError, match=message):
        axes.read_file(sweep(**entries), groups)


def test_command_line_beats_the_file_key_by_key():
    blocks = [{"design": ["a", "b"]}, {"seed": [1, 2], "machine.cpus": [1, 2]}, {"workload": ["w"]}]
    line = read(
        "design=freebsd4,dragonfly_2003oct", "machine.cpus=4", "workload=pgbench", "machine.ram_bytes=1MiB,2MiB"
    )
    assert axes.merge(blocks, line) == [
        {"design": ["freebsd4", "dragonfly_2003oct"]}, {"seed": [1, 2]}, {"machine.ram_bytes": [1 << 20, 2 << 20]}
    ]  # fmt: skip


def test_when_of_no_axis():
    with pytest.raises(ConfigError, match=r"seed is not an axis.*design"):
        axes.predicates(sweep(when={"seed": "design == 'a'"}), ["design"])


def test_too_many_cells():
    with pytest.raises(ConfigError, match="10000 x 10000"):
        Grid([{"a": list(range(10_000))}, {"b": list(range(10_000))}])


@given(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1),
    st.sampled_from("abcd"), st.integers(0, 3), st.sampled_from(["==", "<", ">=", "!="]), st.booleans(),
)  # fmt: skip
def test_grid_equals_the_filtered_product(wanted, key, limit, sign, conditional):
    """Exclude, and a `when` on the last axis, against a plain loop over the product; absent keys are worth 9."""
    compare = {"==": operator.eq, "<": operator.lt, ">=": operator.ge, "!=": operator.ne}[sign]
    expected = []
    last = list(wanted)[-1]
    for row in itertools.product(*wanted.values()):
        cell = dict(zip(wanted, row, strict=True))
        holds = compare(cell.get(key, 9), limit)
        if conditional and key != last:
            if not holds:
                del cell[last]
        elif holds:
            continue
        expected.append(cell)
    grid = Grid([{k: v} for k, v in wanted.items()])
    predicate = Predicate(f"{key} {sign} {limit}", "test")
    column = grid.column(key, lambda name, cells: [9] * len(cells))
    mask = predicate.mask([column], grid.count)
    if conditional and key != last:
        grid.limit(last, mask)
    else:
        grid.keep(~mask)
    assert [grid.assignment(i, list(wanted)) for i in range(grid.count)] == expected


def test_classes_number_equal_combinations():
    grid = Grid([{"a": [1, 2]}, {"b": [1, 2, 3]}])
    grid.limit("b", np.array([True] * 3 + [False] * 3))
    first, number = grid.classes(["b"])
    assert [grid.assignment(int(i), ["b"]) for i in first[number]] == [{"b": 1}, {"b": 2}, {"b": 3}, {}, {}, {}]


# Predicates.


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("design == 'freebsd4'", True),
        ("design == 'freebsd4' and machine.cpus > 4", False),
        ("design != 'freebsd4' or machine.cpus == 4", True),
        ("design in ['freebsd4', 'other']", True),
        ("design not in ('freebsd4',)", False),
        ("not (1 < machine.cpus <= 4)", False),
        ("machine.kva_bytes < '1GiB'", True),
        ("machine.kva_bytes in ['256MiB', '1GiB']", True),
        ("machine.kva_bytes >= 2 * machine.ram_bytes", True),
        ("machine.cpus % 2 == 0", True),
        ("-machine.cpus == -4", True),
        ("workload.scale == null", True),
        ("true", True),
    ],
)
def test_predicate(text, holds):
    values = {"design": "freebsd4", "machine.cpus": 4, "machine.kva_bytes": 256 << 20, "machine.ram_bytes": 128 << 20}
    predicate = Predicate(text, "test")
    assert predicate({key: values.get(key) for key in predicate.keys}) is holds


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("__import__('os').system('true')", "not allowed"),
        ("design.__class__()", "not allowed"),
        ("design[0] == 'f'", "not allowed"),
        ("[x for x in design]", "not allowed"),
        ("lambda: 1", "not allowed"),
        ("'a'.upper == 1", "not a key"),
        ("2 ** 9 ** 9 == 1", "not allowed"),
        ("design is 'a'", "not allowed"),
        ("design = 'a'", "not an expression"),
        ("design ==", "not an expression"),
        ("b'x' == design", "not allowed"),
    ],
)
def test_predicate_refuses(text, why):
    with pytest.raises(ConfigError, match=why) as error:
        Predicate(text, "sweep.exclude[3]")
    assert "sweep.exclude[3]" in str(error.value)


def test_predicate_of_the_wrong_types():
    with pytest.raises(ConfigError, match=r"exclude\[0\].*'<' not supported"):
        Predicate("design < 3", "sweep.exclude[0]")({"design": "freebsd4"})


def test_mask_looks_at_each_distinct_row_once():
    column = np.array([1, 2, 1, 2, 1], object)
    assert Predicate("machine.cpus > 1", "test").mask([column], 5).tolist() == [False, True, False, True, False]
