"""`action=explain`: the lane asked for, or the first that had a deadlock, is simulated again and told."""

import io

import pandas as pd
import pytest
from rich.console import Console

from kmemexp import api
from kmemexp.actions import explain
from kmemexp.errors import ConfigError

TWO = ["scenario=interrupted_holder,sleeping_holder", "store.root=memory://explain"]


def test_explain_prints_the_lane_of_a_plan() -> None:
    console = Console(record=True, width=150, file=io.StringIO())
    (plan,) = api.plan(["scenario=interrupted_holder", "store.root=memory://explain"])
    explain.explain_lane(plan, console)
    text = console.export_text()
    assert "deadlock at" in text
    assert "net on CPU 0, blocked" in text
    (two,) = api.plan(["scenario=interrupted_holder,sleeping_holder", "store.root=memory://explain"])
    with pytest.raises(ConfigError, match="cell: is not given; there are"):
        explain.explain_lane(two, console)
    (plain,) = api.plan(["store.root=memory://explain"])
    with pytest.raises(ConfigError, match="runs without a clock"):
        explain.explain_lane(plain, console)


def test_a_cell_is_named_by_the_beginning_of_its_key() -> None:
    (plan,) = api.plan(TWO)
    key = plan.cells["cell_key"].iloc[1]
    nothing = pd.DataFrame({"cell_key": [], "replica": []})
    (asked,) = api.plan([*TWO, "action=explain", f"cell='{key[:8]}'"])
    assert explain._cell(asked, nothing)["cell_key"] == key
    (wrong,) = api.plan([*TWO, "cell=nowhere"])
    with pytest.raises(ConfigError, match="cell=nowhere: 0 cells of this plan begin so"):
        explain._cell(wrong, nothing)


def test_without_a_name_it_is_the_first_that_had_a_deadlock() -> None:
    (plan,) = api.plan(TWO)
    key = plan.cells["cell_key"].iloc[1]
    stored = pd.DataFrame({"cell_key": [key, key], "replica": [3, 4]})
    assert explain._cell(plan, stored)["cell_key"] == key
    assert explain._replica(key, stored) == 3
    assert explain._replica("another", stored) == 0
