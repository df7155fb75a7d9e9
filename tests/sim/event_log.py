"""What an allocator's steps hold when: events of hand-made requests on a design's timed machine.

Run as a program it takes requests from its input and prints the events. `events` does so in a process of its own that
compiles nothing: a few requests of every allocator, played by Python, cost less than compiling one engine.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

SMALL = (
    "machine.cpus=2", "machine.threads=1", "machine.ram_bytes=64MiB", "machine.kva_bytes=256MiB", "cost=opteron2003",
    "interrupts/sources=none", "workload=server2003", "cluster=serial",
)  # fmt: skip
APART_NS = 10_000_000  # from one request to the next
ROWS = 100_000
SIZES = {"malloc": 0, "zone": 1, "mbuf": 2, "kva": 3, "kva_wired": 4, "exec": 5}


def events(programs: dict[str, dict]) -> dict[str, list[list[str]]]:
    """Play programs; returns, for each, the events of each of its requests.

    A program has `overrides` of the configuration and `requests`: "malloc 100 a", "zone a", "mbuf 256 a", "kva 4096 a",
    "kva_wired 4096 a", "exec 69632 a" allocate an object and call it a, "free a" frees it; then perhaps "nowait",
    "soft", "cpu1". Zones have items of `item` bytes, with `limit` and `growth` if these are given. Where `timed`, a
    section that ends says how many ns it lasted: "leave 590". Requests are `apart` ns apart.
    """
    root = Path(__file__).parents[2]
    env = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(root), "PYTHONWARNINGS": "ignore"}
    ran = subprocess.run(
        [sys.executable, __file__], input=json.dumps(programs), env=env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def play(program: dict) -> list[list[str]]:
    """Events of each request of a program."""
    import numpy as np

    import kmemexp
    from kmemexp.boot import timed
    from kmemexp.sim.engine.tables import glob
    from kmemexp.workload.stream import Kinds

    (plan,) = kmemexp.plan([*SMALL, *program["overrides"]])
    kinds = Kinds(
        tuple(SIZES),
        np.array(list(SIZES.values()), np.int8),
        np.full(len(SIZES), program.get("item", 200), np.int32),
        np.full(len(SIZES), program.get("growth", 1), np.int32),
        np.where(np.array(list(SIZES)) == "zone", program.get("limit", 0), 0).astype(np.int32),
    )
    n, apart = len(program["requests"]), program.get("apart", APART_NS)
    stream = _stream(program["requests"], apart)
    t = timed.boot(json.loads(plan.cells["config"].iloc[0]), kinds, stream, 0, log_rows=ROWS)
    for value, place in program.get("pages", {}).items():
        t.wired.m[getattr(glob, value)] = place
    t.run(t.world, t.wired.m, t.stream, apart * (n + 1), 1 << 40)
    return _told(t.wired, n, apart, program.get("timed", False))


def _stream(requests: list[str], apart: int):
    import numpy as np

    from kmemexp.sim.tables import flag
    from kmemexp.workload.stream import Stream

    flags = {"nowait": flag.NOWAIT, "soft": flag.SOFT, "hard": flag.HARD}
    rows, slots, kind_of = [], {}, {}
    for number, request in enumerate(requests, start=1):
        verb, *words = request.split()
        size = int(words.pop(0)) if words[0].isdigit() else 0
        name = words.pop(0)
        if verb != "free":
            slots[name] = len(slots)
            kind_of[name] = list(SIZES).index(verb)
        cpu = 1 if "cpu1" in words else 0
        asked = sum(flags[word] for word in words if word in flags)
        rows.append((number * apart, verb == "free", kind_of[name], slots[name], size, cpu, asked))
    types = (np.int64, np.uint8, np.int16, np.int32, np.int32, np.int16, np.uint8)
    columns = zip(*rows, strict=True)
    arrays = [np.array(column, dtype) for column, dtype in zip(columns, types, strict=True)]
    return Stream(*arrays, slots=len(slots))


def _short(name: str) -> str:
    """The lock's map or allocator, with its class if it is not the first, or "cpu"."""
    first, *more = name.split("[", maxsplit=1)[0].split()
    return f"{first}.{more[0]}" if more and (more[0] == "cpu" or more[0].isdigit()) else first


def _told(wired, requests: int, apart: int, timed: bool) -> list[list[str]]:
    from kmemexp.sim.engine import machine as mc
    from kmemexp.sim.engine.tables import glob

    told: list[list[str]] = [[] for _ in range(requests)]
    began: list[int] = []
    slept: set[int] = set()
    at, _, width = wired.shape["locks"]
    for time, event, x, a, _b in wired.table("log")[: wired.m[glob.LOG]].tolist():
        words = told[time // apart - 1]
        if event in (mc.LOG_TAKE, mc.LOG_RELEASE):
            name = _short(wired.names.locks[(a - at) // width])
            if name != "big":
                words.append(f"{'lock' if event == mc.LOG_TAKE else 'unlock'} {name}")
        elif event in (mc.LOG_ENTER, mc.LOG_LEAVE):
            words.append("enter" if event == mc.LOG_ENTER else "leave")
            if event == mc.LOG_ENTER:
                began.append(time)
            elif timed:
                words[-1] += f" {time - began.pop()}"
        elif event == mc.LOG_PAGES:
            words.append(f"{a:+d}")
        elif event == mc.LOG_SHOOTDOWN:
            words.append("shootdown")
        elif event == mc.LOG_DONE and a == 1:
            words.append("failed")
        elif event == mc.LOG_OBJECT:
            words.append("sleeps")
            slept.add(x)
        elif event == mc.LOG_DONE and x in slept:
            words.append("done")
            slept.remove(x)
        elif event in (mc.LOG_BLOCK, mc.LOG_WAIT, mc.LOG_MEMORY):
            words.append("waits")
    return told


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: play(program) for name, program in json.load(sys.stdin).items()}))
