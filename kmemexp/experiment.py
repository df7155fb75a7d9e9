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
import importlib.util
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from kmemexp.errors import ConfigError, InputError
from kmemexp.report.layout import axis_value, decimals_for, number
from kmemexp.values import one_of

if TYPE_CHECKING:
    import altair
    from hydra.core.config_loader import ConfigLoader

    from kmemexp.report.results import Results, Tables
    from kmemexp.sweep.plan import Plan

VERDICTS = ("holds", "fails", "holds in part", "no difference shown", "observed")
"""The last one where no claim is judged: a figure only."""
SIZES = ("default", "full")
HINT = "(HYDRA_FULL_ERROR=1 shows where)"
SAID_FIRST = ("workload", "machine.cpus", "machine.ram_bytes", "machine.kva_bytes", "cost")
OWN = re.compile(r"[+~]*experiment[.=@]")
"""Overrides that are about experiments; all others go to every sweep."""


class Verdict(NamedTuple):
    """What was found about a claim under stated conditions."""

    claim: str  # "C4"
    verdict: str  # one of VERDICTS
    where: str  # conditions in words: "filetree, KVA 192 MiB, kmem_map removed from FreeBSD 4"
    evidence: str  # the figures in words with their uncertainty: "failures -6 ± 2 (paired, 95 %)"
    effect: float = math.nan  # the main figure as numbers
    low: float = math.nan
    high: float = math.nan
    unit: str = ""


class Report(NamedTuple):
    """What an experiment hands back."""

    summary: str  # one or two sentences: what came out, with conditions
    verdicts: list[Verdict]
    tables: dict[str, pd.DataFrame] = {}  # noqa: RUF012 - small tables for the story
    charts: dict[str, "altair.TopLevelMixin"] = {}  # noqa: RUF012


class Request(NamedTuple):
    """What the command line asks for."""

    names: list[str]
    size: str
    publish: str | None  # folder for charts and tables, besides the results


# What analyses use.


def spread(value: float, low: float, high: float, unit: str = "", scale: float = 1.0, *, sign: bool = True) -> str:
    """Write a figure with the half-width of its interval: "+33.3 ± 1.1 MiB". `scale`: what one `unit` is."""
    value, half = value / scale, (high - low) / 2 / scale
    places = decimals_for([value], [half])
    text = number(value, places, sign=sign)
    text += "" if math.isnan(half) else f" ± {number(half, places)}"
    return f"{text} {unit}".strip()


def change(row: pd.Series, unit: str = "", scale: float = 1.0) -> str:
    """Write the paired difference in a row of `Results.compare`."""
    return spread(row["diff"], row["diff_low"], row["diff_high"], unit, scale)


def in_replicas(row: pd.Series) -> str:
    """Write in how many replicas a rare event happened at all: "3 of 6"."""
    return f"{round(row['occurs'] * row['n'])} of {round(row['n'])}"


def together(*found: str) -> str:
    """Put verdicts of `compare` on several measures into one on the claim that they are better."""
    if "worse" in found:
        return "holds in part" if "better" in found else "fails"
    return "holds" if "better" in found else "no difference shown"


def cpus_text(count: int) -> str:
    """Write a number of CPUs."""
    return f"{count} CPU" if count == 1 else f"{count} CPUs"


def pick(table: pd.DataFrame, metric: str, **axes: object) -> pd.Series:
    """Find the one row of a comparison with these values; dots in an axis are written `__`. LookupError for none."""
    from kmemexp.report.comparison import matches

    found = (table["metric"] == metric).to_numpy()
    for axis, value in axes.items():
        found = found & matches(table[axis.replace("__", ".")], value)
    if found.sum() != 1:
        wanted = ", ".join(f"{axis.replace('__', '.')}={value}" for axis, value in axes.items())
        raise LookupError(f"{'no' if not found.any() else 'more than one'} row for {metric} with {wanted}")
    return table[found].iloc[0]


def without_gaps(metrics: pd.DataFrame) -> pd.DataFrame:
    """Write "none" where the axis `cost` does not exist: without a clock, as is the default, whatever a sweep says."""
    return metrics.assign(cost=metrics["cost"].astype(object).fillna("none")) if "cost" in metrics else metrics


def conditions(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each condition of a comparison in words, the load first, with its rows.

    What other words say already is left out: "filetree, 8 CPUs, KVA 192 MiB", not that there are 8 copies of the trace.
    """
    from kmemexp.report.comparison import CONDITIONS, LOAD

    axes = table.columns[: table.columns.get_loc("metric")]
    columns = [c for c in axes if c.split(".")[0] in CONDITIONS or c.startswith(LOAD)]
    named = [c for c in columns if c == "workload"]
    for column in sorted(columns, key=lambda c: SAID_FIRST.index(c) if c in SAID_FIRST else len(SAID_FIRST)):
        told_apart = len(table[named].drop_duplicates()) if named else 1
        if len(table[[*named, column]].drop_duplicates()) > told_apart:
            named.append(column)
    for _, rows in table.groupby(columns, observed=True, dropna=False, sort=False):
        first = rows.iloc[0]
        yield ", ".join(_axis_text(c, first[c]) for c in named if not pd.isna(first[c])), rows


def _axis_text(axis: str, value: object) -> str:
    if axis == "workload":
        return str(value)
    if axis == "machine.cpus":
        return cpus_text(value)
    if axis == "cost":
        return "without a clock" if value == "none" else f"with a clock ({value})"
    name = axis.rpartition(".")[2].removesuffix("_bytes")
    return f"{name.upper() if name in ('kva', 'ram') else name} {axis_value(axis, value)}"


# Finding.


def folder() -> Path:
    """Folder of the experiments: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    for place in (package / "experiments", package.parent / "experiments"):
        if place.is_dir():
            return place
    raise ConfigError(f"there is no folder {package / 'experiments'} nor {package.parent / 'experiments'}")


def names() -> list[str]:
    """Names of all experiments, sorted."""
    return sorted(path.stem for path in folder().glob("*.py") if not path.stem.startswith("_"))


@cache
def load(name: str) -> ModuleType:
    """Import an experiment. ConfigError where there is none of that name, or its file lacks something."""
    one_of("experiment", name, names())
    path = folder() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"kmemexp_experiments.{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if missing := [part for part in ("__doc__", "CLAIM", "SWEEPS", "analyse") if not getattr(module, part, None)]:
        raise ConfigError(
            f"{path}: an experiment has {', '.join(missing)} too; kmemexp/experiment.py says what it needs"
        )
    return module


def title(module: ModuleType) -> str:
    """First line of an experiment's docstring."""
    return module.__doc__.strip().splitlines()[0]


# Running.


def main(overrides: Sequence[str], *, loader: "ConfigLoader | None" = None) -> int:
    """Do the action on the sweeps of the experiments asked for, and report: the exit code. Raises InputError."""
    from kmemexp import actions
    from kmemexp.sweep.plan import open_loader, plan_from

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
    from kmemexp.sweep.axes import read_overrides
    from kmemexp.sweep.cells import Composer, plain

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
    from kmemexp import actions

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
    from kmemexp import actions
    from kmemexp.report import terminal, verdicts

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


def planned(plan: "Plan") -> "Results":
    """Results of a plan's own cells and replicas, whatever else its folder holds. StoreError where there are none."""
    from kmemexp.report import results

    there = results.load(plan.root)
    return results.Results(there.root, _Planned(there.tables, plan.cells, plan.replicas))


class _Planned(NamedTuple):
    """Tables of results, limited to a plan."""

    tables: "Tables"
    cells: pd.DataFrame
    replicas: int

    def read(self, table: str = "metrics") -> pa.Table:
        """Read the plan's rows; cells may have been simulated for another plan, so they get the axes of this one."""
        keys = pa.array(self.cells["cell_key"], pa.string())
        rows = self.tables.read(table)
        rows = rows.filter(pc.and_(pc.is_in(rows["cell_key"], keys), pc.less(rows["replica"], self.replicas)))
        if table != "metrics":
            return rows
        place = pc.index_in(rows["cell_key"], keys)
        for name in ("axes", "design", "workload"):
            column = pa.array(self.cells[name].astype(str), pa.string()).take(place.combine_chunks())
            rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
        return rows

    def read_text(self, name: str) -> str | None:
        """Read a text file beside the tables."""
        return self.tables.read_text(name)


def _complain(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201
