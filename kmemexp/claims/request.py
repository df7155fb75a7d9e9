"""What the command line asks for with `+experiment=…` and `experiment.…=`."""

import fnmatch
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from kmemexp.claims import finding
from kmemexp.errors import ConfigError
from kmemexp.planning.axes import read_overrides
from kmemexp.planning.composing import Composer, plain
from kmemexp.values import one_of

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

SIZES = ("default", "full")
SENSITIVITY = re.compile(r"\++sweep=sensitivity")
OWN = re.compile(r"[+~]*experiment[.=@]|" + SENSITIVITY.pattern + "$")
COSTS = {"false": "", "true": "assumed", "assumed": "assumed", "each": "each"}
"""What `experiment.costs` may say, and what that asks for."""


class Request(NamedTuple):
    """What the command line asks for."""

    names: list[str]
    size: str
    publish: str | None  # folder for charts and tables, besides the results
    confirm: bool
    recording: str | None  # a trace, for a confirmation
    costs: str  # with costs halved and doubled as well: "assumed" together, "each" by itself; "": no


def is_own(override: str) -> bool:
    """Whether an override is about experiments; all others go to every sweep."""
    return OWN.match(override) is not None


def read(overrides: Sequence[str], loader: "ConfigLoader") -> tuple[Request, list[str]]:
    """Split a command line into what it asks of experiments and what goes to their sweeps. Raises ConfigError."""
    sensitivity = any(SENSITIVITY.fullmatch(text) for text in overrides)
    asked = [text for text in overrides if is_own(text) and not SENSITIVITY.fullmatch(text)]
    rest = [text for text in overrides if not is_own(text)]
    if any(re.match(r"\+*sweep=", text) for text in rest):
        raise ConfigError("+experiment: brings its own sweeps; name it without +sweep")
    composer = Composer(loader)
    line = read_overrides([text for text in rest if text.startswith("hydra.")], composer.with_hydra)
    options = composer.options("experiment")
    chosen, settings = _chosen(asked)
    if not chosen and sensitivity:
        names = ", ".join(options)
        raise ConfigError(f"+sweep=sensitivity: moves the costs of a claim; name one by +experiment=NAME: {names}")
    if not chosen:
        raise ConfigError(f"+experiment=NAME is missing; there are {', '.join(options)}")
    wanted: list[str] = []
    for option in chosen:
        one_of("experiment", option, options)
        composed = composer.compose([*line.hydra, f"+experiment={option}", *settings])
        node = plain(composed, ["experiment"])["experiment"]
        one_of("experiment.size", node["size"], SIZES)
        one_of("experiment.costs", str(node["costs"]).lower(), tuple(COSTS))
        for pattern in node["names"]:
            wanted += fnmatch.filter(finding.names(), pattern) or [finding.existing(pattern)]
    size, publish, confirm, recording = (node[key] for key in ("size", "publish", "confirm", "recording"))
    costs = "each" if sensitivity else COSTS[str(node["costs"]).lower()]
    return Request(list(dict.fromkeys(wanted)), size, publish, confirm, recording, costs), rest


def _chosen(asked: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split `+experiment=a,b` from the settings `experiment.…`; the last one counts."""
    chosen, settings = "", []
    for text in asked:
        key, _, value = text.partition("=")
        if key.lstrip("+") == "experiment":
            chosen = value
        else:
            settings.append(text)
    return [name.strip() for name in chosen.strip("[]").split(",") if name.strip()], settings
