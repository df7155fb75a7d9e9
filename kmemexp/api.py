"""What a notebook uses: designs, plan, run, simulate, load, compare."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kmemexp.report.comparison import compare
from kmemexp.report.results import Results, load

if TYPE_CHECKING:
    import pandas as pd

    from kmemexp.planning.plan import Plan
    from kmemexp.sweep.execute import Outcome

__all__ = ["Results", "compare", "designs", "load", "plan", "run", "simulate"]


def plan(asked: str | Sequence[str] = (), /, config_dir: str | None = None, **settings: Any) -> "list[Plan]":
    """Plan sweeps: `plan(["+sweep=fragmentation"])`, or `plan("freebsd4,dragonfly_2003oct", cpus=[1, 4])`.

    `asked`: Hydra's overrides, as on the command line, or designs. `settings`: see `kmemexp.planning.asking`.
    `config_dir`: a further folder of configuration files. Returns one plan per sweep named. Raises ConfigError.
    """
    from kmemexp.planning.asking import overrides  # noqa: PLC0415 - imports Hydra
    from kmemexp.planning.plan import plan_from  # noqa: PLC0415

    return plan_from(overrides(asked, settings), config_dir)


def designs(config_dir: str | None = None) -> "pd.DataFrame":
    """List the designs, one row each: what it is, its parts, what they model and what they leave out.

    `config_dir`: a further folder of configuration files. Raises ConfigError.
    """
    from kmemexp.planning.plan import open_loader  # noqa: PLC0415
    from kmemexp.report.catalogue import table  # noqa: PLC0415 - imports Hydra

    with open_loader(None, config_dir) as loader:
        return table(loader)


def run(asked: str | Sequence[str] = (), /, config_dir: str | None = None, **settings: Any) -> "list[Outcome]":
    """Plan and run, one sweep after the other; rows that are in the results folder are not simulated again.

    Ctrl-C ends them all; the last outcome says so then. Arguments: those of `plan`. Raises InputError.
    """
    from kmemexp.report import replication  # noqa: PLC0415
    from kmemexp.sweep import in_turn  # noqa: PLC0415

    return [outcome for _, outcome in in_turn.run(plan(asked, config_dir, **settings), replication.grow)]


def simulate(asked: str | Sequence[str] = (), /, config_dir: str | None = None, **settings: Any) -> Results:
    """Simulate a few cells in this process and keep the results in memory.

    Arguments: those of `plan`. Raises ConfigError, or what a cell raises.

    >>> simulate("dragonfly_2003oct", workload="pgbench", cpus=4).metrics  # doctest: +SKIP
    """
    from kmemexp.sweep.worker import simulate_plan  # noqa: PLC0415

    return Results.from_tables(**simulate_plan(plan(asked, config_dir, **settings)))
