"""All benchmarks in turn, or two revisions of the project against each other.

    python benchmarks/run.py [--only replay,engine] [--few] [--json FILE]
    python benchmarks/run.py --against REVISION [--rounds 3] [--only …]

A figure is a number with a unit that a benchmark prints; what stands before it on its line says of what. `--json`
writes all of them with the facts of the machine. `--against` checks REVISION out into a temporary folder and runs the
two by turns, each with its own benchmarks and compiled code: a figure's ratio is the median over the rounds, 1.10 is
10 % better here. Exit code 1 if a ratio is below 0.95, and the figures are named.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import llvmlite
import numba
import numpy as np

HERE = Path(__file__).resolve().parent
UNITS = {
    "M operations/s": 1, "M/s": 1, "cells/s": 1, "s CPU": -1, "s wall": -1, "s": -1, "MiB": -1, "GiB": -1,
    "bytes per lane": -1,
}  # fmt: skip
"""What is measured, and whether more of it is better."""
FIGURE = re.compile(rf"(?<![\w.,])(\d[\d,]*\.?\d*) ({'|'.join(sorted(UNITS, key=len, reverse=True))})(?!\w)")
REGRESSION = 0.95
SHORT = 0.1  # seconds: what takes less has no ratio
Figures = dict[str, float]


def names() -> list[str]:
    """Benchmarks of this folder."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def figures(benchmark: str, text: str) -> Figures:
    """Read the figures off what a benchmark has printed."""
    found: Figures = {}
    for line in text.splitlines():
        at, subject = 0, ""
        for match in FIGURE.finditer(line):
            before = plain(line[at : match.start()])
            subject = subject or before
            name = " / ".join(dict.fromkeys(filter(None, (benchmark, subject, before))))
            found[f"{name} [{match[2]}]"] = float(match[1].replace(",", ""))
            at = match.end()
    return found


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip(" :;,()")


def run(tree: Path, benchmark: str, few: bool) -> Figures:
    """Run one benchmark of a checkout; it may lack it, or fail."""
    script = tree / "benchmarks" / f"bench_{benchmark}.py"
    if not script.exists():
        return {}
    path = os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, str(script), *(["--few"] if few else [])]
    done = subprocess.run(
        words, cwd=tree, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{benchmark} failed in {tree}:\n{done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return {}
    return figures(benchmark, done.stdout)


def facts() -> dict[str, object]:
    """What one must know of this machine to make anything of the figures."""
    cpu = (
        re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None
    )
    compiler = shutil.which("cc")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False) if compiler else None
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "numpy": np.__version__,
        "compiler": version.stdout.splitlines()[0] if version else "",
        "revision": git("describe", "--always", "--dirty"),
    }


def git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def compare(chosen: list[str], revision: str, rounds: int, few: bool) -> dict[str, list[float]]:
    """Ratios of every figure that both revisions have, a round each; above 1 is better here."""
    ratios: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "revision"
        subprocess.run(["git", "-C", str(HERE), "worktree", "add", "-q", "--detach", str(other), revision], check=True)
        try:
            for benchmark in chosen:
                for _ in range(rounds):
                    old, new = run(other, benchmark, few), run(HERE.parent, benchmark, few)
                    for name in old.keys() & new.keys():
                        seconds = " [s" in name
                        if min(old[name], new[name]) > (SHORT if seconds else 0):
                            more = UNITS[name.rpartition("[")[2].rstrip("]")]
                            ratios.setdefault(name, []).append((new[name] / old[name]) ** more)
        finally:
            git("worktree", "remove", "--force", str(other))
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"some of {','.join(names())}")
    parser.add_argument("--few", action="store_true", help="each at its smallest size: whether it runs, not how fast")
    parser.add_argument("--json", default="", help="file for figures, ratios and the machine's facts")
    parser.add_argument("--against", default="", metavar="REVISION")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    chosen = given.only.split(",") if given.only else names()
    if unknown := sorted(set(chosen) - set(names())):
        parser.error(f"no benchmark {unknown[0]}: there are {', '.join(names())}")
    told: dict[str, object] = {"machine": facts()}
    slower = []
    if given.against:
        ratios = compare(chosen, given.against, given.rounds, given.few)
        told |= {"against": given.against, "ratios": ratios}
        for name, each in sorted(ratios.items()):
            print(f"{statistics.median(each):6.2f} ({min(each):.2f} to {max(each):.2f})  {name}")
        slower = [name for name, each in ratios.items() if statistics.median(each) < REGRESSION]
    else:
        all_figures: Figures = {}
        for benchmark in chosen:
            found = run(HERE.parent, benchmark, given.few)
            all_figures |= found
            for name, value in found.items():
                print(f"{value:12,.2f}  {name}", flush=True)
        told["figures"] = all_figures
    if given.json:
        Path(given.json).write_text(json.dumps(told, indent=2) + "\n")
    if slower:
        sys.exit("worse than before by more than 5 %:\n" + "\n".join(f"  {name}" for name in sorted(slower)))


if __name__ == "__main__":
    main()
