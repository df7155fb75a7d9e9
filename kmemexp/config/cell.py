"""A cell's identity: its canonical JSON and the key made of it. Imports nothing heavy, so that workers can use it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kmemexp.parts.model import version

MODEL_VERSION = 3  # the sources that a cell reaches are in its key by themselves (parts.model)
SCHEMA_VERSION = 4  # raise when the meaning or the form of a configuration changes
NODES = (
    "cost", "design", "interrupts", "machine", "maps", "memory", "objects", "policy", "roles", "sample", "seed",
    "stability", "workload",
)  # fmt: skip
"""The nodes of a configuration that make a cell, sorted; how and where it runs is not among them."""
KEY_BEFORE = '{"config":'


def canonical(config: Any) -> str:
    """JSON with sorted keys and no spaces; whole floats are written as integers, so that 60 and 60.0 are one value.

    Raises ValueError for NaN and infinities, TypeError for anything that JSON cannot hold.
    """
    if type(config) is int:  # a seed, most of the time
        return str(config)
    return json.dumps(_whole(config), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def cell_key(config: Mapping[str, Any]) -> str:
    """Key of a cell, 32 hexadecimal digits: equal for equal configurations, whatever the order of their keys."""
    return key_of(canonical(config), model_of(config))


def key_of(canonical_json: str, model: str) -> str:
    """`cell_key` of a configuration that is in canonical form already; `model`: `model_of` it."""
    return digest(KEY_BEFORE + canonical_json + key_after(model))


def key_after(model: str) -> str:
    """What stands after the configuration in the text that a key is the digest of; before it stands KEY_BEFORE."""
    return f',"model":"{model}","model_version":{MODEL_VERSION},"schema_version":{SCHEMA_VERSION}}}'


def model_of(config: Mapping[str, Any]) -> str:
    """Digest of the sources that simulate a cell; "" for a configuration that is no cell's."""
    try:
        return model_with(config["objects"], config["maps"], config["cost"])
    except (KeyError, TypeError):
        return ""


def model_with(objects: Mapping[str, Any], maps: Mapping[str, Any], cost: Mapping[str, Any]) -> str:
    """Digest of the sources that simulate a cell with these nodes."""
    served = {objects["malloc"], objects["zone"], objects["mbuf"], *objects["kinds"].values()}
    return version(tuple(sorted(served)), maps["arena"], cost["name"] != "none")


class Digest:
    """The digest of texts that begin alike, without reading the beginning each time."""

    def __init__(self, head: str) -> None:
        self._head = hashlib.sha256(head.encode())

    def of(self, tail: str) -> str:
        """`digest(head + tail)`."""
        whole = self._head.copy()
        whole.update(tail.encode())
        return whole.hexdigest()[:32]


def digest(text: str) -> str:
    """First 32 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(k): _whole(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole(v) for v in value]
    return value
