"""What Ray says of its own accord, put into a file of the results folder.

Whatever it is told of logging, Ray prints on this process's standard output that a worker has died, with a paragraph
of advice: in the middle of a progress bar, of a table, or of what `output=json` prints.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import obstore
from ray._private import worker

from kmemexp.errors import StoreError
from kmemexp.store import files
from kmemexp.values import visible

NAME = "_ray.log"
MOST = 1 << 16  # characters of a log that are kept


class Log:
    """A file to which messages are appended. A store that takes none is no reason to end a run."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._text: str | None = None
        self._lock = threading.Lock()

    def take(self, data: dict[str, Any], *_: Any, **__: Any) -> None:
        """Append what Ray's `print_to_stdstream` is given to print."""
        lines = [visible(str(line)) for line in data.get("lines", ())]
        with self._lock, contextlib.suppress(StoreError, UnicodeDecodeError), files.explained(self._root):
            objects = files.connect(self._root)
            before = files.read_text(objects, NAME) if self._text is None else self._text
            self._text = "".join([before or "", *(f"{line}\n" for line in lines)])[-MOST:]
            obstore.put(objects, NAME, self._text.encode())


@contextlib.contextmanager
def logged(root: str) -> Iterator[None]:
    """Inside, what Ray would print goes to the log of the results folder `root`."""
    before, worker.print_to_stdstream = worker.print_to_stdstream, Log(root).take
    try:
        yield
    finally:
        worker.print_to_stdstream = before
