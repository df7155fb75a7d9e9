"""A pattern such as `design=glob(*)` stands for the designs that the machine can run; the others are named."""

from collections.abc import Mapping, Sequence
from typing import Any

from kmemexp.config import checks
from kmemexp.config.design import check_machine
from kmemexp.errors import ConfigError
from kmemexp.planning import axes
from kmemexp.planning.axes import CommandLine
from kmemexp.planning.composing import Composer, plain

GROUP = "design"
MACHINE = {"machine", "machine.arch"}
"""Axes that change what the machine runs."""
KVA = "machine.kva_bytes"


def fitting(
    composer: Composer, line: CommandLine, fixed: Sequence[str], sweep: Mapping[str, Any]
) -> tuple[CommandLine, list[str]]:
    """Take out of what a pattern chose the designs whose kernel does not run on the machine, or does not cover its KVA.

    `sweep`: what the sweep's file says. Returns the command line with what is left, and notes that name the others.
    Where none is left, or the architecture is an axis itself, nothing is taken out: the cells then say what cannot be.
    So it is of the KVA, where that is an axis.
    """
    if GROUP not in line.patterns or not MACHINE.isdisjoint(varied := _axes(composer, line, sweep)):
        return line, []
    chosen, kva = line.swept[GROUP], ([f"{KVA}=4KiB"] if KVA in varied else [])
    gone = {option: why for option in chosen if (why := _unfit(composer, [*fixed, *kva, f"{GROUP}={option}"]))}
    if not gone or len(gone) == len(chosen):
        return line, []
    left = [option for option in chosen if option not in gone]
    note = f"{line.patterns[GROUP]}: without {', '.join(gone)}, which this machine does not run"
    return line._replace(swept=line.swept | {GROUP: left}), [f"{note} ({gone[next(iter(gone))]})"]


def _axes(composer: Composer, line: CommandLine, sweep: Mapping[str, Any]) -> set[str]:
    """Keys of all axes, those of the file too unless the command line fixes them."""
    blocks = [block for where, grid in axes.grids(sweep) for block in axes.read_file(grid, composer.options, where)]
    return {*line.swept, *(key for block in blocks for key in block if key not in line.fixed)}


def _unfit(composer: Composer, overrides: Sequence[str]) -> str:
    """Say why a design does not fit the machine; empty where it does, and where the cells will say what is wrong."""
    try:
        nodes = plain(composer.compose(overrides), ("maps", "objects", "machine"))
        maps, objects, machine = (checks.check_node(node, value) for node, value in nodes.items())
    except ConfigError:
        return ""
    try:
        check_machine(maps, objects, machine)
    except ConfigError as error:
        return str(error)
    return ""
