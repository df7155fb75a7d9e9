"""What a check is."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kmemexp.validate.rows import Row
from kmemexp.validate.setting import Setting


class Check(NamedTuple):
    """A check: its name in the table, what it does, and about how many seconds it takes, compiled."""

    name: str
    run: Callable[[Setting], Iterator[Row]]
    seconds: float = 1.0
