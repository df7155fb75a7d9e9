"""`action=designs`: what designs there are, of what parts, which real code they model and what they leave out."""

import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from kmemexp.actions.exit_codes import COMPLETE
from kmemexp.boot import census
from kmemexp.errors import ConfigError
from kmemexp.lane.replica import joins
from kmemexp.planning.plan import Plan, open_loader, plan_from
from kmemexp.report import catalogue
from kmemexp.workload import packets, roles, synthetic

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

LOAD = "server_packets"
"""The load whose kinds the tables show: synthetic, so that they are those of a kernel and not of a recording."""


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """List the designs; of the plans only what they say of the machine matters."""
    machine = json.loads(plans[0].columns["config"][0])["machine"] if plans else {}
    with open_loader(loader) as found:
        frame = catalogue.table(found)
        served = {name: _served(name, machine, found) for name in frame["design"]}
    catalogue.show(frame, Console(), served)
    return COMPLETE


def _served(design: str, machine: dict[str, int], loader: "ConfigLoader") -> list[catalogue.Served] | str:
    """Who serves the kinds of the load in a design, on this machine; or why it cannot be built there."""
    given = [f"machine.{key}={machine[key]}" for key in ("arch", "cpus", "ram_bytes", "kva_bytes") if key in machine]
    try:
        (plan,) = plan_from([f"design={design}", f"workload={LOAD}", *given], loader=loader)
        config = json.loads(plan.columns["config"][0])
        rows = config["workload"]["kinds"]
        names = tuple(sorted(rows))
        kinds = roles.cast(synthetic.kinds_table(names, [rows[name] for name in names]), config["roles"])
        kinds, _ = packets.split(kinds, functools.partial(joins, config["objects"]))
        return [catalogue.Served(*row) for row in census.served(config, kinds)]
    except ConfigError as error:
        return str(error)
