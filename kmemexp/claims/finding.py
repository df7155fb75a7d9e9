"""Finding the experiments: one file in experiments/ for each claim."""

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from kmemexp.errors import ConfigError
from kmemexp.values import one_of


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


@cache
def load(name: str) -> ModuleType:
    """Import an experiment. ConfigError where there is none of that name, or its file lacks something."""
    one_of("experiment", name, names())
    path = folder() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"kmemexp_experiments.{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if missing := [part for part in ("__doc__", "CLAIM", "SWEEPS", "analyse") if not getattr(module, part, None)]:
        raise ConfigError(
            f"{path}: an experiment has {', '.join(missing)} too; kmemexp/claims/command.py says what it needs"
        )
    return module


def title(module: ModuleType) -> str:
    """First line of an experiment's docstring."""
    return module.__doc__.strip().splitlines()[0]
