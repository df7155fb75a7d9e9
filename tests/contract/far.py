"""Play a program on each allocator in memory at the far end of 1 TiB, as plain Python: NUMBA_DISABLE_JIT=1.

A name of a chunk that is too narrow raises OverflowError there, or the bench finds two chunks in one place.
"""

import importlib

import numpy as np

from kmemexp.parts import finding
from kmemexp.testing import _deliver, _program, fast
from kmemexp.testing.bench import Bench, Task

KVA, END = 1 << 40, 64 << 20


def play(name: str) -> int:
    """Allocate and free there; returns the lowest address of a chunk that did not come from KVA set aside."""
    module = importlib.import_module(f"kmemexp.sim.allocators.{name}")
    bench = Bench(module, cpus=2, kva_bytes=KVA, params={})
    bench.map.free = [(KVA - END, KVA)]
    for k, (verb, size, item, flags, cpu, which) in enumerate(_program(module, 400, np.random.default_rng(1))):
        if verb == "free" and not bench.live:
            continue
        task = Task(0, verb, list(bench.live)[which % len(bench.live)] if verb == "free" else k, cpu % 2)
        bench.begin(task, size, item, flags)
        fast.play(bench, task, look=False)
        while bench.messages:
            _deliver(bench, 0)
    return max(bench.placed)


if __name__ == "__main__":
    for name in finding.parts("allocators"):
        assert play(name) >= KVA - END, name
