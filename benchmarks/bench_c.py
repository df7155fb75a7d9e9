"""Replaying a recording on malloc's buckets against C at -O3, in one run, both on memory never touched before.

    python benchmarks/bench_c.py [TRACE] [--repeat N] [--few]

TRACE is a shipped trace's name or a file (default: the compile trace beside the checkout, else pgbench). The C is
`benchmarks/c/buckets.c`, built with `cc` (or $CC); without a compiler there is nothing to compare with. The totals of
the two must be equal.
"""

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_replay import COMPILE

from kmemexp.boot.machine import boot
from kmemexp.planning.plan import plan_from
from kmemexp.sim.probes import SERVER_MAP
from kmemexp.sim.tables import tally
from kmemexp.workload.stream import Kinds, Stream, columns
from kmemexp.workload.traces import library

SOURCE = Path(__file__).parent / "c" / "buckets.c"
TOTALS = (
    "ALLOCS", "FREES", "REQUESTED", "GRANTED", "REQUESTED_PEAK", "HELD", "HELD_PEAK", "REQUESTED_TOTAL",
    "GRANTED_TOTAL", "STEPS", "MAP_OPS", "DIRECT", "HELD_AT_PEAK", "REQUESTED_AT_PEAK",
)  # fmt: skip
DESIGN = ["design=freebsd4_unified", *(f"objects.{one}=buckets" for one in ("malloc", "zone", "mbuf"))]
MACHINE = ["machine.ram_bytes=512MiB", "machine.kva_bytes=1021MiB"]


def build(folder: str) -> ctypes.CDLL | None:
    """Build the twin; None without a compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc")
    if not compiler:
        return None
    library_file = Path(folder) / "buckets.so"
    command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", str(library_file), str(SOURCE)]
    subprocess.run(command, check=True)
    twin = ctypes.CDLL(str(library_file))
    twin.lane_new.restype, twin.lane_new.argtypes = ctypes.c_void_p, [ctypes.c_int64, ctypes.c_int64]
    twin.lane_counters.restype, twin.lane_counters.argtypes = ctypes.POINTER(ctypes.c_int64), [ctypes.c_void_p]
    twin.lane_free.argtypes = [ctypes.c_void_p]
    twin.lane_play.restype = ctypes.c_int64
    twin.lane_play.argtypes = [ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 5]
    return twin


def play_c(twin: ctypes.CDLL, config: dict, kinds: Kinds, stream: Stream) -> tuple[float, dict[str, int]]:
    """Operations per CPU second of the twin, and its totals."""
    by_map = boot(config, kinds, 1).world.server == SERVER_MAP
    arrays = [stream.op, stream.kind, stream.slot, stream.size, by_map.astype(np.int64)]
    lane = twin.lane_new(config["machine"]["kva_bytes"], stream.slots)
    begin = time.process_time()
    refused = twin.lane_play(lane, stream.length, *(a.ctypes.data for a in arrays))
    seconds = time.process_time() - begin
    totals = dict(zip(TOTALS, twin.lane_counters(lane)[: len(TOTALS)], strict=True))
    twin.lane_free(lane)
    assert refused == 0, f"{refused} operations were refused"
    return stream.length / seconds, totals


def play(config: dict, kinds: Kinds, stream: Stream) -> tuple[float, dict[str, int]]:
    """Operations per CPU second of the driver, and its totals."""
    machine = boot(config, kinds, stream.slots)
    begin = time.process_time()
    machine.replay(machine.world, *columns(stream), 0, stream.length)
    seconds = time.process_time() - begin
    return stream.length / seconds, {name: int(machine.world.counters[getattr(tally, name)]) for name in TOTALS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", default=str(COMPILE) if COMPILE.exists() else "pgbench")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how fast")
    given = parser.parse_args()
    if given.few:
        given.trace, given.repeat = "filetree", 2
    with tempfile.TemporaryDirectory() as folder:
        twin = build(folder)
        if not twin:
            print("no C compiler: nothing to compare with")
            return
        (plan,) = plan_from([*DESIGN, *MACHINE])
        config = json.loads(plan.cells["config"].iloc[0])
        trace = library.load(given.trace)
        play(config, trace.kinds, trace.stream)  # compiled
        pairs = []
        for _ in range(given.repeat):
            theirs, wanted = play_c(twin, config, trace.kinds, trace.stream)
            ours, found = play(config, trace.kinds, trace.stream)
            if wanted != found:
                sys.exit(f"totals differ: C {wanted}, kmemexp {found}")
            pairs.append((theirs, ours))
    c, numba = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(ours / theirs for theirs, ours in pairs)
    best = max(ours for _, ours in pairs) / max(theirs for theirs, _ in pairs)
    print(f"buckets {Path(given.trace).name}: C {c / 1e6:.1f} M operations/s; "
          f"kmemexp {numba / 1e6:.1f} M operations/s; ratio {ratio:.2f} (of the best {best:.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
