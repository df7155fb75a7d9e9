"""The kernel that made a recording: slabs predicted beside those that /proc/slabinfo counted (K1). Never judged."""

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kmemexp.predict import methods
from kmemexp.validate.check import Check
from kmemexp.validate.rows import Row, Wanted
from kmemexp.validate.setting import Setting
from kmemexp.workload.lives.snapshots import prefix_of
from kmemexp.workload.traces import capturing, record

SECONDS = 10.0
ASK = "validate.record=true makes a recording of this machine (root, tracefs)"


def kernel(s: Setting) -> Iterator[Row]:
    """K1: a fresh recording of this machine, and its slabs at the end as the model of SLUB gives them."""
    of = Wanted("K1", "/proc/slabinfo of this machine", "C")
    if not s.record:
        yield of.left_out("slab pages of the kernel that was recorded", ASK)
        return
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "here.txt"
        record.record(SECONDS, text, snapshot=functools.partial(capturing.capture, prefix_of(text)))
        found = methods.predict(text)
    for method in found.slabs:
        told = methods.summary(found, method)
        real = told["footprint_pages"] / (1 + told["footprint_error"])
        yield of.beside(f"slab pages at the end, by {method.name} ({method.uses})", real, told["footprint_pages"])


CHECKS = (Check("K1", kernel, 0.1),)
