"""`+experiment=NAME`: run the sweeps of experiments as `action=run` would, then show and write what they say."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from kmemexp.actions.exit_codes import COMPLETE, FAILED, SIGNALLED
from kmemexp.actions.finding import find
from kmemexp.actions.run import run
from kmemexp.claims import finding, fragility, protocol, request, writing
from kmemexp.claims.analysis import analysed, complain
from kmemexp.claims.judging import Report
from kmemexp.errors import ConfigError
from kmemexp.planning.plan import Plan, open_loader, plan_from
from kmemexp.report import ending, terminal

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


class _Asked(NamedTuple):
    """A claim, and its plans: by sweep, at the costs as they are and at each scale of some of them."""

    module: ModuleType
    plans: Mapping[str, Plan]
    scaled: Mapping[fragility.Scale, Mapping[str, Plan]]


def main(overrides: Sequence[str], *, loader: "ConfigLoader | None" = None) -> int:
    """Do the action on the sweeps of the experiments asked for, and report: the exit code. Raises InputError."""
    with open_loader(loader) as found:
        asked, rest = request.read(overrides, found)
        planner = _Planner(found, rest)
        wanted = {name: _planned(finding.load(name), asked, planner) for name in asked.names}
    every = planner.plans
    action = every[0].action
    if action == "designs":
        raise ConfigError(f"action={action}: is nothing to do with an experiment; name it without +experiment")
    if action not in ("run", "report"):
        return find(action)(every, loader)
    home = writing.home(every[0].root)
    if asked.confirm:
        for name, one in wanted.items():
            seeds = [seed for plan in one.plans.values() for seed in protocol.seeds_of(plan)]
            protocol.refuse_second(home, name, protocol.digest(one.module), seeds)
    code = run(every, _finish) if action == "run" else COMPLETE
    if code >= SIGNALLED:
        return code
    return max(code, _report(wanted, home, asked))


class _Planner:
    """Plans each sweep with its overrides once, however many experiments need it."""

    def __init__(self, loader: "ConfigLoader", rest: Sequence[str]) -> None:
        self.rest = list(rest)
        self._loader = loader
        self._known: dict[tuple[str, ...], Plan] = {}

    @property
    def plans(self) -> list[Plan]:
        return list(self._known.values())

    def plan(self, sweep: str, more: Sequence[str], last: Sequence[str] = ()) -> Plan:
        """Plan a sweep; `last` beats the command line, `more` does not. Raises InputError."""
        key = (sweep, *more, "", *last) if last else (sweep, *more)
        if key not in self._known:
            self._known[key] = plan_from([f"+sweep={sweep}", *more, *self.rest, *last], loader=self._loader)[0]
        return self._known[key]


def _planned(module: ModuleType, asked: request.Request, planner: _Planner) -> _Asked:
    """Plan the sweeps of an experiment as they are asked for. Raises InputError."""
    runs = {sweep: more for sweep, *more in finding.sweeps(module, asked.size)}
    if asked.confirm:
        runs = {s: [*more, *protocol.overrides(module, s, planner.rest, asked.recording)] for s, more in runs.items()}
    plans = {sweep: planner.plan(sweep, more) for sweep, more in runs.items()}
    protocol.check_plans(module, plans, confirm=asked.confirm)
    scaled = {
        scale: {s: planner.plan(s, runs[s], fragility.overrides(plan, scale)) for s, plan in plans.items()}
        for scale in fragility.scales(asked.costs, plans.values())
    }
    return _Asked(module, plans, scaled)


def _finish(plan: Plan, failed: int) -> None:
    """Write a sweep's tables without showing them, and say if something failed."""
    ending.finish(plan, Console(quiet=True))
    if failed:
        complain(f"sweep {plan.name}: has failed cells; the rest is reported without them ({plan.root})")


def _report(wanted: Mapping[str, _Asked], home: Path, asked: request.Request) -> int:
    """Analyse, show and write each experiment. Returns the exit code."""
    console = terminal.make_console()
    code = COMPLETE
    shelf = home / writing.CONFIRMED if asked.confirm else home
    for name, one in wanted.items():
        report = _judged(name, one)
        if report is None:
            code = FAILED
            writing.forget(shelf / name)
            continue
        title = finding.title(one.module)
        stage = protocol.stage(home, name, one.module, one.plans, confirm=asked.confirm)
        if asked.confirm:
            seeds = [seed for plan in one.plans.values() for seed in protocol.seeds_of(plan)]
            protocol.write_down(home, name, stage.digest, seeds, Counter(v.verdict for v in report.verdicts))
        writing.show(title, report, stage, console)
        writing.write(shelf / name, title, report, stage)
        if asked.publish:
            to = Path(asked.publish).expanduser()
            writing.publish(shelf / name, to / "confirmed" if asked.confirm else to)
    if shown := writing.gather(shelf, finding.names()):
        console.print(f"{shown} verdicts of all experiments: {shelf}/verdicts.md, .csv", style="dim", soft_wrap=True)
    return code


def _judged(name: str, one: _Asked) -> Report | None:
    """Analyse an experiment, at every scale of costs that is asked for; None, after a message, where that fails."""
    report = analysed(name, one.module, one.plans)
    others = {scale: analysed(name, one.module, plans) for scale, plans in one.scaled.items()}
    if report is None or None in others.values():
        return None
    there = {scale: other for scale, other in others.items() if other is not None}
    return fragility.marked(report, there, list(one.plans.values())) if there else report
