"""experiments/README.md: what it shows is there, and it tells of every experiment."""

import importlib.util
import re

import pandas as pd
import pytest

from kmemexp.claims import finding, protocol

FOLDER = finding.folder()
STORY = (FOLDER / "README.md").read_text("utf-8")
LINKS = sorted(set(re.findall(r"\]\((pictures/[^)]+)\)", STORY)))


@pytest.mark.parametrize("link", LINKS)
def test_what_the_story_shows_is_there(link: str) -> None:
    assert (FOLDER / link).is_file(), f"run +experiment=all experiment.publish={FOLDER / 'pictures'}"


@pytest.mark.parametrize("name", finding.names())
def test_every_experiment_is_told_of(name: str) -> None:
    claim = finding.load(name).CLAIM
    assert re.search(rf"\b{claim}\b", STORY)


def test_the_figures_of_the_story_are_those_of_the_verdicts() -> None:
    spec = importlib.util.spec_from_file_location("make_claims", FOLDER.parent / "docs" / "make_claims.py")
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.page() == STORY, "python docs/make_claims.py writes them anew"


@pytest.mark.parametrize("name", finding.names())
def test_the_rule_is_still_the_one_that_was_confirmed(name: str) -> None:
    """Where it is not, the claim is to be confirmed anew, on another seed."""
    rules = set(pd.read_csv(FOLDER / "pictures" / "confirmed" / f"{name}_verdicts.csv")["protocol"].astype(str))
    assert rules == {protocol.digest(finding.load(name))}
