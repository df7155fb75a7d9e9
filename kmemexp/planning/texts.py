"""Canonical JSON of all cells of a plan, held as the pieces that it is made of: whole, a cell's takes 2 KiB."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

CHUNK = 10_000  # cells whose numbers are lists at a time


class Texts(Sequence[str]):
    """One text per cell. `pieces`: by node, its distinct texts and which of them each cell has."""

    def __init__(self, pieces: Mapping[str, tuple[Sequence[str], NDArray[np.int64]]]) -> None:
        self._form = "{" + ",".join(f'"{node}":%s' for node in pieces) + "}"
        self._texts = [texts for texts, _ in pieces.values()]
        self._numbers = np.stack([numbers.astype(np.int32) for _, numbers in pieces.values()])
        self._nodes = list(pieces)

    def __len__(self) -> int:
        return int(self._numbers.shape[1])

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return list(self._some(self._numbers[:, at]))
        numbers = self._numbers[:, at].tolist()
        return self._form % tuple(texts[i] for texts, i in zip(self._texts, numbers, strict=True))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), CHUNK):
            yield from self._some(self._numbers[:, start : start + CHUNK])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # like a list

    def chosen(self, places: Sequence[int]) -> "Texts":
        """Keep the texts of these cells, in this order."""
        kept: Any = Texts.__new__(Texts)
        kept.__dict__.update(self.__dict__)
        kept._numbers = self._numbers[:, places]
        chosen: Texts = kept
        return chosen

    def distinct(self, nodes: Sequence[str], among: NDArray[np.bool_]) -> list[str]:
        """Return a text for each combination of these nodes in the cells `among`."""
        rows = [self._nodes.index(node) for node in nodes if node in self._nodes]
        places = np.flatnonzero(among)
        _, first = np.unique(self._numbers[rows][:, places], axis=1, return_index=True)
        return [self[int(places[i])] for i in sorted(first)]

    def _some(self, numbers: NDArray[np.int32]) -> Iterator[str]:
        columns = [[texts[i] for i in row] for texts, row in zip(self._texts, numbers.tolist(), strict=True)]
        return (self._form % row for row in zip(*columns, strict=True))
