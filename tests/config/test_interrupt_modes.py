"""Which interrupts were fast in which kernel: `interrupts.modes`, and sources that take their mode from it."""

import json

import pytest

from kmemexp.boot import sources
from kmemexp.config import files
from kmemexp.errors import ConfigError
from kmemexp.planning.plan import plan_from

DESIGNS = sorted(path.stem for path in (files.conf_dir() / "design").glob("*.yaml"))
FREEBSD4, DEVICES = ("device", "device", "fast"), ("device", "device", "device")
OTHERS = {
    "freebsd4": FREEBSD4,  # clk and rtc: INTR_EXCL only
    "freebsd4_unified": FREEBSD4,
    "dragonfly_2020": ("fast", "fast", "device"),  # only INTR_CLOCK; INTR_FAST is gone
    "dragonfly_2021": ("fast", "fast", "device"),
    # The clock blocks as a thread of level 10, asy comes in above it.
    **dict.fromkeys(("illumos", "illumos_amd64"), ("device", "device", "fast")),
    **dict.fromkeys(("linux_slub", "linux_6_12", "linux_6_18", "linux_7_1"), DEVICES),
}
MACHINE = dict.fromkeys(("freebsd15", "illumos_amd64"), "machine=amd64_4g")  # where it is not the default
FAST = ("fast", "fast", "fast")  # DragonFly since 29 June 2003; FreeBSD 5


def modes(*overrides: str) -> dict[str, str]:
    (plan,) = plan_from(["cost=opteron2003", *overrides])
    interrupts = json.loads(plan.cells["config"].iloc[0])["interrupts"]
    assert "modes" not in interrupts  # a cell is known by the modes of its sources
    return {name: source["mode"] for name, source in interrupts["sources"].items()}


@pytest.mark.parametrize("design", DESIGNS)
def test_the_clocks_and_the_serial_line_of_a_design_are_those_of_its_kernel(design: str) -> None:
    where = [MACHINE[design]] if design in MACHINE else []
    found = modes(f"design={design}", *where)
    assert tuple(found[name] for name in ("clock", "statclock", "serial")) == OTHERS.get(design, FAST)
    assert modes(f"design={design}", "interrupts/sources=stress", *where)["clock"] == OTHERS.get(design, FAST)[0]


def test_a_source_with_a_mode_of_its_own_keeps_it() -> None:
    assert modes("design=dragonfly_2003oct", "interrupts.sources.clock.mode=device")["clock"] == "device"
    assert modes("design=dragonfly_2003oct", "interrupts.modes.clock=device")["clock"] == "device"


@pytest.mark.parametrize(
    ("given", "told"),
    [({}, r"interrupts\.modes\.clock: is missing"), ({"clock": "quick"}, r"interrupts\.modes\.clock=quick: unknown")],
)
def test_a_kernel_that_does_not_say_is_an_error(given: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sources.of_kernel({"clock": {"mode": "kernel"}}, given)
