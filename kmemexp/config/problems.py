"""What is wrong with a configuration, in one message: what Hydra, OmegaConf and YAML say of it."""

import yaml  # type: ignore[import-untyped]  # PyYAML comes without types; OmegaConf brings it
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

COMPOSE_ERRORS = (HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError)
"""What Hydra raises where overrides do not compose: a ValueError for a group's option that is a number."""
HYDRA_NOISE = ("object_type=", "reference_type=")


def explanation(error: Exception) -> str:
    """Put what Hydra says, and what OmegaConf said to it, into one message."""
    if isinstance(error, yaml.YAMLError):
        return yaml_problem(error)
    cause = error.__cause__
    texts = [str(error), *([str(cause)] if isinstance(cause, OmegaConfBaseException) else [])]
    return "\n".join(line for text in texts for line in text.splitlines() if not line.lstrip().startswith(HYDRA_NOISE))


def yaml_problem(error: yaml.YAMLError, file: str = "") -> str:
    """Say where a file is no plain YAML, and why."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
    where = f"{file or mark.name}, line {mark.line + 1}, column {mark.column + 1}: " if mark else f"{file}: "
    if isinstance(error, yaml.constructor.ConstructorError):
        return f"{where}{problem}. Tags (!…) are not allowed here: a configuration is plain values"
    return f"{where}{problem}"
