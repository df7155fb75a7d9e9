"""`action=validate`: check the simulator against theory, worked examples, published figures and a model apart.

One table: each check with its source, what was expected and measured, grade, and whether it passes. Exit code 2 where
one fails. Parameters are drawn anew from `seed`. `validate.level=full` runs all cases at full length;
`validate.mutants=true` shows instead which check catches which of many deliberate faults.
"""

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from kmemexp.actions.exit_codes import COMPLETE, FAILED
from kmemexp.errors import ConfigError
from kmemexp.planning.plan import Plan
from kmemexp.report import terminal
from kmemexp.validate import mutants, running, showing, suite
from kmemexp.validate.rows import Row, Wanted, failures
from kmemexp.values import one_of

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

TITLE = "Why believe it: the simulator against theory, worked examples and published figures"
MUTANTS = "Deliberate faults, each in a copy of the package, and which check catches which"


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """Run the checks, show and write the table; what the plans would simulate does not matter. Raises ConfigError."""
    plan = plans[0]
    asked, seed = plan.validate, _seed(plans)
    names = _names(asked["only"])
    started, console = time.perf_counter(), terminal.make_console()
    if asked["mutants"]:
        rows, title, file = _mutants(names, seed, plan.cluster["num_cpus"], console), MUTANTS, "mutants"
    else:
        rows, title, file = _checks(names, seed, plan, console), TITLE, "checks"
    told = showing.summary(rows, seed, asked["level"], time.perf_counter() - started)
    showing.show(rows, title, told, console)
    _written(showing.write(showing.home(plan.root), file, rows, title, told), console)
    return _code(rows)


def _checks(names: Sequence[str], seed: int, plan: Plan, console: Console) -> list[Row]:
    """Rows of these checks, in the table's order."""
    left = list(names)
    with console.status("") as status:

        def tell(done: suite.Done) -> None:
            left.remove(done.name)
            status.update(f"{len(names) - len(left)} of {len(names)} checks done; {', '.join(left[:8])} …")

        done = running.run(names, seed, level=plan.validate["level"], record=plan.validate["record"], tell=tell,
                           processes=plan.cluster["num_cpus"])  # fmt: skip
    return [row for one in done for row in one.rows]


def _mutants(names: Sequence[str], seed: int, processes: int | None, console: Console) -> list[Row]:
    """A row for each mutant that concerns these checks: it passes where one of them catches it."""
    wanted = [mutant for mutant in mutants.mutants() if set(mutant.checks) & set(names)]
    if not wanted:
        raise ConfigError(f"validate.only={','.join(names)}: no mutant concerns these checks")
    rows = []
    with console.status("") as status:
        for fate in mutants.run(wanted, seed, processes):
            by = ", ".join(dict.fromkeys(fate.checks)) or "nothing"
            of = Wanted("M", f"kmemexp/{fate.mutant.file}", "A")
            what = f"{fate.mutant.name}: {fate.mutant.what}; caught by {by}"
            rows.append(of.holds(what, bool(fate.caught), "; ".join(fate.caught[:3])))
            status.update(f"{len(rows)} of {len(wanted)} mutants tried")
    return sorted(rows, key=lambda row: row.what)


def _seed(plans: Sequence[Plan]) -> int:
    """The one seed of all plans. Raises ConfigError."""
    seeds = sorted({int(json.loads(config)["seed"]) for plan in plans for config in plan.columns["config"]})
    if len(seeds) > 1:
        raise ConfigError(f"seed={','.join(map(str, seeds))}: action=validate takes one seed")
    return seeds[0]


def _names(only: Sequence[str]) -> list[str]:
    """Names of the checks asked for. Raises ConfigError for one that there is not."""
    every = list(suite.checks())
    for name in only:
        one_of("validate.only", name, every)
    if len(set(only)) != len(only):
        raise ConfigError(f"validate.only: names a check twice: {', '.join(only)}")
    return [name for name in every if not only or name in only]


def _written(paths: Sequence[Any], console: Console) -> None:
    console.print(Text(f"written: {', '.join(map(str, paths))}", style="dim"), soft_wrap=True)


def _code(rows: Sequence[Row]) -> int:
    return FAILED if failures(rows) else COMPLETE
