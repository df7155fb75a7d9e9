"""`action=knobs`: every key of the configuration and every parameter of a part, with default and meaning."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from kmemexp.actions.exit_codes import COMPLETE
from kmemexp.planning.plan import Plan, open_loader
from kmemexp.report import reference

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """List the keys; the plans do not matter."""
    with open_loader(loader) as found:
        reference.show(reference.knobs(found), Console())
    return COMPLETE
