"""What a check is given: random numbers of its own, how long it may take, and what else was asked for."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
LEVELS = ("quick", "full", "brief")
"""The last one is for mutants: as little as tells right from wrong, without compiling."""


@dataclass(frozen=True)
class Setting:
    """One check's part of `action=validate`."""

    rng: np.random.Generator
    level: str = "quick"
    record: bool = False  # of this machine, for the check against the real kernel

    @property
    def full(self) -> bool:
        """Whether all cases are wanted, at full length."""
        return self.level == "full"

    def long(self, quick: float, full: float) -> float:
        """How long something is to be, by the level."""
        if self.level == "brief":
            return max(1.0, quick / 2 if quick <= 30 else quick / 120)
        return full if self.full else quick

    def some(self, cases: Sequence[T], quick: int) -> list[T]:
        """All cases at full level, else as many as `quick`, drawn; in their order."""
        if self.full or quick >= len(cases):
            return list(cases)
        chosen = self.rng.choice(len(cases), quick, replace=False)
        return [cases[i] for i in sorted(chosen.tolist())]

    def uniform(self, low: float, high: float) -> float:
        """Draw a number, to three digits, so that the table shows all of it."""
        return float(f"{self.rng.uniform(low, high):.3g}")

    def whole(self, low: int, high: int) -> int:
        """Draw a whole number from `low` to `high`."""
        return int(self.rng.integers(low, high + 1))

    def one(self, cases: Sequence[T]) -> T:
        """Draw one of these."""
        return cases[int(self.rng.integers(len(cases)))]

    def seed(self) -> int:
        """Draw a seed for something that draws by itself."""
        return int(self.rng.integers(1 << 31))


def setting(name: str, seed: int, **more: Any) -> Setting:
    """Make the setting of the check called `name`: its numbers do not depend on which other checks run."""
    return Setting(np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()),))), **more)
