"""The Sweeper that `hydra/sweeper: kmemexp` selects: it hands the raw overrides to the planner, all of them at once."""

import sys
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from kmemexp.errors import ConfigError


class KmemexpSweeper(Sweeper):
    """Run kmemexp's planner in place of Hydra's one job per cell."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what `sweep` needs."""
        if config.hydra.job.chdir:
            raise ConfigError("hydra.job.chdir=true: a sweep's jobs have no folders of their own; see store.root")
        self.hydra_context, self.config = hydra_context, config
        self.loader, self.settings = hydra_context.config_loader, list(config.hydra.overrides.hydra)

    def sweep(self, arguments: list[str]) -> None:
        """Do what the overrides ask for; ends the process with the exit code unless that is 0."""
        from kmemexp.cli import main  # noqa: PLC0415 (Hydra imports every plugin, whatever runs)

        if code := main([*self.settings, *arguments], loader=self.loader):
            sys.exit(code)


@dataclass
class KmemexpSweeperConf:
    """Nothing to configure: a sweep is described in conf/sweep/."""

    _target_: str = "hydra_plugins.kmemexp_sweeper.sweeper.KmemexpSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="kmemexp", node=KmemexpSweeperConf, provider="kmemexp")
