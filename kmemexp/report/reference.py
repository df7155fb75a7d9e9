"""What there is, read from the code itself: metrics, loads, and every key of the configuration with its meaning.

`action=metrics`, `action=workloads` and `action=knobs` print these tables, and `docs/make_reference.py` writes them as
pages.
"""

import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.core.config_loader import ConfigLoader
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from kmemexp.metrics import METRICS, Metric, unit
from kmemexp.planning import cells

LAWS = {
    "plain": "t intervals",
    "skewed": "skewed: bootstrapped intervals",
    "rare": "rare: share of replicas, exact tests",
}
FIELD = re.compile(r"^    (\w+): ([^=#\n]+?)(?: = (.*?))?(?:  # (.*))?$")
NEITHER = "neither"


class Entry(NamedTuple):
    """A thing with a name and what is to be said of it."""

    name: str
    facts: dict[str, str]
    text: str


def metrics() -> list[Entry]:
    """Every metric: meaning, unit, which is better, margin, how its values scatter."""
    return [Entry(m.name, _facts(m), m.text) for m in METRICS]


def _facts(metric: Metric) -> dict[str, str]:
    better = {"less": "less is better", "more": "more is better"}.get(metric.better, NEITHER)
    size, kind = metric.margin
    margin = {
        "absolute": f"{size:g}",
        "relative": f"{size:.0%} of the baseline's mean",
        "share": f"{size:.0%} of the replicas",
    }
    return {
        "unit": unit(metric.name) or "-", "better": better, "margin": margin[kind], "law": LAWS[metric.law],
        "group": metric.group,
    }  # fmt: skip


def workloads(loader: ConfigLoader) -> list[Entry]:
    """Every load on the search path: what its file says of it in its head."""
    folders = _folders(loader)
    found = []
    for name in cells.Composer(loader).options("workload"):
        path = next((p for folder in folders if (p := folder / "workload" / f"{name}.yaml").exists()), None)
        text = path.read_text("utf-8") if path else ""
        source = re.search(r"^source: (\w+)", text, re.MULTILINE)
        found.append(Entry(name, {"source": source[1]} if source else {}, _head(text)))
    return found


def knobs(loader: ConfigLoader) -> list[Entry]:
    """Every key of the configuration, and every parameter of every allocator and arena, with default and meaning."""
    source, folders = _source("kmemexp.config.schema"), _folders(loader)
    found = list(_tree(source, "Config", "", lambda key: _beside(folders, key)))
    for room, prefix in (("allocators", "objects.params"), ("arenas", "maps.params")):
        for name in _parts(room):
            text = _source(f"kmemexp.sim.{room}.{name}")
            found += [entry._replace(name=f"{prefix}.{name}.{entry.name}") for entry in _fields(text, "Params")]
    return found


def show(entries: list[Entry], console: Console) -> None:
    """Print entries, each with its facts on one line and its text below."""
    for name, facts, text in entries:
        told = "; ".join(f"{key} {value}" if value != facts.get("better") else value for key, value in facts.items())
        console.print(Text.assemble((name, "bold"), "  ", told), soft_wrap=True)
        if text:
            console.print(Padding(Text(text), (0, 0, 0, 4)))


def page(title: str, intro: str, entries: list[Entry]) -> str:
    """Write entries as a page of Markdown."""
    names = list(dict.fromkeys(key for entry in entries for key in entry.facts))
    lines = [
        f"# {title}",
        "",
        intro,
        "",
        f"| name | {' | '.join([*names, 'meaning'])} |",
        "|---" * (len(names) + 2) + "|",
    ]
    for entry in entries:
        facts = [_escaped(entry.facts.get(name, "")) for name in names]
        lines.append(f"| `{entry.name}` | {' | '.join([*facts, _escaped(entry.text)])} |")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([|<>*_\[\]])", r"\\\1", text)


def _folders(loader: ConfigLoader) -> list[Path]:
    """Folders of configuration files on the search path."""
    sources = cells.Composer(loader).compose([]).hydra.runtime.config_sources
    return [Path(source["path"]) for source in sources if source["schema"] == "file"]


def _tree(source: str, of: str, prefix: str, said: Callable[[str], str]) -> Iterator[Entry]:
    """Keys of a class of the schema and of the classes in it; `said`: what the files say of a key."""
    for entry in _fields(source, of):
        key = f"{prefix}{entry.name}"
        kind = entry.facts["type"]
        if kind.isidentifier() and re.search(rf"^class {kind}\b", source, re.MULTILINE):
            yield from _tree(source, kind, f"{key}.", said)
        else:
            yield Entry(key, entry.facts, entry.text or said(key))


def _beside(folders: Sequence[Path], key: str) -> str:
    """Comment beside a key in the main file, or in the first file of its group that has one."""
    *path, last = key.split(".")
    files = [folder / "config.yaml" for folder in folders]
    files += [file for folder in folders for file in sorted((folder / path[0]).glob("*.yaml"))] if path else []
    for file in files:
        text = file.read_text("utf-8") if file.exists() else ""
        block = text
        if file.name == "config.yaml":
            for word in path:
                found = re.search(rf"^( *){word}:[^\n]*\n((?:\1 +[^\n]*\n|\n)*)", block, re.MULTILINE)
                block = found[2] if found else ""
        if match := re.search(rf"^ *{last}:[^#\n]*# (.+)$", block, re.MULTILINE):
            return match[1]
    return ""


def _source(module: str) -> str:
    found = importlib.util.find_spec(module)
    return Path(str(found.origin)).read_text("utf-8") if found and found.origin else ""


def _parts(room: str) -> list[str]:
    folder = Path(str(importlib.util.find_spec(f"kmemexp.sim.{room}").origin)).parent  # type: ignore[union-attr]  # a room is there
    return sorted(p.stem if p.suffix else p.name for p in folder.iterdir() if not p.name.startswith("_"))


def _head(text: str) -> str:
    """First paragraph of the comment that a file begins with."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#") or not line.strip("# "):
            break
        lines.append(line.strip("# "))
    return " ".join(lines)


def _fields(source: str, of: str) -> Iterator[Entry]:
    """Fields of a class, with the comments beside or above them."""
    source = re.sub(r"= \(\n\s+(.+?)(  # .*)?\n    \)$", r"= \1\2", source, flags=re.MULTILINE)  # on lines of its own
    body = re.search(rf"^class {of}\b.*?:\n(.*?)(?=^\S|\Z)", source, re.MULTILINE | re.DOTALL)
    above: list[str] = []
    for line in body[1].splitlines() if body else ():
        if line.startswith("    # "):
            above.append(line.strip().removeprefix("# "))
        elif match := FIELD.match(line):
            name, kind, default, said = match.groups()
            factory = re.fullmatch(r"field\(default_factory=(?:lambda: )?(.*)\)", default or "")
            shown = {"dict": "{}", "list": "[]"}.get(factory[1], factory[1]) if factory else default or "-"
            facts = {"type": kind.strip(), "default": "must be given" if shown == "MISSING" else shown}
            yield Entry(name, facts, " ".join([*above, said or ""]).strip())
            above = []
        else:
            above = []
