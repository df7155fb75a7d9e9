"""A pattern such as `design=glob(*)` stands for the designs that the machine can run; the others are named."""

from collections.abc import Sequence

from kmemexp.config.design import runs_on
from kmemexp.errors import ConfigError
from kmemexp.planning.axes import CommandLine
from kmemexp.planning.cells import Composer

GROUP = "design"


def fitting(composer: Composer, line: CommandLine, fixed: Sequence[str]) -> tuple[CommandLine, list[str]]:
    """Take out of what a pattern chose the designs whose kernel the machine's architecture does not run.

    Returns the command line with what is left, and notes that name the others. Where none is left, or the machine is
    swept itself, nothing is taken out: the cells then say what cannot be.
    """
    if GROUP not in line.patterns or any(key.partition(".")[0] == "machine" for key in line.swept):
        return line, []
    chosen = line.swept[GROUP]
    gone = [option for option in chosen if not _fits(composer, [*fixed, f"{GROUP}={option}"])]
    if not gone or len(gone) == len(chosen):
        return line, []
    left = [option for option in chosen if option not in gone]
    note = f"{line.patterns[GROUP]}: without {', '.join(gone)}, which this machine does not run (machine=amd64_4g does)"
    return line._replace(swept=line.swept | {GROUP: left}), [note]


def _fits(composer: Composer, overrides: Sequence[str]) -> bool:
    try:
        found = composer.compose(overrides)
        return runs_on(found.maps, found.machine)
    except ConfigError:
        return True  # the cells say what is wrong
