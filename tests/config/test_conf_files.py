"""The configuration files: what each holds, and where they are found."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import kmemexp
from kmemexp import metrics, values
from kmemexp.config import checks, files
from kmemexp.planning.plan import plan_from
from kmemexp.sim.arenas import linux_mm


@pytest.fixture
def conf() -> Path:
    return files.conf_dir()


def test_every_file_says_what_it_is(conf):
    for path in sorted(conf.rglob("*.yaml")):
        comment = [line for line in path.read_text().splitlines() if line.startswith("#") and "@package" not in line]
        assert comment, f"{path} has no comment"


def test_every_metric_of_a_sweep_exists(conf):
    for path in sorted((conf / "sweep").glob("*.yaml")):
        for name in yaml.safe_load(path.read_text())["sweep"].get("metrics", ()):
            values.one_of(path.name, name, metrics.NAMES)


def test_conf_is_found_in_an_installed_package(tmp_path):
    """In a wheel conf/ lies inside the package; the same files, from any current directory."""
    root = Path(kmemexp.__file__).parents[1]
    ignore = shutil.ignore_patterns("__pycache__", "data")
    shutil.copytree(root / "kmemexp", tmp_path / "site" / "kmemexp", ignore=ignore)
    shutil.copytree(files.conf_dir(), tmp_path / "site" / "kmemexp" / "conf")
    code = "from kmemexp.config import files; print(files.conf_dir())"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert Path(run.stdout.strip()) == (tmp_path / "site" / "kmemexp" / "conf").resolve()


def test_the_actions_are_told_of_in_the_configuration_and_in_the_help(conf):
    (said,) = re.findall(r"^action: run # (.*)$", (conf / "config.yaml").read_text(), re.MULTILINE)
    assert said.split(" | ") == list(checks.ACTIONS)
    help_text = (conf / "hydra" / "help" / "kmemexp.yaml").read_text()
    listed = help_text[help_text.index("== Actions") : help_text.index("== Groups")]
    for name in checks.ACTIONS:
        assert re.search(rf"(^|  ){name}  ", listed, re.MULTILINE), name


TIMED_COSTS = ("opteron2003", "haswell2015", "bigxeon2018", "epyc2024")


@pytest.mark.parametrize("name", TIMED_COSTS)
def test_each_cost_has_a_source_and_a_range(conf, name):
    text = (conf / "cost" / f"{name}.yaml").read_text()
    found = yaml.safe_load(text)
    costs = {key: value for key, value in found.items() if key.endswith("_ns")}
    assert found["ranges"].keys() == costs.keys()
    for key, (least, most) in found["ranges"].items():
        assert least <= costs[key] <= most, key
    said = text[: text.index("ranges:")]
    above = ""
    for line in said.splitlines():
        key = line.partition(":")[0]
        if key in costs:  # what has no comment of its own is told of by the line above it
            assert "#" in line or "#" in above, key
        above = line


def test_the_table_of_costs_is_that_of_the_files(conf):
    page = (conf.parent / "docs" / "costs.md").read_text()
    for name in TIMED_COSTS:
        text = (conf / "cost" / f"{name}.yaml").read_text()
        found = yaml.safe_load(text)
        header = next(line for line in page.splitlines() if line.startswith("| cost, ns |"))
        column = [cell.strip() for cell in header.split("|")].index(name)
        for key, (least, most) in found["ranges"].items():
            star = "*" if re.search(rf"^{key}: .*ASSUMPTION", text, re.M) else ""
            row = re.search(rf"^\| {key.removesuffix('_ns')} \|.*$", page, re.M)
            assert row, key
            assert row[0].split("|")[column].strip() == f"{found[key]:g}{star} ({least:g} to {most:g})", key


def test_every_file_of_costs_is_told_of(conf):
    assert {path.stem for path in (conf / "cost").glob("*.yaml")} == {*TIMED_COSTS, "none", "zero"}


@pytest.mark.parametrize(("design", "since_6_16"), [("6_12", 0), ("6_18", 1), ("7_1", 1), ("slub", 1)])
def test_linux_has_the_rules_of_its_version_for_pages(design: str, since_6_16: int) -> None:
    """free_unref_page_commit (late_flush) and get_page_from_freelist (skip_busy) have changed between them."""
    (plan,) = plan_from([f"design=linux_{design}", "machine=amd64_4g"])
    given = json.loads(plan.cells["config"].iloc[0])["maps"]["params"].get("linux_mm", {})
    chosen = linux_mm.Params(**given)
    assert (chosen.late_flush, chosen.skip_busy) == (since_6_16, since_6_16)
