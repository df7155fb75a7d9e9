"""The distinct forms of each node of a plan's cells, and what is checked where forms of several come together."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kmemexp.config.design import MachineError, check_policy, check_space
from kmemexp.errors import ConfigError
from kmemexp.parts.finding import foresees
from kmemexp.planning.axes import Numbers
from kmemexp.workload import stability


class Pieces(NamedTuple):
    """The distinct forms of one node."""

    forms: list[Any]  # in normal form
    texts: list[str]  # the same as canonical JSON
    number: Numbers  # int64[cells], which form a cell has


def check_together(pieces: Mapping[str, Pieces]) -> None:
    """Check what no node says alone, once for each combination that occurs. Raises ConfigError."""
    _check_space(pieces)
    _check_clock(pieces)
    _check_policies(pieces)
    _check_stability(pieces)
    _check_vectors(pieces)


def _check_space(pieces: Mapping[str, Pieces]) -> None:
    """Check that each design's kernel runs on its machine, and that what boot carves out of the KVA fits."""
    refused: dict[str, ConfigError] = {}
    for maps, objects, machine, workload, design in combinations(
        pieces, "maps", "objects", "machine", "workload", "design"
    ):
        try:
            check_space(maps, objects, machine, workload.get("kinds", {}))
        except ConfigError as error:
            refused.setdefault(design["name"], error)
    if not refused:
        return
    names = list(dict.fromkeys(form["name"] for form in pieces["design"].forms))
    those = [name for name in names if name in refused]
    if len(names) == 1:
        raise refused[those[0]]
    unlike = isinstance(refused[those[0]], MachineError) and len(those) < len(names)
    left = "; 'design=glob(*)' leaves out what the machine does not run" if unlike else ""
    raise type(refused[those[0]])(f"{refused[those[0]]}\n(refused: design={', '.join(those)}{left})")


def _check_clock(pieces: Mapping[str, Pieces]) -> None:
    """Refuse a closed load without a clock: its operations begin when the ones before have ended."""
    for cost, workload in combinations(pieces, "cost", "workload"):
        if "pause_ns" in workload and cost["name"] == "none":
            raise ConfigError(
                f"workload={workload['name']}: a closed load needs a clock; choose a cost, such as cost=opteron2003"
            )
    for cost, maps, policy in combinations(pieces, "cost", "maps", "policy"):
        if cost["name"] != "none" and foresees(maps["arena"]):
            raise ConfigError(
                f"policy={policy['name']}: rehearses the lane, and with a clock (cost={cost['name']}) the time that a "
                "map takes changes what comes next, so that nothing can be foreseen; choose cost=none"
            )


def _check_policies(pieces: Mapping[str, Pieces]) -> None:
    """Refuse a policy that does nothing to a design, or to a load."""
    for policy, maps, objects, design in combinations(pieces, "policy", "maps", "objects", "design"):
        check_policy(policy, maps, objects, design["name"])
    for policy, workload in combinations(pieces, "policy", "workload"):
        if policy.get("moves") and not set(policy["movable"]) & set(workload.get("kinds", {})):
            raise ConfigError(
                f"policy={policy['name']}: nothing in workload={workload['name']} can be moved; policy.movable is "
                f"{', '.join(policy['movable'])}"
            )


def _check_stability(pieces: Mapping[str, Pieces]) -> None:
    """Refuse a watched kind that is not there, or cannot be protected so."""
    for watched, objects, workload in combinations(pieces, "stability", "objects", "workload"):
        stability.check_cell(watched, objects, workload)


def _check_vectors(pieces: Mapping[str, Pieces]) -> None:
    """Refuse to make what a recording has already."""
    for objects, workload in combinations(pieces, "objects", "workload"):
        if workload["source"] == "trace" and objects["params"].get("slub", {}).get("memcg"):
            raise ConfigError(
                f"objects.params.slub.memcg={objects['params']['slub']['memcg']}: vectors of memory cgroups are in a "
                f"recording already, as kmalloc() of alloc_slab_obj_exts; leave it 0 with workload={workload['name']}"
            )


def combinations(pieces: Mapping[str, Pieces], *nodes: str) -> Iterator[tuple[Any, ...]]:
    """Yield the forms of these nodes that occur together in a cell, each distinct combination once."""
    chosen = [pieces[node] for node in nodes]
    for numbers in set(zip(*(piece.number.tolist() for piece in chosen), strict=True)):
        yield tuple(piece.forms[i] for piece, i in zip(chosen, numbers, strict=True))
