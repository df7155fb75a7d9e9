"""What an operation costs against the size of what it works on: live objects, CPUs, map entries; without a clock.

    python benchmarks/bench_size.py [--designs NAME,NAME] [--operations N] [--few]

A lane is filled with live objects of 16 to 64 bytes (or, for map entries, requests of one to four pages that go to the
map), then objects drawn at random are freed and others allocated on CPUs drawn at random. Rates are operations per CPU
second of the second half of that, since the first half touches new pages; `x` is the rate of the smallest size
over this one's. With a clock: `bench_engine.py`.
"""

import argparse
import json
import time

import numpy as np

import kmemexp
from kmemexp.boot.machine import boot
from kmemexp.errors import ConfigError
from kmemexp.planning.plan import Plan, plan_from
from kmemexp.workload.stream import KVA, MALLOC, OP_ALLOC, OP_FREE, Kinds, Stream, columns

LIVE = (10**3, 10**4, 10**5, 10**6, 10**7)
CPUS = (1, 4, 16, 64, 256, 1024)
ENTRIES = (10**2, 10**3, 10**4, 10**5, 10**6)
MIB = 1 << 20


def churn(live: int, operations: int, cpus: int, klass: int) -> tuple[Kinds, Stream]:
    """Fill slots 0 … live-1, then free and allocate again in slots drawn at random."""
    rng = np.random.default_rng(1)
    pairs = operations // 2
    fill = np.arange(live, dtype=np.int32)
    drawn = rng.integers(0, live, pairs, np.int32)
    n = live + 2 * pairs
    op = np.full(n, OP_ALLOC, np.uint8)
    op[live::2] = OP_FREE
    size = rng.integers(16, 65, n, np.int32) if klass == MALLOC else rng.integers(1, 5, n, np.int32) * 4096
    size[op == OP_FREE] = 0
    cpu = rng.integers(0, cpus, n).astype(np.int16)
    kinds = Kinds(("it",), np.array([klass], np.int8), *(np.zeros(1, np.int32) for _ in range(3)))
    slot = np.concatenate([fill, np.repeat(drawn, 2)])
    return kinds, Stream(np.arange(n), op, np.zeros(n, np.int16), slot, size, cpu, np.zeros(n, np.uint8), live)


def rate(design: str, live: int, operations: int, cpus: int = 1, klass: int = MALLOC) -> float:
    """Operations per CPU second with so many live objects; 0 where the design has no room for them."""
    (plan,) = planned(design, cpus)
    kinds, stream = churn(live, 2 * operations, cpus, klass)
    machine = boot(json.loads(plan.cells["config"].iloc[0]), kinds, stream.slots)
    measured = live + (stream.length - live) // 2
    machine.replay(machine.world, *columns(stream), 0, measured)
    if (machine.world.objects[:, 0] < 0).any():
        return 0.0
    begin = time.process_time()
    machine.replay(machine.world, *columns(stream), measured, stream.length)
    return (stream.length - measured) / (time.process_time() - begin)


def planned(design: str, cpus: int) -> list[Plan]:
    """A plan of one cell on a machine with room: an i386 of 3 GiB of KVA, or one of today where the design needs it."""
    size = ["machine.ram_bytes=1GiB", "machine.kva_bytes=3GiB"]
    try:
        return plan_from([f"design={design}", f"machine.cpus={cpus}", *size, "maps.submaps=[]"])
    except ConfigError:
        return plan_from([f"design={design}", f"machine.cpus={cpus}", "machine=amd64_64g"])


def row(what: str, rates: dict[int, float]) -> None:
    first = next(iter(rates.values()))
    told = (f"{n:,}: {r / 1e6:.2f} M/s x{first / r:.1f}" if r else f"{n:,}: no room" for n, r in rates.items())
    print(f"{what:30} " + ", ".join(told), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--designs", default="", help="default: all")
    parser.add_argument("--operations", type=int, default=400_000)
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how fast")
    given = parser.parse_args()
    designs = given.designs.split(",") if given.designs else list(kmemexp.designs()["design"])
    live, cpus, entries = LIVE, CPUS, ENTRIES
    if given.few:
        designs, live, cpus, entries, given.operations = ["mail2003_bare"], LIVE[:2], CPUS[:2], ENTRIES[:2], 2000
    for design in designs:
        rate(design, live[0], 100)  # compiled
        row(f"{design}, live objects", {n: rate(design, n, given.operations) for n in live})
        row(f"{design}, CPUs", {n: rate(design, 100_000 if not given.few else 100, given.operations, n) for n in cpus})
        row(f"{design}, map entries", {n: rate(design, n, given.operations // 4, klass=KVA) for n in entries})


if __name__ == "__main__":
    main()
