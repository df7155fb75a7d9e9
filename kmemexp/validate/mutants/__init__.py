"""Deliberate faults, and which check catches which: `validate.mutants=true`.

A mutant is one edit of one source, listed in `mutants.toml`: it is made in a copy of the package in a temporary folder,
never here. There the checks that it concerns run at their shortest, as plain Python (NUMBA_DISABLE_JIT), in a process
that is forked from one which has imported the libraries (`nursery.py`). A mutant is caught where a row that passes on
the sound copy does not pass any more, or where a check ends with an error or does not end.
"""

import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kmemexp.errors import ConfigError

PACKAGE = Path(__file__).parents[2]
SECONDS = 60  # of CPU time that a check may take; a mutant, a few times as long as sound code: else it does not end
SOUND = "(sound)"


class Mutant(NamedTuple):
    """A fault."""

    name: str
    file: str  # below kmemexp/
    old: str
    new: str
    what: str  # what is broken, in a sentence
    checks: tuple[str, ...]


class Fate(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    caught: tuple[str, ...]  # rows that do not pass any more: "check: what"
    checks: tuple[str, ...]  # that gave them


def mutants() -> list[Mutant]:
    """All mutants. Raises ConfigError for one whose text is not there exactly once: then its list is out of date."""
    with (Path(__file__).parent / "mutants.toml").open("rb") as file:
        listed = tomllib.load(file)["mutant"]
    found = [Mutant(m["name"], m["file"], m["old"], m["new"], m["what"], tuple(m["checks"])) for m in listed]
    for one in found:
        count = (PACKAGE / one.file).read_text("utf-8").count(one.old)
        if count != 1 or one.old == one.new:
            raise ConfigError(
                f"mutant {one.name}: its text is {count} times in kmemexp/{one.file}; it must be there once"
            )
    return found


def run(wanted: Sequence[Mutant], seed: int, processes: int | None = None) -> Iterator[Fate]:
    """Try mutants, in as many processes as there are CPUs; yields each as it is done."""
    lanes = max(1, min(processes or os.cpu_count() or 1, len(wanted)))
    alike = sorted(wanted, key=lambda mutant: mutant.checks)  # a lane tries few checks on its sound copy
    size = -(-len(alike) // lanes)
    fates: queue.Queue[Fate | Exception | None] = queue.Queue()
    with tempfile.TemporaryDirectory(prefix="kmemexp-mutants-") as folder:
        for lane in range(lanes):
            work = (Path(folder) / str(lane), alike[lane * size : (lane + 1) * size], seed, fates)
            threading.Thread(target=_lane, args=work, daemon=True).start()
        ended = 0
        while ended < lanes:
            fate = fates.get()
            if isinstance(fate, Exception):
                raise fate
            ended += fate is None
            if fate is not None:
                yield fate


def _lane(root: Path, share: Sequence[Mutant], seed: int, fates: "queue.Queue[Fate | Exception | None]") -> None:
    """Try mutants one after the other in a copy of the package of their own."""
    try:
        for fate in _tried(root, share, seed):
            fates.put(fate)
        fates.put(None)
    except Exception as error:
        fates.put(error)


def _tried(root: Path, share: Sequence[Mutant], seed: int) -> Iterator[Fate]:
    shutil.copytree(PACKAGE, root / PACKAGE.name)  # with the times of files, so that compiled modules stay valid
    for name in ("conf", "experiments"):  # beside the package in a checkout, within it where it is installed
        if (PACKAGE.parent / name).is_dir() and not (PACKAGE / name).exists():
            shutil.copytree(PACKAGE.parent / name, root / name)
    checks = sorted({name for mutant in share for name in mutant.checks})
    jobs: list[dict[str, Any]] = [{"name": SOUND, "checks": checks}]
    jobs += [{"name": m.name, "checks": m.checks, "file": m.file, "old": m.old, "new": m.new} for m in share]
    order = {"root": str(root), "package": PACKAGE.name, "seed": seed, "seconds": SECONDS, "jobs": jobs}
    (root / "order.json").write_text(json.dumps(order), "utf-8")
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": ""}
    script = [sys.executable, str(Path(__file__).parent / "nursery.py"), str(root / "order.json")]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True, cwd=root, env=environment) as nursery:  # noqa: S603
        lines = iter(nursery.stdout or ())
        sound = {tuple(row) for row in json.loads(next(lines, '{"rows": []}'))["rows"] if row[2]}
        for mutant, line in zip(share, lines, strict=False):
            yield _fate(mutant, sound, json.loads(line)["rows"])
    if nursery.returncode or not sound:
        raise RuntimeError(
            f"the nursery of mutants ended with {nursery.returncode}, {len(sound)} rows of sound code pass"
        )


def _fate(mutant: Mutant, sound: set[Any], rows: Sequence[Sequence[Any]]) -> Fate:
    """Compare the rows of a mutant's checks with those of the sound copy; a row that is not there is one that fails."""
    passing = {(row[0], row[1]) for row in rows if row[2]}
    gone = [row for row in sorted(sound) if row[3] in mutant.checks and (row[0], row[1]) not in passing]
    return Fate(mutant, tuple(f"{row[0]}: {row[1]}" for row in gone), tuple(row[3] for row in gone))
