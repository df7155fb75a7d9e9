"""What is wrong with a configuration, in one message: what Hydra, OmegaConf and YAML say of it."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import yaml  # type: ignore[import-untyped]  # PyYAML comes without types; OmegaConf brings it
from hydra.errors import HydraException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from kmemexp.config.schema import Config
from kmemexp.values import close

COMPOSE_ERRORS = (HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError)
"""What Hydra raises where overrides do not compose: a ValueError for a group's option that is a number."""
SHORT = {
    "replicas": "sweep.reps.max",
    "baseline": "sweep.baseline",
    "sources": "interrupts/sources",
    "results": "store.root",
}
"""What some keys are called for short."""
HYDRA_NOISE = ("object_type=", "reference_type=")


def explanation(error: Exception) -> str:
    """Put what Hydra says, and what OmegaConf said to it, into one message."""
    if isinstance(error, yaml.YAMLError):
        return yaml_problem(error)
    cause = error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and str(error).startswith("Could not override"):
        return _unknown(cause)
    texts = [str(error), *([str(cause)] if isinstance(cause, OmegaConfBaseException) else [])]
    return "\n".join(line for text in texts for line in text.splitlines() if not line.lstrip().startswith(HYDRA_NOISE))


def _unknown(error: OmegaConfBaseException) -> str:
    """Say which key of an override is none, and which one may be meant. Hydra would have a `+` put before it."""
    path, of = str(error.full_key), error.object_type
    name = path.rpartition(".")[2]
    known = [f.name for f in fields(of)] if is_dataclass(of) else []
    there = [SHORT[name]] if name in SHORT else [key for key in _keys(Config) if key.rpartition(".")[2] == name]
    hint = f" (did you mean {' or '.join(there)}?)" if there else close(name, known)
    return f"{path}: unknown key{hint}" + (f"; there are {', '.join(known)}" if known else "")


def _keys(of: type, prefix: str = "") -> Iterator[str]:
    """Every node and key of the schema below a node, with dots."""
    for f in fields(of):
        yield prefix + f.name
        made: Any = f.default_factory
        if isinstance(made, type) and is_dataclass(made):
            yield from _keys(made, f"{prefix}{f.name}.")


def yaml_problem(error: yaml.YAMLError, file: str = "") -> str:
    """Say where a file is no plain YAML, and why."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
    where = f"{file or mark.name}, line {mark.line + 1}, column {mark.column + 1}: " if mark else f"{file}: "
    if isinstance(error, yaml.constructor.ConstructorError):
        return f"{where}{problem}. Tags (!…) are not allowed here: a configuration is plain values"
    return f"{where}{problem}"
