"""Designs that have other names now, and one that no kernel was."""

import pytest

from kmemexp.config import files, renamed
from kmemexp.errors import ConfigError
from kmemexp.planning.plan import plan_from

DESIGNS = {path.stem for path in (files.conf_dir() / "design").glob("*.yaml")}


def test_old_names_are_no_designs_and_lead_to_one() -> None:
    assert not DESIGNS & {*renamed.RENAMED["design"], *renamed.GONE["design"]}
    assert set(renamed.RENAMED["design"].values()) <= DESIGNS


@pytest.mark.parametrize(
    "overrides",
    [
        ["design=dragonfly_slab"],
        ["design=dragonfly_slab,freebsd4"],
        ["design=freebsd4,dragonfly_2003oct", "+sweep.baseline.design=dragonfly_slab"],
    ],
)
def test_an_old_name_that_tells_no_lie_is_the_kernel_of_its_date(overrides: list[str]) -> None:
    (plan,) = plan_from(overrides)
    assert "dragonfly_2003oct" in set(plan.columns["design"])
    assert plan.baseline.get("design") != "dragonfly_slab"


def test_a_design_that_no_kernel_was_is_refused_with_the_new_name() -> None:
    for text in ("design=dragonfly_percpu", "design=freebsd4,dragonfly_percpu"):
        with pytest.raises(ConfigError, match=r"dragonfly_percpu: no DragonFly was so.*design=mail2003"):
            plan_from([text])
    with pytest.raises(ConfigError, match=r"freebsd_vmem: no kernel was all of it.*design=freebsd15"):
        plan_from(["design=freebsd_vmem", "machine=amd64_4g"])
    told = renamed.hint("Could not find 'design/dragonfly_slab'")
    assert told == "\ndesign=dragonfly_slab is called dragonfly_2003oct now"
    assert "mail2003" in renamed.hint("Could not find 'design/dragonfly_percpu'")
    assert renamed.hint("Could not find 'design/other'") == ""
