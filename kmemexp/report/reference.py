"""What there is, read from the code itself: metrics, loads, and every key of the configuration with its meaning.

`action=metrics`, `action=workloads` and `action=knobs` print these tables, and `docs/make_reference.py` writes them as
pages.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.core.config_loader import ConfigLoader
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from kmemexp.metrics import METRICS, Metric, unit
from kmemexp.parts import written
from kmemexp.parts.written import Field
from kmemexp.planning.composing import Composer

LAWS = {
    "plain": "t intervals",
    "skewed": "skewed: bootstrapped intervals",
    "rare": "rare: share of replicas, exact tests",
}
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
    for name in Composer(loader).options("workload"):
        path = next((p for folder in folders if (p := folder / "workload" / f"{name}.yaml").exists()), None)
        text = path.read_text("utf-8") if path else ""
        source = re.search(r"^source: (\w+)", text, re.MULTILINE)
        found.append(Entry(name, {"source": source[1]} if source else {}, _head(text)))
    return found


def knobs(loader: ConfigLoader) -> list[Entry]:
    """Every key of the configuration, and every parameter of every allocator and arena, with default and meaning."""
    source, folders = written.source("kmemexp.config.schema"), _folders(loader)
    found = list(_tree(source, "Config", "", lambda key: _beside(folders, key)))
    for room, prefix in zip(written.ROOMS, ("objects.params", "maps.params"), strict=True):
        for part in written.names(room):
            found += [_entry(one, f"{prefix}.{part}.") for one in written.parameters(room, part)]
    return found


def _entry(of: Field, prefix: str) -> Entry:
    default = "must be given" if of.default == "MISSING" else of.default
    return Entry(f"{prefix}{of.name}", {"type": of.kind, "default": default}, of.text)


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
    sources = Composer(loader).compose([]).hydra.runtime.config_sources
    return [Path(source["path"]) for source in sources if source["schema"] == "file"]


def _tree(source: str, of: str, prefix: str, said: Callable[[str], str]) -> Iterator[Entry]:
    """Keys of a class of the schema and of the classes in it; `said`: what the files say of a key."""
    for one in written.fields(source, of):
        entry = _entry(one, prefix)
        if one.kind.isidentifier() and re.search(rf"^class {one.kind}\b", source, re.MULTILINE):
            yield from _tree(source, one.kind, f"{entry.name}.", said)
        else:
            yield entry._replace(text=entry.text or said(entry.name))


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


def _head(text: str) -> str:
    """First paragraph of the comment that a file begins with."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#") or not line.strip("# "):
            break
        lines.append(line.strip("# "))
    return " ".join(lines)
