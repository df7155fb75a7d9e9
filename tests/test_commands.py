"""Every command and every piece of Python in README and docs runs, page by page in the order in which it stands there.

What a sweep asks for is planned whole, and then run on a small part of it: two designs, one value of each other axis,
the beginning of the load, one replica. The block of text after `<!-- shows -->` is what the command prints.
"""

import functools
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

import kmemexp.__main__ as program
from kmemexp import trace
from kmemexp.claims import request
from kmemexp.config import checks
from kmemexp.planning import plan as planning
from kmemexp.planning.plan import Plan
from kmemexp.validate import suite

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")),
         *sorted((ROOT / "experiments").rglob("*.md"))]  # fmt: skip
BLOCK = re.compile(r"(<!-- shows -->\n)?^```(bash|python|yaml)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
PAGES = [page for page in PAGES if BLOCK.search(page.read_text("utf-8"))]

TIMED = ("freebsd4", "freebsd4_unified", "dragonfly_2003aug25", "dragonfly_2003oct")
"""Designs that run with a clock here: those whose drivers tests/end_to_end/test_scenarios.py compiles."""
ALWAYS = {
    "sweep.reps.max": "1",
    "cluster": "serial",
    "progress": "false",
    "sample.points": "4",
    "sample.snapshots": "2",
    "report": "false",
}
AT_LEAST = {
    "+sweep=deadlock": ["design=freebsd4,freebsd4_unified", "interrupts.rate_hz=10000", "workload.window_s=0.6"]
}
"""What a command needs beyond that, to have something to say: a deadlock to explain."""
APART = ("s3://", "experiments/own_allocator")
"""What is only planned here: store/test_s3.py, and test_plugins.py, since a part from outside stays in its process."""
FLAGS = ("--verbose", "--quiet")
READ = {"designs", "metrics", "workloads", "knobs"}
ELSEWHERE = {
    "pytest": "this is pytest", "ruff": ".ci/run", "mypy": ".ci/run", "run": "CI", "pip": "extras are looked at here",
    "venv": ".ci/run", "pre-commit": "test_docs.py", "mkdocs": "test_site.py", "benchmarks": "test_benchmarks.py",
    "own_allocator": "test_plugins.py", "history": "end_to_end/test_scenarios.py",
}  # fmt: skip
"""What does not run here, by program or sweep, and where it does."""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands(block: str) -> Iterator[list[str]]:
    """Commands of a block of shell code, without the environment's variables and what leads to them."""
    for line in block.replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            while words and (re.fullmatch(r"\w+=.*", words[0]) or words[0] in {"sudo", "export"}):
                words = words[1:]
            if words and words[0] not in {".", "eval", "command"}:
                yield words


def program_of(words: list[str]) -> tuple[str, list[str]]:
    """What a command runs, and its arguments: `python -m NAME`, a script by its folder, or a program."""
    first, rest = Path(words[0]).name, words[1:]
    if not first.startswith("python"):
        return first, rest
    if rest[0] == "-m":
        return rest[1], rest[2:]
    return Path(rest[0]).parent.name, rest[1:]


def extras(words: list[str]) -> None:
    """Check the extras that a `pip install` names: pip itself only warns."""
    there = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for named in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(named.split(",")) <= there.keys()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_tells_to_run_runs(page: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    recording(tmp_path)
    text = page.read_text("utf-8")
    for shows, kind, block in BLOCK.findall(text):
        if kind == "yaml":
            path = tmp_path / block.partition("\n")[0].removeprefix("# ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block, "utf-8")
        elif kind == "python":
            code = compile(block, name(page), "exec")
            if "s3://" not in block:  # store/test_s3.py
                exec(code, {})
        else:
            for words in commands(block):
                run(words, monkeypatch, whole=bool(shows))
        printed = capsys.readouterr().out
        if shows:
            (told,) = re.findall(re.escape(block) + r"```\n.*?^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
            lines = [line.rstrip() for line in printed.splitlines()]
            assert [line for line in told.splitlines() if line not in lines] == [], printed


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, *, whole: bool) -> None:
    """Run a command in this process."""
    what, given = program_of(words)
    if what == "pip":
        extras(given)
    if what in ELSEWHERE:
        return
    if what == "kmemexp.trace":
        if given[0] == "record":  # needs root and a tracefs: workload/traces/test_trace_record.py has one made up
            trace._parser().parse_args(given)
        else:
            assert trace.main(given) == 0
        return
    assert what == "kmemexp", words
    for some in small(given, whole=whole):
        monkeypatch.setattr(sys, "argv", ["kmemexp", *some])
        code = 0
        try:
            program.main()
        except SystemExit as end:
            code = end.code
        assert code in (0, None), some


def small(words: list[str], *, whole: bool) -> Iterator[list[str]]:
    """What is run for a command: itself, or a part of it when it has been planned whole."""
    keys = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    action = keys.get("action", "run")
    assert action in checks.ACTIONS
    if action in READ or "--help" in words:
        return  # they print what test_reference.py, report/test_catalogue.py and actions/test_cli.py look at
    if "+experiment" in keys:  # their sweeps are planned and run in experiments/ and claims/
        with planning.open_loader() as loader:
            assert request.read(words, loader)[0].names
    elif "--cfg" in words or action == "plan":
        yield words
    elif action == "validate":
        asked = keys.get("validate.only", "[F16]").strip("[]").split(",")
        assert set(asked) <= suite.checks().keys()
        if len(words) == 1:  # all others in validate/test_action.py
            yield [*words, "validate.only=[F16]", "cluster.num_cpus=1"]
    elif whole:
        yield [*words, "cluster=serial", "progress=false"]
    else:
        asked = [w for w in words if not w.startswith(("action=", "cluster=", "+sweep.reps.target"))]
        verbs = [w for w in words if w.startswith("action=") or w in FLAGS]
        found = part(tuple(w for w in asked if w not in FLAGS))
        if keys.get("+sweep") not in ELSEWHERE and not any(word in " ".join(words) for word in APART):
            yield [*found, *verbs]


@functools.lru_cache(maxsize=1)
def part(words: tuple[str, ...]) -> list[str]:
    """Plan what these words ask for, and give words that ask for a small part of it."""
    at = words.index("--config-dir") if "--config-dir" in words else None
    folder = words[at + 1] if at is not None else None
    asked = list(words) if at is None else [*words[:at], *words[at + 2 :]]
    (plan,) = planning.plan_from(asked, folder)
    more = next((given for first, given in AT_LEAST.items() if first in asked), [])
    pinned = pins(plan) | dict(word.split("=", 1) for word in more)
    kept = [word for word in asked if word.partition("=")[0] not in pinned]
    return [*(words[at : at + 2] if at is not None else ()), *kept, *(f"{k}={v}" for k, v in pinned.items())]


def pins(plan: Plan) -> dict[str, str]:
    """One value for each axis of a plan but its designs, and as little of everything as says something."""
    axes = [json.loads(text) for text in plan.columns["axes"]]
    timed = any(plan.columns["timed"])
    fit = [cell for cell in axes if not timed or cell.get("design") in (None, *TIMED)] or axes
    varying = [key for key in fit[0] if len({json.dumps(cell.get(key)) for cell in axes}) > 1]
    found = {key: written(fit[0][key]) for key in varying}
    designs = list(dict.fromkeys(cell["design"] for cell in fit if cell.get("design")))
    if "design" in found and "policy" not in found:
        found["design"] = ",".join(designs[:2])
    at = axes.index(fit[0])
    load = json.loads(plan.columns["config"][at])["workload"]
    if load["source"] == "trace":
        found["workload.window_s"] = "0.05"
    else:
        found |= {"workload.scale": "0.05", "workload.duration_s": "4"}
    return found | ALWAYS


def written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


# What a reader would have recorded.

HEAD = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : …\n"


def recording(folder: Path) -> None:
    """Write `my.txt.zst` with counts beside it, and what `import` makes of it."""
    base, lines = 0xFFFF888100000000, []

    def line(time: float, event: str, fields: str) -> None:
        lines.append(f"task-12    [000] ..... {time:12.6f}: {event}: {fields}\n")

    line(0.5, "tracing_mark_write", "snap_before")
    for i in range(400):
        at = f"call_site=f+0x1/0x2 ptr={base + 192 * (i % 21) + 4096 * (i // 21):016x} name=filp"
        line(
            1 + i / 1000,
            "kmem_cache_alloc",
            f"{at} bytes_req=184 bytes_alloc=192 gfp_flags=GFP_KERNEL node=-1 accounted=false",
        )
        if i % 3:
            line(1.0005 + i / 1000, "kmem_cache_free", at)
    line(3.0, "tracing_mark_write", "snap_after")
    (folder / "my.txt.zst").write_bytes(zstandard.compress("".join(lines).encode()))
    for when, slabs in (("before", 0), ("after", 20)):
        counts = f"filp {slabs * 7} {slabs * 21} 192 21 1 : tunables 0 0 0 : slabdata {slabs} {slabs} 0\n"
        (folder / f"my.{when}.slabinfo").write_text(HEAD + counts)
    assert trace.main(["import", str(folder / "my.txt.zst"), "-o", str(folder / "my.parquet")]) == 0
