"""Finding an action by its name. Only its own file is imported: `action=plan` must answer at once."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

    from kmemexp.planning.plan import Plan


class Act(Protocol):
    """What the file of a verb defines as `act`."""

    def __call__(self, plans: "Sequence[Plan]", loader: "ConfigLoader | None" = None) -> int:
        """Do it to these plans, in the order of the command line. Returns the exit code; raises InputError.

        `loader`: Hydra's, where Hydra runs already; it finds the configuration files.
        """


def find(name: str) -> Act:
    """Import the action called `name`, one of config.checks.ACTIONS: planning refuses other names."""
    act: Act = importlib.import_module(f"kmemexp.actions.{name}").act
    return act
