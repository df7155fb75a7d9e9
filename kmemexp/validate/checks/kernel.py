"""Kernels that were recorded: slabs predicted beside those that /proc/slabinfo counted (K1). Never judged."""

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kmemexp.errors import TraceError
from kmemexp.predict import methods
from kmemexp.validate.check import Check
from kmemexp.validate.rows import Row, Wanted
from kmemexp.validate.setting import Setting
from kmemexp.workload.lives.snapshots import prefix_of
from kmemexp.workload.traces import capturing, library, record

SECONDS = 10.0
OF = Wanted("K1", "/proc/slabinfo before and after", "C")
ASK = "validate.record=true makes a recording of this machine (root, tracefs)"


def kernel(s: Setting) -> Iterator[Row]:
    """K1: slabs at the end of shipped recordings, and of one of this machine, as the model of SLUB has them."""
    for name in library.names():
        yield from _beside(f"shipped recording {name}", library.path_of(name))
    here = f"this machine, {SECONDS:g} s"
    if not s.record:
        yield OF.left_out(f"{here}: slab pages", ASK)
        return
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "here.txt"
        record.record(SECONDS, text, snapshot=functools.partial(capturing.capture, prefix_of(text)))
        yield from _beside(here, text)


def _beside(what: str, path: Path) -> Iterator[Row]:
    """A row for each method; one that says why where nothing can be predicted."""
    try:
        found = methods.predict(path)
    except TraceError as error:
        yield OF.left_out(f"{what}: slab pages", str(error).removeprefix(f"{path}: "))
        return
    for method in found.slabs:
        told = methods.summary(found, method)
        real = round(told["footprint_pages"] / (1 + told["footprint_error"]))
        note = f"caches are off by {told['off_pages']} pages in all, of {told['change_pages']} that came or went"
        yield OF.beside(f"{what}: slab pages, by {method.name} ({method.uses})", real, told["footprint_pages"], note)


CHECKS = (Check("K1", kernel, 6),)
