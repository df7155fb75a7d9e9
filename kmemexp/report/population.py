"""What the replicas of a cell differ in: which population an interval speaks of, and where there is nothing to vary.

What is drawn for the replicas of a recording, `recordings.py` says.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kmemexp.parts.finding import foresees, parts
from kmemexp.planning import nodes as configs

READ = ("cost", "interrupts", "memory", "stability", "workload")
"""Nodes that say whether something is drawn."""


def fixed(texts: Iterable[str]) -> NDArray[np.bool_]:
    """Tell of each configuration (JSON) whether its replicas are the same by construction."""
    return np.array([_fixed(text) for text in texts], bool)


def foreseeing(texts: Iterable[str]) -> NDArray[np.bool_]:
    """Tell of each configuration (JSON) whether it places by what is to come: a reference, and no design."""
    return np.array([_foresees(text) for text in texts], bool)


def notes(metrics: pd.DataFrame) -> list[str]:
    """Say of each load in a table of results what its replicas are a sample of, one line for each kind of sample."""
    if "config" not in metrics.columns:
        return []
    said: dict[str, list[str]] = {}
    for row in metrics.drop_duplicates("config")[["workload", "config"]].itertuples(index=False):
        names = said.setdefault(_population(str(row.config)), [])
        if (name := str(row.workload)) not in names:
            names.append(name)
    return [f"{', '.join(names)}: {text}" for text, names in said.items() if text]


def _foresees(text: str) -> bool:
    maps = configs.nodes(text).get("maps")
    return bool(maps) and _looks_ahead(configs.value(maps).get("arena", ""))


@cache
def _looks_ahead(arena: str) -> bool:
    return arena in parts("arenas") and foresees(arena)


def _fixed(text: str) -> bool:
    cell = _cell(text)
    return bool(cell) and _load_fixed(cell) and _machine_fixed(cell)


def _cell(text: str) -> Mapping[str, Any]:
    """Read what is looked at of a configuration; empty where it is not a whole one."""
    found = configs.nodes(text)
    cell = {node: configs.value(found[node]) for node in READ if node in found}
    return cell if cell.keys() >= {"workload", "cost", "interrupts"} and "source" in cell["workload"] else {}


def _load_fixed(cell: Mapping[str, Any]) -> bool:
    """Whether all replicas get the same operations."""
    load = cell["workload"]
    if (cell.get("stability") or {}).get("kind"):
        return False  # references are drawn
    if load["source"] == "trace":
        drawn = load.get("stream", "recorded") != "recorded"  # deaths that are a guess
        return not drawn and bool(load["copies"] == 1 or not load["shift_s"])
    return all(not kind["rate_hz"] and not kind.get("start") for kind in load["kinds"].values())


def _machine_fixed(cell: Mapping[str, Any]) -> bool:
    """Whether nothing is drawn while the machine runs."""
    if cell["cost"].get("name") == "none":
        return True
    if (cell.get("memory") or {}).get("fault_hz"):
        return False
    return all(_source_fixed(source) for source in cell["interrupts"].get("sources", {}).values() if source)


def _source_fixed(source: Mapping[str, Any]) -> bool:
    law = source.get("law", "none")
    still = law == "none" or (law == "periodic" and source.get("phase_ns", -1) >= 0)
    durations = (item.get("work", item.get("sleep")) for item in source.get("program", []))
    return still and all(not isinstance(d, Mapping) or d.get("law", "fixed") == "fixed" for d in durations)


def _population(text: str) -> str:
    cell = _cell(text)
    if not cell:
        return ""
    load = cell["workload"]
    if _fixed(text):
        one = "one window of one recording" if load["source"] == "trace" else "one run"
        return (
            f"deterministic: {one}, the same in every replica; differences are facts about it and about nothing else."
        )
    if load["source"] != "trace":
        what = "draws of this load's laws" if not _load_fixed(cell) else "draws of the arrivals of interrupts"
        return f"replicas are {what}; intervals speak of runs of this load as it is configured."
    if _load_fixed(cell):
        return (
            "one window of one recording; replicas differ in the arrivals of interrupts only, and intervals speak of "
            "nothing else."
        )
    return ""  # recordings.py says what the replicas of such a recording differ in
