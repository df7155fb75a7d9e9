"""Whether a cell has a clock. By itself, so that a cell without one does not reach the machine with one."""

from collections.abc import Mapping
from typing import Any


def is_timed(config: Mapping[str, Any]) -> bool:
    """Whether a cell runs on the machine with a clock."""
    return bool(config["cost"]["name"] != "none")
