"""Experiments: what sweeps say about the claims of the mail. Each is a file of its own in experiments/.

An experiment is a module with a docstring, whose first line is the claim as a sentence ("C4: …"), and

- `CLAIM`: its short name, such as "C4";
- `SWEEPS`: the files of conf/sweep/ that it needs;
- `DEFAULT`, `FULL` (optional): further overrides by sweep, at the default size and at `experiment.size=full`;
- `analyse(results) -> Report`: from the `Results` of each sweep, by its name, to what they say.

`+experiment=NAME` runs the sweeps as `action=run` would, then shows and writes the report. In a notebook, with results
that are there: `load("c4_headroom").analyse({"fragmentation": kmemexp.load("results/fragmentation")})`.
"""
# ruff: noqa: PLC0415 (an experiment imports this module for `Verdict` and `Report`; only the command needs the rest)

import fnmatch
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from kmemexp.claims.finding import load, names, title
from kmemexp.claims.judging import VERDICTS, Report
from kmemexp.errors import ConfigError, InputError
from kmemexp.report.results import planned
from kmemexp.values import one_of

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

    from kmemexp.plan.plan import Plan


SIZES = ("default", "full")
HINT = "(HYDRA_FULL_ERROR=1 shows where)"
OWN = re.compile(r"[+~]*experiment[.=@]")
"""Overrides that are about experiments; all others go to every sweep."""


class Request(NamedTuple):
    """What the command line asks for."""

    names: list[str]
    size: str
    publish: str | None  # folder for charts and tables, besides the results


# Running.


def main(overrides: Sequence[str], *, loader: "ConfigLoader | None" = None) -> int:
    """Do the action on the sweeps of the experiments asked for, and report: the exit code. Raises InputError."""
    from kmemexp.actions import run as actions
    from kmemexp.plan.plan import open_loader, plan_from

    rest = [text for text in overrides if not OWN.match(text)]
    with open_loader(loader) as found:
        request = _request([text for text in overrides if OWN.match(text)], rest, found)
        wanted = {name: _sweeps(load(name), request.size) for name in request.names}
        runs = dict.fromkeys(run for runs in wanted.values() for run in runs)
        plans = {(sweep, *more): plan_from([f"+sweep={sweep}", *more, *rest], loader=found)[0] for sweep, *more in runs}
    every = list(plans.values())
    action = every[0].action
    if action not in actions.ACTIONS:
        raise ConfigError(f"action={action}: is nothing to do with an experiment; name it without +experiment")
    if action not in ("run", "report"):
        return max(actions.ACTIONS[action](plan) for plan in every)
    code = _run(every) if action == "run" else actions.COMPLETE
    if code == actions.INTERRUPTED:
        return code
    mine = {name: {run[0]: plans[run] for run in runs} for name, runs in wanted.items()}
    return max(code, _report(mine, every[0], request.publish))


def _request(asked: Sequence[str], rest: Sequence[str], loader: "ConfigLoader") -> Request:
    """Read what belongs to experiments. Raises ConfigError for names that there are not."""
    from kmemexp.plan.axes import read_overrides
    from kmemexp.plan.cells import Composer, plain

    if any(re.match(r"\+*sweep=", text) for text in rest):
        raise ConfigError("+experiment: brings its own sweeps; name it without +sweep")
    composer = Composer(loader)
    hydra = [text for text in rest if text.startswith("hydra.")]
    line = read_overrides(hydra, composer.with_hydra)
    options = composer.options("experiment")
    chosen, settings = _chosen(asked)
    if not chosen:
        raise ConfigError(f"+experiment=NAME is missing; there are {', '.join(options)}")
    wanted: list[str] = []
    for option in chosen:
        one_of("experiment", option, options)
        composed = composer.compose([*line.hydra, f"+experiment={option}", *settings])
        node = plain(composed, ["experiment"])["experiment"]
        one_of("experiment.size", node["size"], SIZES)
        for pattern in node["names"]:
            found = fnmatch.filter(names(), pattern)
            wanted += found or [load(pattern).__name__]  # which says that there is none
    return Request(list(dict.fromkeys(wanted)), node["size"], node["publish"])


def _chosen(asked: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split `+experiment=a,b` from the settings `experiment.…`; the last one counts."""
    chosen, settings = "", []
    for text in asked:
        key, _, value = text.partition("=")
        if key.lstrip("+") == "experiment":
            chosen = value
        else:
            settings.append(text)
    return [name.strip() for name in chosen.strip("[]").split(",") if name.strip()], settings


def _sweeps(module: ModuleType, size: str) -> list[tuple[str, ...]]:
    """Name each sweep of an experiment with what is overridden there at this size."""
    more: Mapping[str, Sequence[str]] = getattr(module, "FULL" if size == "full" else "DEFAULT", {})
    if unknown := sorted(set(more) - set(module.SWEEPS)):
        raise ConfigError(f"{module.__file__}: overrides for {unknown[0]}, which is not in SWEEPS")
    return [(sweep, *more.get(sweep, ())) for sweep in module.SWEEPS]


def _run(plans: Sequence["Plan"]) -> int:
    """Run one sweep after the other, without its tables on the terminal. Returns the worst exit code."""
    from kmemexp.actions import run as actions

    worst, earlier = actions.COMPLETE, []
    for plan in plans:
        code = actions.run(plan, earlier, quiet=True)
        if code == actions.INTERRUPTED:
            return code
        if code == actions.FAILED:
            _complain(f"sweep {plan.name}: has failed cells; the rest is reported without them ({plan.root})")
        worst = max(worst, code)
        earlier.append(plan.root)
    return worst


def _report(wanted: Mapping[str, Mapping[str, "Plan"]], any_plan: "Plan", publish: str | None) -> int:
    """Analyse, show and write each experiment. Returns the exit code."""
    from kmemexp.actions import run as actions
    from kmemexp.claims import writing as verdicts
    from kmemexp.report import terminal

    console = terminal.make_console()
    home = verdicts.home(any_plan.root)
    code = actions.COMPLETE
    for name, plans in wanted.items():
        module = load(name)
        report = _analysed(name, module, plans)
        if report is None:
            code = actions.FAILED
            verdicts.forget(home / name)
            continue
        verdicts.show(title(module), report, console)
        verdicts.write(home / name, title(module), report)
        if publish:
            verdicts.publish(home / name, Path(publish).expanduser())
    if shown := verdicts.gather(home, names()):
        console.print(f"{shown} verdicts of all experiments: {home}/verdicts.md, .csv", style="dim", soft_wrap=True)
    return code


def _analysed(name: str, module: ModuleType, plans: Mapping[str, "Plan"]) -> Report | None:
    """Let an experiment look at its results; None, after a message, where it cannot say anything."""
    try:
        report = module.analyse({sweep: planned(plan) for sweep, plan in plans.items()})
        if wrong := [v.verdict for v in report.verdicts if v.verdict not in VERDICTS]:
            raise ValueError(f"verdict {wrong[0]!r} is not one of {', '.join(VERDICTS)}")
    except Exception as error:  # an analysis may stumble in any way over what is not there
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        text = str(error) if isinstance(error, InputError | LookupError) else f"{type(error).__name__}: {error} {HINT}"
        _complain("\n  ".join([f"experiment {name}: no verdict: {text}", *_gaps(plans)]))
        return None
    return report


def _gaps(plans: Mapping[str, "Plan"]) -> list[str]:
    """Say which sweeps lack something, and what went wrong there."""
    found = []
    for sweep, plan in plans.items():
        lanes = len(plan.cells) * plan.replicas
        try:
            metrics = planned(plan).metrics
        except InputError:
            found.append(f"sweep {sweep}: none of its {lanes} replicas has been simulated")
            continue
        failed = metrics[metrics["status"] == "failed"]
        if len(failed):
            first = failed.iloc[0]
            where = f"such as {first['design']} on {first['workload']}: {first['error']}"
            found.append(f"sweep {sweep}: {len(failed)} of {lanes} replicas failed, {where}")
        if len(metrics) < lanes:
            found.append(f"sweep {sweep}: {lanes - len(metrics)} of {lanes} replicas have not been simulated")
    return found


def _complain(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201
