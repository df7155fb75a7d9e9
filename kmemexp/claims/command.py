"""`+experiment=NAME`: run the sweeps of experiments as `action=run` would, then show and write what they say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from kmemexp.actions.exit_codes import COMPLETE, FAILED, SIGNALLED
from kmemexp.actions.finding import find
from kmemexp.actions.run import run
from kmemexp.claims import finding, request, writing
from kmemexp.claims.analysis import analysed, complain
from kmemexp.errors import ConfigError
from kmemexp.planning.plan import Plan, open_loader, plan_from
from kmemexp.report import ending, terminal

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def main(overrides: Sequence[str], *, loader: "ConfigLoader | None" = None) -> int:
    """Do the action on the sweeps of the experiments asked for, and report: the exit code. Raises InputError."""
    with open_loader(loader) as found:
        asked, rest = request.read(overrides, found)
        wanted = {name: finding.sweeps(finding.load(name), asked.size) for name in asked.names}
        runs = dict.fromkeys(one for runs in wanted.values() for one in runs)
        plans = {(sweep, *more): plan_from([f"+sweep={sweep}", *more, *rest], loader=found)[0] for sweep, *more in runs}
    every = list(plans.values())
    action = every[0].action
    if action == "designs":
        raise ConfigError(f"action={action}: is nothing to do with an experiment; name it without +experiment")
    if action not in ("run", "report"):
        return find(action)(every, loader)
    code = run(every, _finish) if action == "run" else COMPLETE
    if code >= SIGNALLED:
        return code
    mine = {name: {one[0]: plans[one] for one in runs} for name, runs in wanted.items()}
    return max(code, _report(mine, writing.home(every[0].root), asked.publish))


def _finish(plan: Plan, failed: int) -> None:
    """Write a sweep's tables without showing them, and say if something failed."""
    ending.finish(plan, Console(quiet=True))
    if failed:
        complain(f"sweep {plan.name}: has failed cells; the rest is reported without them ({plan.root})")


def _report(wanted: Mapping[str, Mapping[str, Plan]], home: Path, publish: str | None) -> int:
    """Analyse, show and write each experiment. `wanted`: its plans by sweep. Returns the exit code."""
    console = terminal.make_console()
    code = COMPLETE
    for name, plans in wanted.items():
        module = finding.load(name)
        report = analysed(name, module, plans)
        if report is None:
            code = FAILED
            writing.forget(home / name)
            continue
        writing.show(finding.title(module), report, console)
        writing.write(home / name, finding.title(module), report)
        if publish:
            writing.publish(home / name, Path(publish).expanduser())
    if shown := writing.gather(home, finding.names()):
        console.print(f"{shown} verdicts of all experiments: {home}/verdicts.md, .csv", style="dim", soft_wrap=True)
    return code
