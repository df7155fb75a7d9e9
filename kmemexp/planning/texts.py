"""Canonical JSON of all cells of a plan, held as the pieces that it is made of: whole, a cell's takes 2 KiB."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

CHUNK = 10_000  # cells whose numbers are lists at a time


class Pieces(NamedTuple):
    """A cell's canonical JSON, by node, or whole where `nodes` is empty. Cells that have a piece in common share it."""

    nodes: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def text(self) -> str:
        """The JSON."""
        if not self.nodes:
            return self.texts[0]
        return "{" + ",".join([f'"{node}":{text}' for node, text in zip(self.nodes, self.texts, strict=True)]) + "}"

    def value(self, node: str) -> Any:
        """Decode what one node says; None where there is none of that name."""
        if not self.nodes:
            return json.loads(self.texts[0]).get(node)
        return json.loads(self.texts[self.nodes.index(node)]) if node in self.nodes else None

    def of(self, nodes: Collection[str]) -> tuple[str, ...]:
        """Texts of these nodes; the whole text where it is in one piece."""
        if not self.nodes:
            return self.texts
        return tuple([text for node, text in zip(self.nodes, self.texts, strict=True) if node in nodes])

    def decoded(self, known: dict[str, Any]) -> dict[str, Any]:
        """Decode it. What it has in common with others is decoded once, into `known` by its text: not to be changed."""
        found = []
        for text in self.texts:
            if (value := known.get(text, known)) is known:
                value = known[text] = json.loads(text)
            found.append(value)
        return dict(zip(self.nodes, found, strict=True)) if self.nodes else dict(found[0])


class Texts(Sequence[str]):
    """One text per cell. `pieces`: by node, its distinct texts and which of them each cell has."""

    def __init__(self, pieces: Mapping[str, tuple[Sequence[str], NDArray[np.int64]]]) -> None:
        self._form = "{" + ",".join(f'"{node}":%s' for node in pieces) + "}"
        self._texts = [texts for texts, _ in pieces.values()]
        self._numbers = np.stack([numbers.astype(np.int32) for _, numbers in pieces.values()])
        self._nodes = tuple(pieces)

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

    def pieces(self, at: int) -> Pieces:
        """Give a cell's text in its pieces."""
        numbers = self._numbers[:, at].tolist()
        return Pieces(self._nodes, tuple([texts[i] for texts, i in zip(self._texts, numbers, strict=True)]))

    def halves(self, node: str) -> Iterator[tuple[str, str]]:
        """Cut each text before `node`; cells that agree so far are given one and the same beginning."""
        cut = self._nodes.index(node)
        forms = [",".join(f'"{name}":%s' for name in some) for some in (self._nodes[:cut], self._nodes[cut:])]
        heads, number = np.unique(self._numbers[:cut], axis=1, return_inverse=True)
        begun = ["{" + forms[0] % row + "," for row in self._columns(heads, self._texts[:cut])]
        which = number.ravel()
        for start in range(0, len(self), CHUNK):
            rows = self._columns(self._numbers[cut:, start : start + CHUNK], self._texts[cut:])
            for i, row in zip(which[start : start + CHUNK].tolist(), rows, strict=True):
                yield begun[i], forms[1] % row + "}"

    def chosen(self, places: Sequence[int]) -> "Texts":
        """Keep the texts of these cells, in this order."""
        kept: Any = Texts.__new__(Texts)
        kept.__dict__.update(self.__dict__)
        kept._numbers = self._numbers[:, places]
        chosen: Texts = kept
        return chosen

    @staticmethod
    def joined(parts: "Sequence[Texts]") -> "Texts":
        """Put the texts of several tables, of the same nodes, into one."""
        pieces = {}
        for row, node in enumerate(parts[0]._nodes):
            places: dict[str, int] = {}
            numbers = []
            for part in parts:
                renumbered = [places.setdefault(text, len(places)) for text in part._texts[row]]
                numbers.append(np.array(renumbered, np.int64)[part._numbers[row]])
            pieces[node] = (list(places), np.concatenate(numbers))
        return Texts(pieces)

    def distinct(self, nodes: Sequence[str], among: NDArray[np.bool_]) -> list[str]:
        """Return a text for each combination of these nodes in the cells `among`."""
        rows = [self._nodes.index(node) for node in nodes if node in self._nodes]
        places = np.flatnonzero(among)
        _, first = np.unique(self._numbers[rows][:, places], axis=1, return_index=True)
        return [self[int(places[i])] for i in sorted(first)]

    def _some(self, numbers: NDArray[np.int32]) -> Iterator[str]:
        return (self._form % row for row in self._columns(numbers, self._texts))

    @staticmethod
    def _columns(numbers: NDArray[np.int32], texts: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
        """Texts that these numbers stand for, by cell."""
        columns = [[each[i] for i in row] for each, row in zip(texts, numbers.tolist(), strict=True)]
        return zip(*columns, strict=True)
