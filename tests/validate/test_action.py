"""`action=validate`: one table in three forms, the exit code, and what it refuses."""

import pandas as pd
import pytest

from kmemexp.actions import validate
from kmemexp.errors import ConfigError
from kmemexp.planning.plan import plan_from
from kmemexp.validate import suite
from kmemexp.validate.check import Check
from kmemexp.validate.rows import Wanted


def right(s):
    yield Wanted("R", "theory", "A").exact("<right>", 2, 2)


def drawn(s):
    yield Wanted("D", "theory", "D").beside("drawn", 0, s.uniform(0, 1))


def wrong(s):
    yield Wanted("W", "theory", "A").exact("wrong", 2, 3)


def broken(s):
    yield Wanted("B", "theory", "A").exact("before", 1, 1)
    raise IndexError("out of range")


def silent(s):
    yield from ()


def absent(s):
    yield Wanted("L", "nowhere", "C").left_out("what needs more", "it is not here")


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    known = {f.__name__: Check(f.__name__, f) for f in (right, drawn, wrong, broken, silent, absent)}
    monkeypatch.setattr(suite, "checks", lambda: known)


def run(*only, seed=0):
    plans = plan_from(["action=validate", f"validate.only=[{','.join(only)}]", "cluster.num_cpus=1", f"seed={seed}"])
    return validate.act(plans)


def test_the_table_is_printed_and_written(made_up, tmp_path, capsys):
    assert run("right", "drawn") == 0
    assert "theory" in capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "results" / "_validate" / "checks.parquet")
    assert table["result"].tolist() == ["pass", "beside"]
    assert {"check", "source", "expected", "measured", "deviation", "grade"} <= set(table)
    page = (tmp_path / "results" / "_validate" / "checks.html").read_text()
    assert "&lt;right&gt;" in page
    assert "http" not in page


@pytest.mark.parametrize(("name", "said"), [("wrong", "measured 3"), ("broken", "out of range"), ("silent", "no rows")])
def test_a_check_that_fails_ends_and_gives_no_row_makes_the_exit_code_2(made_up, capsys, name, said):
    assert run("right", name) == 2
    assert said in capsys.readouterr().out


def test_what_is_left_out_is_said_with_its_reason(made_up, capsys):
    assert run("right", "absent") == 0
    assert "left out L: what needs more: it is not here" in " ".join(capsys.readouterr().out.split())


def test_parameters_are_those_of_the_seed(made_up, tmp_path):
    found = []
    for seed in (1, 1, 2):
        run("drawn", seed=seed)
        found.append(pd.read_parquet(tmp_path / "results" / "_validate" / "checks.parquet")["measured"][0])
    assert found[0] == found[1] != found[2]


def test_what_is_refused(made_up):
    with pytest.raises(ConfigError, match=r"validate.only=rigth: unknown .did you mean right"):
        run("rigth")
    with pytest.raises(ConfigError, match=r"validate.level=long: unknown.*quick, full"):
        plan_from(["action=validate", "validate.level=long"])
    with pytest.raises(ConfigError, match="takes one seed"):
        validate.act(plan_from(["action=validate", "seed=1,2"]))


def test_every_check_has_a_name_of_its_own():
    assert len(suite.checks()) >= 8
