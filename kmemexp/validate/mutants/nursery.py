"""Tries mutants in forked processes: a script, which imports the libraries once and kmemexp never.

It is given a file with a JSON object: `root`, a folder with a copy of the package; `package`, its name; `seed`;
`seconds` of CPU time that a check may take; and `jobs`, each with a `name`, `checks`, and for a mutant `file`, `old`
and `new`. The first job is sound code: what its checks take is what those of mutants are expected to take, so that one
which does not end costs little. For each job it prints a JSON object with `name` and `rows`: name in the row, what,
whether it passes, its check.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

SPARE = 5  # CPU-seconds that a mutant may take at least
SLOWER = 4  # times as long as sound code


def main() -> None:
    """Do all jobs one after the other."""
    import numba  # noqa: F401, PLC0415
    import numpy  # noqa: F401, PLC0415
    import pandas  # noqa: F401, PLC0415
    import pyarrow.parquet  # noqa: F401, PLC0415
    import scipy.sparse  # noqa: PLC0415
    import scipy.stats  # noqa: F401, PLC0415

    order = json.loads(Path(sys.argv[1]).read_text("utf-8")) | {"took": {}}
    for job in order["jobs"]:
        rows = _tried(order, job)
        print(json.dumps({"name": job["name"], "rows": rows}), flush=True)  # noqa: T201


def _tried(order: dict[str, Any], job: dict[str, Any]) -> list[list[Any]]:
    """Do a job with its edit in place."""
    if "file" not in job:
        return _forked(order, job)
    path = Path(order["root"]) / order["package"] / job["file"]
    text, stat = path.read_text("utf-8"), path.stat()
    path.write_text(text.replace(job["old"], job["new"]), "utf-8")
    try:
        return _forked(order, job)
    finally:
        path.write_text(text, "utf-8")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # what Python has compiled of it holds again


def _forked(order: dict[str, Any], job: dict[str, Any]) -> list[list[Any]]:
    """Run the checks of a job in a process of its own; rows so far, where it does not end."""
    most = order["seconds"] * len(job["checks"])
    if "file" in job:
        most = min(most, round(SPARE + SLOWER * sum(order["took"].get(name, most) for name in job["checks"])))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (most, most + 5))
            with os.fdopen(writing, "w") as out:
                _run(order, job, out)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as rows:
        lines = [json.loads(line) for line in rows if line.endswith("\n")]  # the last one may be cut
    os.waitpid(child, 0)
    if "file" not in job:
        order["took"] = dict(filter(_is_time, lines))
    return [line for line in lines if not _is_time(line)]


def _is_time(line: list[Any]) -> bool:
    """Whether a line is a check and its CPU time, and not a row."""
    return len(line) == 2


def _run(order: dict[str, Any], job: dict[str, Any], out: Any) -> None:
    """Run checks and write a line for each row as soon as its check is done, and one for the CPU time that it took."""
    import warnings  # noqa: PLC0415

    warnings.simplefilter("ignore")  # plain Python tells of overflows that compiled code means to have
    sys.dont_write_bytecode = True
    sys.path.insert(0, order["root"])
    from kmemexp.validate import suite  # noqa: PLC0415 - the copy

    for name in job["checks"]:
        began = time.process_time()
        for row in suite.run_one(name, order["seed"], "brief").rows:
            out.write(json.dumps([row.check, row.what, row.passed is True, name]) + "\n")
        out.write(json.dumps([name, time.process_time() - began]) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
