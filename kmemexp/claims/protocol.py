"""The protocol of a claim: its rule as data, a digest of all of it, and how exploring and confirming are kept apart.

*Exploring* uses the seeds 0 to 9 and the loads that are shipped with the sweeps; rules are made and mended there.
*Confirming* (`experiment.confirm=true`) judges by the rule as it stands, once, on a seed and on loads that exploring
never used: another synthetic server, another recording. What was confirmed is written down with the protocol's digest,
and a seed that has confirmed one rule confirms no other. A claim whose rule was changed since says so.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from kmemexp.config.files import conf_dir
from kmemexp.errors import ConfigError
from kmemexp.metrics import Margin

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

EXPLORED = range(10)
"""Seeds of exploring; all others are kept for confirming."""
SEED = 1000  # of a confirmation, where no other is named
RECORDING = "{recording}"
COMPARED = "design=freebsd4,dragonfly_2003aug25,mail2003_bare,freebsd5_uma,freebsd5_uma_unified"
LONG_RUN = ("size=full", COMPARED, "machine.kva_bytes=160MiB,256MiB", "~sweep.axes.cost", "~sweep.when.cost")
"""Of the sweep `fragmentation`: its long run of the designs that claims compare, least and most KVA, no clock."""
LONGER_RUN = (
    *LONG_RUN[:2], "machine.kva_bytes=152MiB,160MiB,176MiB,192MiB,224MiB,256MiB", *LONG_RUN[3:], "sweep.reps.max=24",
)  # fmt: skip
"""The same at full size."""
OTHER_LOADS = (
    "~sweep.axes.workload",
    f'sweep.union=[{{axes: {{workload: [trace], workload.path: ["{RECORDING}"]}}}}, '
    "{axes: {workload: [mail_days]}}]",
)
"""Of the sweep `fragmentation`: another recording, and another synthetic server."""
RECORD = "_confirmations.json"
DIGITS = 12


class Protocol(NamedTuple):
    """The rule of a claim, as far as it is data; its words are the docstring's, its steps those of `analyse`."""

    judged: tuple[str, ...]  # metrics that verdicts rest on
    family: str  # what is corrected together
    replicas: Mapping[str, int]  # by sweep, at least; of a sweep without chance, 1
    margins: Mapping[str, Margin] = {}  # where they are not those that the metrics state
    confirm: Mapping[str, Sequence[str]] = {}  # by sweep: overrides for other loads; RECORDING is the path of a trace


class Stage(NamedTuple):
    """Under which protocol, and at which stage, a report was made."""

    digest: str
    name: str  # "explored", "confirmed", "explored, rule changed since it was confirmed"
    note: str  # one line for the report


def digest(module: ModuleType) -> str:
    """Digest of a claim's protocol: words, data and steps of the rule, and its sweep files; comments do not count."""
    path = Path(str(module.__file__))
    tree = ast.parse(path.read_text("utf-8"))
    sweeps = {name: _sweep(name) for name in module.SWEEPS}
    data = [module.PROTOCOL, getattr(module, "DEFAULT", {}), getattr(module, "FULL", {})]
    text = json.dumps([ast.unparse(tree), sweeps, data], sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _sweep(name: str) -> Any:
    """Content of a sweep file; None for one that lies elsewhere."""
    from omegaconf import OmegaConf  # noqa: PLC0415

    path = conf_dir() / "sweep" / f"{name}.yaml"
    return OmegaConf.to_container(OmegaConf.load(path)) if path.exists() else None


def overrides(module: ModuleType, sweep: str, rest: Sequence[str], recording: str | None) -> list[str]:
    """Overrides that make a sweep of a claim its confirmation. Raises ConfigError where a recording is missing."""
    asked = list(module.PROTOCOL.confirm.get(sweep, ()))
    if any(RECORDING in text for text in asked) and not recording:
        raise ConfigError(
            f"{module.CLAIM}, sweep {sweep}: is confirmed on another recording: experiment.recording=PATH of an "
            "imported trace (python -m kmemexp.trace import)"
        )
    own = [] if any(text.lstrip("+").startswith("seed=") for text in rest) else [f"seed={SEED}"]
    given = str(Path(recording).expanduser().absolute()) if recording else ""
    return [*(text.replace(RECORDING, given) for text in asked), *own, f"sweep.name={sweep}_confirmed"]


def check_plans(module: ModuleType, plans: Mapping[str, "Plan"], *, confirm: bool) -> None:
    """Refuse plans with seeds of the other stage, or that confirm by less than the protocol. Raises ConfigError."""
    for sweep, plan in plans.items():
        seeds = seeds_of(plan)
        if confirm and (used := [s for s in seeds if s in EXPLORED]):
            raise ConfigError(f"seed={used[0]}: has been explored on; confirm on another one, from {len(EXPLORED)} on")
        if not confirm and (kept := [s for s in seeds if s not in EXPLORED]):
            raise ConfigError(
                f"seed={kept[0]}: seeds from {len(EXPLORED)} on are kept for experiment.confirm=true; explore on 0 to "
                f"{len(EXPLORED) - 1}"
            )
        least = module.PROTOCOL.replicas.get(sweep, 1)
        if confirm and plan.replicas < least:
            raise ConfigError(f"{module.CLAIM}, sweep {sweep}: is confirmed by {least} replicas, not {plan.replicas}")


def seeds_of(plan: "Plan") -> list[int]:
    """Seeds that a plan's cells have."""
    return sorted({int(json.loads(text)["seed"]) for text in plan.columns["config"]})


def confirmations(home: Path) -> dict[str, list[dict[str, Any]]]:
    """What has been confirmed, by experiment, from the folder of reports."""
    path = home / RECORD
    found: dict[str, list[dict[str, Any]]] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def refuse_second(home: Path, name: str, now: str, seeds: Iterable[int]) -> None:
    """Refuse to confirm a rule on a seed that has confirmed another rule of the same claim. Raises ConfigError."""
    for entry in confirmations(home).get(name, []):
        if entry["protocol"] != now and (again := set(entry["seeds"]) & set(seeds)):
            raise ConfigError(
                f"experiment {name}: the rule has changed (protocol {entry['protocol']}, now {now}) since seed "
                f"{min(again)} confirmed it on {entry['date']}; confirm it on a new one: seed={max(entry['seeds']) + 1}"
            )


def write_down(home: Path, name: str, now: str, seeds: Iterable[int], verdicts: Mapping[str, int]) -> None:
    """Write a confirmation down, unless it stands there. `verdicts`: how many of each."""
    every = confirmations(home)
    entry = {"protocol": now, "seeds": sorted(set(seeds)), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    same = [e for e in every.get(name, []) if (e["protocol"], e["seeds"]) == (entry["protocol"], entry["seeds"])]
    if same:
        return
    every.setdefault(name, []).append(entry | {"verdicts": dict(verdicts)})
    home.mkdir(parents=True, exist_ok=True)
    (home / RECORD).write_text(json.dumps(every, indent=1) + "\n", "utf-8")


def stage(home: Path, name: str, module: ModuleType, plans: Mapping[str, "Plan"], *, confirm: bool) -> Stage:
    """Say at which stage a report is, and whether what was confirmed before was the same rule."""
    now = digest(module)
    seeds = sorted({seed for plan in plans.values() for seed in seeds_of(plan)})
    on = f"on seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    if confirm:
        return Stage(now, "confirmed", f"Protocol {now}, confirmed {on}: {module.PROTOCOL.family}.")
    short = [
        f"{sweep} {plan.replicas} of {module.PROTOCOL.replicas[sweep]}"
        for sweep, plan in plans.items()
        if plan.replicas < module.PROTOCOL.replicas.get(sweep, 1)
    ]
    line = f"Protocol {now}, explored {on}: {module.PROTOCOL.family}."
    line += f" Fewer replicas than it asks for: {', '.join(short)}." if short else ""
    earlier = confirmations(home).get(name, [])
    if not earlier:
        return Stage(now, "explored", f"{line} Not confirmed yet.")
    last = earlier[-1]
    if last["protocol"] == now:
        return Stage(now, "explored", f"{line} Confirmed on {last['date']}.")
    return Stage(
        now, "explored, rule changed since it was confirmed",
        f"{line} The rule was changed since it was confirmed on {last['date']} (then {last['protocol']}).",
    )  # fmt: skip
