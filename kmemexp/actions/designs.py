"""`action=designs`: what designs there are, of what parts, which real code they model and what they leave out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from kmemexp.actions.exit_codes import COMPLETE
from kmemexp.planning.plan import Plan, open_loader
from kmemexp.report import catalogue

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """List the designs; the plans do not matter."""
    with open_loader(loader) as found:
        catalogue.show(catalogue.table(found), Console())
    return COMPLETE
