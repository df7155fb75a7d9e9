"""Logarithmic ranges, samples of a space, unions of grids."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmemexp.config import scales
from kmemexp.errors import ConfigError
from kmemexp.planning import axes, sampling
from kmemexp.planning.plan import plan_from

SPACE = {"interrupts.rate_hz": "log(100, 10000)", "workload.scale": "interval(0.5, 2.0)", "machine.cpus": [1, 2, 4]}
UNION = '{axes: {design: "freebsd4,dragonfly_2003oct", machine.cpus: 2}}'


def drawn(method: str, n: int, space=SPACE, **more):
    return sampling.sample("sweep.sample", {"method": method, "n": n, "space": {}} | more, space)


def unit(method: str, n: int, keys: int = 2) -> np.ndarray:
    found = drawn(method, n, {f"workload.x{i}": "interval(0.0, 1.0)" for i in range(keys)})
    return np.array(list(found.values())).T


def test_points_of_a_logarithmic_range():
    assert scales.log_points("interrupts.rate_hz", "log(100, 100000, 4)") == [100, 1000, 10000, 100000]
    assert scales.log_points("workload.scale", "log(0.5, 2.0, 3)") == [0.5, 1.0, 2.0]
    assert scales.log_points("machine.kva_bytes", "log(128MiB, 1GiB, 4)") == [2**27, 2**28, 2**29, 2**30]
    assert scales.log_points("seed", "1,2") is None


def test_a_logarithmic_range_on_the_command_line():
    line = axes.read_overrides(["machine.kva_bytes=log(128MiB,512MiB,3)"], lambda hydra: lambda name: ())
    assert line.swept == {"machine.kva_bytes": [2**27, 2**28, 2**29]}


@pytest.mark.parametrize("method", sampling.METHODS)
@settings(max_examples=30)
@given(n=st.integers(1, 40), more=st.integers(0, 40))
def test_more_rows_keep_those_that_there_are(method, n, more):
    few, many = drawn(method, n), drawn(method, n + more)
    assert all(many[key][:n] == values for key, values in few.items())


@pytest.mark.parametrize("n", [1, 2, 16, 64])
@pytest.mark.parametrize("method", sampling.METHODS)
def test_each_stratum_has_one_row(method, n):
    for column in unit(method, n).T:
        assert sorted((column * n).astype(int)) == list(range(n))


def test_sobol_fills_the_plane_evenly():
    boxes = (unit("sobol", 64) * 8).astype(int)
    assert len({tuple(box) for box in boxes.tolist()}) == 64


def test_another_seed_is_another_sample():
    assert drawn("sobol", 8) == drawn("sobol", 8)
    assert drawn("sobol", 8) != drawn("sobol", 8, seed=1)


def test_values_are_of_their_kind():
    found = drawn("lhs", 64, SPACE | {"machine.kva_bytes": "log(128MiB, 1GiB)", "machine.threads": "interval(1, 3)"})
    assert set(found["machine.cpus"]) == {1, 2, 4}
    assert all(isinstance(v, int) and 100 <= v <= 10000 for v in found["interrupts.rate_hz"])
    assert np.mean(np.array(found["interrupts.rate_hz"]) < 1000) == pytest.approx(0.5, abs=0.05)
    assert all(0.5 <= v <= 2 for v in found["workload.scale"])
    assert all(v % 4096 == 0 for v in found["machine.kva_bytes"])
    counts = np.bincount(found["machine.threads"])[1:]
    assert len(counts) == 3
    assert counts.min() >= 20


@pytest.mark.parametrize(
    ("entry", "space", "message"),
    [
        ({"method": "grid"}, SPACE, r"sweep\.sample\.method=grid"),
        ({"n": 0}, SPACE, r"sweep\.sample\.n=0"),
        ({"number": 3}, SPACE, "number"),
        ({}, {}, r"sweep\.sample\.space: is missing"),
        ({}, {"seed": "interval(3, 1)"}, "in order"),
        ({}, {"seed": "log(0, 1)"}, "above 0"),
        ({}, {"seed": "between 1 and 3"}, "must be interval"),
        ({}, {"seed": "interval(a, b)"}, "a is not a number"),
        ({}, {"seed": []}, "no values"),
    ],
)
def test_mistakes_are_named(entry, space, message):
    with pytest.raises(ConfigError, match=message):
        drawn(entry.pop("method", "lhs"), entry.pop("n", 4), space, **entry)


def test_a_sample_is_crossed_with_the_axes():
    line = [
        "design=freebsd4,dragonfly_2003oct",
        "sweep.sample={method: lhs, n: 4, space: {machine.cpus: 'interval(1, 4)'}}",
    ]
    (plan,) = plan_from(line)
    assert sorted(plan.columns["cpus"]) == [1, 1, 2, 2, 3, 3, 4, 4]


def test_several_grids_in_one_sweep():
    line = [f"sweep.union=[{UNION}, {{axes: {{design: freebsd4, machine.cpus: [1, 2]}}}}]", "seed=0,1"]
    (plan,) = plan_from(line)
    cells = set(zip(plan.columns["design"], plan.columns["cpus"], strict=True))
    assert cells == {("freebsd4", 2), ("dragonfly_2003oct", 2), ("freebsd4", 1)}
    assert len(plan.columns["cell_key"]) == 6  # by seed
    assert plan.collapsed == 2  # freebsd4 on two CPUs is in both


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["sweep.union=[5]"], r"sweep\.union\[0\]: must be a mapping"),
        (["sweep.union=[{axis: {seed: 1}}]"], "axis"),
        (["sweep.union=[{axes: {seed: 1}}]", "+sweep.axes.seed=2"], r"sweep\.union\[0\]\.axes\.seed: stands outside"),
    ],
)
def test_mistakes_in_unions_are_named(line, message):
    with pytest.raises(ConfigError, match=message):
        plan_from(line)
