"""The manifests of a results folder, read in their order into a ledger; and putting the next one."""

import contextlib

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore

from kmemexp.store import files, manifest
from kmemexp.store.files import DamageError
from kmemexp.store.ledger import Ledger
from kmemexp.store.manifest import Change, Whole
from kmemexp.store.tidy import listed

EVERY = 500
"""Manifests between two files that say what counts: each manifest is a file to be read."""


class History:
    """What the manifests of a folder say. `ledger`: what counts; `next`: number of the next manifest.

    `rows`: whether the ledger is to know from the start where each row is (`Ledger.index`).
    """

    def __init__(self, objects: ObjectStore, *, rows: bool = True) -> None:
        self._rows = rows
        self.ledger = self._fresh()
        self.next = 0
        self._objects = objects
        self._last = ""  # digest of the manifest before the next one
        self._whole = 0  # number of the next manifest when what counts was last written down

    def refresh(self) -> None:
        """Take in the manifests that have appeared since. Raises DamageError."""
        there = set(listed(self._objects, manifest.FOLDER))
        if not self.next:
            self.begin(there)
        numbers = sorted(n for path in there if (n := manifest.number_in(path)) is not None and n >= self.next)
        if numbers and numbers[-1] - self.next + 1 > len(numbers):
            # Somebody may be putting manifests while they are listed: what is missing is asked for by its name.
            numbers = list(range(self.next, numbers[-1] + 1))
        texts = files.in_parallel(self._text, numbers)
        for number, text in zip(numbers, texts, strict=True):
            if text is None:
                raise DamageError(f"{manifest.path_of(number)} is gone, but there is one of a higher number")
            self.take(number, text)

    def take(self, number: int, text: bytes, *, after_loss: bool = False) -> None:
        """Take in one manifest. Raises DamageError. `after_loss`: it may remove files that a lost one has added."""
        path = manifest.path_of(number)
        change = manifest.decode(path, text, self._last)
        if after_loss:
            change = change._replace(remove=[file_id for file_id in change.remove if file_id in self.ledger.files])
        try:
            self.ledger.apply(change)
        except ValueError as error:
            raise DamageError(f"{path} is damaged: {error}") from error
        self.next, self._last = number + 1, manifest.digest(text)

    def skip(self, number: int) -> None:
        """Go on after a manifest that cannot be read."""
        self.next, self._last = number + 1, ""

    def append(self, change: Change, run: str) -> bool:
        """Put the next manifest. False, and what others have committed is taken in, if its number was taken."""
        text = manifest.encode(change, run, self._last)
        try:
            obstore.put(self._objects, manifest.path_of(self.next), text, mode="create")
        except AlreadyExistsError:
            self.refresh()
            return False
        self.ledger.apply(change)
        self.next, self._last = self.next + 1, manifest.digest(text)
        return True

    def write_whole(self, *, now: bool = False) -> None:
        """Write down what counts, if that has not been done for long: readers then need not read all manifests."""
        if not self.next or (self.next - self._whole < EVERY and not now):
            return
        # What has been removed is deleted by now, but for what a committer who was killed has left.
        whole = Whole(list(self.ledger.files.values()), [], self._last)
        obstore.put(self._objects, manifest.whole_path(self.next - 1), manifest.encode_whole(whole))
        self._whole = self.next

    def wholes(self) -> list[int]:
        """Numbers of the manifests after which it is written down what counts."""
        return sorted(n for p in listed(self._objects, manifest.FOLDER) if (n := manifest.whole_number(p)) is not None)

    def begin(self, there: set[str]) -> None:
        """Begin with the last sound file that says what counts."""
        for number in sorted((n for path in there if (n := manifest.whole_number(path)) is not None), reverse=True):
            path = manifest.whole_path(number)
            with contextlib.suppress(DamageError, FileNotFoundError, ValueError):
                whole = manifest.decode_whole(path, bytes(obstore.get(self._objects, path).bytes()))
                fresh = self._fresh()
                fresh.apply(Change(whole.files, []))
                fresh.removed.update(whole.removed)
                self.ledger, self.next, self._last, self._whole = fresh, number + 1, whole.last, number + 1
                return

    def _fresh(self) -> Ledger:
        ledger = Ledger()
        if self._rows:
            ledger.index()
        return ledger

    def _text(self, number: int) -> bytes | None:
        with contextlib.suppress(FileNotFoundError):
            return bytes(obstore.get(self._objects, manifest.path_of(number)).bytes())
        return None
