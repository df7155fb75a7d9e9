"""What the command line asks for with `+experiment=…` and `experiment.…=`."""

import fnmatch
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from kmemexp.claims import finding
from kmemexp.errors import ConfigError
from kmemexp.planning.axes import read_overrides
from kmemexp.planning.cells import Composer, plain
from kmemexp.values import one_of

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

SIZES = ("default", "full")
OWN = re.compile(r"[+~]*experiment[.=@]")


class Request(NamedTuple):
    """What the command line asks for."""

    names: list[str]
    size: str
    publish: str | None  # folder for charts and tables, besides the results
    confirm: bool
    recording: str | None  # a trace, for a confirmation
    costs: bool  # with assumed costs halved and doubled as well


def is_own(override: str) -> bool:
    """Whether an override is about experiments; all others go to every sweep."""
    return OWN.match(override) is not None


def read(overrides: Sequence[str], loader: "ConfigLoader") -> tuple[Request, list[str]]:
    """Split a command line into what it asks of experiments and what goes to their sweeps. Raises ConfigError."""
    asked = [text for text in overrides if is_own(text)]
    rest = [text for text in overrides if not is_own(text)]
    if any(re.match(r"\+*sweep=", text) for text in rest):
        raise ConfigError("+experiment: brings its own sweeps; name it without +sweep")
    composer = Composer(loader)
    line = read_overrides([text for text in rest if text.startswith("hydra.")], composer.with_hydra)
    options = composer.options("experiment")
    chosen, settings = _chosen(asked)
    if not chosen:
        raise ConfigError(f"+experiment=NAME is missing; there are {', '.join(options)}")
    wanted: list[str] = []
    for option in chosen:
        one_of("experiment", option, options)
        composed = composer.compose([*line.hydra, f"+experiment={option}", *settings])
        node = plain(composed, ["experiment"])["experiment"]
        one_of("experiment.size", node["size"], SIZES)
        for pattern in node["names"]:
            wanted += fnmatch.filter(finding.names(), pattern) or [finding.existing(pattern)]
    more = (node[key] for key in ("size", "publish", "confirm", "recording", "costs"))
    return Request(list(dict.fromkeys(wanted)), *more), rest


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
