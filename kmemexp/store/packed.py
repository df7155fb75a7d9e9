"""Replicas by cell key as manifests have them: the keys of cells that have the same replicas as one text."""

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping
from functools import cached_property


class Packed(Mapping[str, tuple[int, ...]]):
    """Replicas by cell key, from pairs of replicas and keys; looked into when somebody asks for a cell."""

    def __init__(self, told: Iterable[tuple[Iterable[int], str]]) -> None:
        self.told = [(tuple(replicas), keys) for replicas, keys in told]

    @classmethod
    def of(cls, cells: Mapping[str, Iterable[int]]) -> "Packed":
        """Write the keys of all cells that have the same replicas as one text."""
        if isinstance(cells, Packed):
            return cells
        alike: dict[tuple[int, ...], list[str]] = {}
        for key, replicas in cells.items():
            alike.setdefault(tuple(replicas), []).append(key)
        return cls((replicas, " ".join(keys)) for replicas, keys in alike.items())

    @property
    def lanes(self) -> int:
        """Number of rows."""
        return sum(len(replicas) * (keys.count(" ") + 1) for replicas, keys in self.told)

    @cached_property
    def _cells(self) -> dict[str, tuple[int, ...]]:
        return {key: replicas for replicas, keys in self.told for key in keys.split(" ")}

    def keys(self) -> KeysView[str]:
        """Give the keys."""
        return self._cells.keys()

    def items(self) -> ItemsView[str, tuple[int, ...]]:
        """Give the pairs."""
        return self._cells.items()

    def __getitem__(self, key: str) -> tuple[int, ...]:
        return self._cells[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)
