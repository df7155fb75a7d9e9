"""`action=workloads`: what loads there are, and what the file of each says of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from kmemexp.actions.exit_codes import COMPLETE
from kmemexp.planning.plan import Plan, open_loader
from kmemexp.report import reference

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """List the loads; the plans do not matter."""
    with open_loader(loader) as found:
        reference.show(reference.workloads(found), Console())
    return COMPLETE
