"""Configurations of the rows of a table, taken apart: cells of a sweep have most of what they say in common.

A canonical text has its nodes in the order of the alphabet, so it is cut where the next one begins. A cut within an
inner mapping would leave a piece that is no JSON, and then the whole text is read.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from kmemexp.config.cell import NODES, canonical

KEPT = 4096  # pieces whose values are held


@lru_cache(KEPT)
def value(text: str) -> Any:
    """Decode the text of a node: to look at, not to change."""
    return json.loads(text)


def nodes(config: str | None) -> Mapping[str, str]:
    """Text of each node of a configuration (JSON); {} for none."""
    if not config:
        return {}
    found = _cut(config)
    try:
        for text in found.values():
            value(text)
    except ValueError:
        return {node: canonical(said) for node, said in json.loads(config).items()}
    return found


def _cut(config: str) -> dict[str, str]:
    """Cut a text before each node; what is no canonical text of a cell gives pieces that are no JSON, or none."""
    begins = f'{{"{NODES[0]}":'
    if not (config.startswith(begins) and config.endswith("}")):
        return {"": ""}
    found, last, start = {}, NODES[0], len(begins)
    for node in NODES[1:]:
        mark = f',"{node}":'
        at = config.find(mark, start)
        if at >= 0:
            found[last] = config[start:at]
            last, start = node, at + len(mark)
    found[last] = config[start:-1]
    return found
