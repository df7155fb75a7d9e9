"""Finding the experiments: what sweeps say about the claims of the mail, a file in experiments/ for each claim.

An experiment is a module with a docstring, whose first line is the claim as a sentence ("C4: …"), and

- `CLAIM`: its short name, such as "C4";
- `SWEEPS`: the files of conf/sweep/ that it needs;
- `PROTOCOL`: the rule as data (`protocol.Protocol`): what is judged, family, margins, replicas, and on what it is
  confirmed;
- `DEFAULT`, `FULL` (optional): further overrides by sweep, at the default size and at `experiment.size=full`;
- `analyse(results) -> Report`: from the `Results` of each sweep, by its name, to what they say.

In a notebook, with results that are there:
`load("c4_headroom").analyse({"fragmentation": kmemexp.load("results/fragmentation")})`.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

from kmemexp.errors import ConfigError
from kmemexp.values import one_of

NEEDED = ("__doc__", "CLAIM", "SWEEPS", "PROTOCOL", "analyse")


def folder() -> Path:
    """Folder of the experiments: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "experiments", package.parent / "experiments"):
        if place.is_dir():
            return place
    raise ConfigError(f"there is no folder {package / 'experiments'} nor {package.parent / 'experiments'}")


def names() -> list[str]:
    """Names of all experiments, sorted."""
    return sorted(path.stem for path in folder().glob("*.py") if not path.stem.startswith("_"))


def existing(name: str) -> str:
    """Return the name of an experiment. ConfigError, with all names, where there is none of that name."""
    one_of("experiment", name, names())
    return name


@cache
def load(name: str) -> ModuleType:
    """Import an experiment. ConfigError where there is none of that name, or its file lacks something."""
    path = folder() / f"{existing(name)}.py"
    spec = importlib.util.spec_from_file_location(f"kmemexp_experiments.{name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if missing := [what for what in NEEDED if not getattr(module, what, None)]:
        raise ConfigError(
            f"{path}: an experiment has {', '.join(missing)} too; kmemexp/claims/finding.py says what it needs"
        )
    return module


def title(module: ModuleType) -> str:
    """First line of an experiment's docstring."""
    return (module.__doc__ or "").strip().splitlines()[0]


def sweeps(module: ModuleType, size: str) -> list[tuple[str, ...]]:
    """Name each sweep of an experiment with what is overridden there at this size. Raises ConfigError."""
    more: Mapping[str, Sequence[str]] = getattr(module, "FULL" if size == "full" else "DEFAULT", {})
    if unknown := sorted(set(more) - set(module.SWEEPS)):
        raise ConfigError(f"{module.__file__}: overrides for {unknown[0]}, which is not in SWEEPS")
    return [(sweep, *more.get(sweep, ())) for sweep in module.SWEEPS]
