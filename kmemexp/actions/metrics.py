"""`action=metrics`: what every metric means, its unit, whether less or more is better, and its margin."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from kmemexp.actions.exit_codes import COMPLETE
from kmemexp.planning.plan import Plan
from kmemexp.report import reference

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """List the metrics; the plans do not matter."""
    reference.show(reference.metrics(), Console())
    return COMPLETE
