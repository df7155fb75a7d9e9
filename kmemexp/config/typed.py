"""Values of an axis against the schema: their types, their sizes, and keys that it does not have."""

import pickle
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from kmemexp.config.cell import NODES
from kmemexp.config.schema import Config
from kmemexp.errors import ConfigError
from kmemexp.values import byte_count, close


def type_checked(key: str, values: Sequence[Any]) -> list[Any]:
    """Check values of one key against the schema: sizes and whole floats become integers. Raises ConfigError."""
    root = key.partition(".")[0]
    if root not in NODES:
        known = [f.name for f in fields(Config)]
        what = "says how to run, not what; it cannot be swept" if root in known else "unknown key"
        raise ConfigError(f"{key}: {what}{close(root, NODES)}; axes begin with {', '.join(NODES)}")
    whole = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    sized = [byte_count(key, v) if isinstance(v, str) and key.endswith("_bytes") else v for v in whole]
    if root == "workload":  # free in form; its own check comes when a cell is put together
        return sized
    schema = cast(DictConfig, pickle.loads(_pickled()))  # noqa: S301 - pickled here; to make one anew is slow
    sound: set[type] = set()  # no leaf of the schema takes one value of a type and refuses another; asking is slow
    checked = []
    for value in sized:
        typed = value if type(value) in sound else _typed(schema, key, value)
        if type(typed) is type(value):
            sound.add(type(value))
        checked.append(typed)
    return checked


@cache
def _pickled() -> bytes:
    return pickle.dumps(OmegaConf.structured(Config))


def _typed(schema: DictConfig, key: str, value: Any) -> Any:
    try:
        OmegaConf.update(schema, key, value)
    except (ConfigKeyError, ConfigAttributeError) as error:
        parent = OmegaConf.select(schema, key.rpartition(".")[0])
        known = [str(k) for k in parent] if isinstance(parent, DictConfig) else []
        hint = f"{close(key.rpartition('.')[2], known)}; there are {', '.join(known)}" if known else ""
        raise ConfigError(f"{key}: unknown key{hint}") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}={value}: {str(error).splitlines()[0]}") from error
    if OmegaConf.is_config(OmegaConf.select(schema, key)):
        raise ConfigError(f"{key}: is a group of keys; sweep over one of them")
    return OmegaConf.select(schema, key)
