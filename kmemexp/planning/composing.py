"""Composing configurations with Hydra: for one search path, with errors that name what is wrong."""

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.default_element import ConfigDefault
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from kmemexp.config import problems, renamed
from kmemexp.errors import ConfigError
from kmemexp.planning import axes

if TYPE_CHECKING:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import IConfigRepository


class Composer:
    """Hydra's compose for one search path, with errors that name what is wrong."""

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader = loader
        self._hydra: list[str] = []
        self.options: axes.Options = cache(self._options)
        self.stands_alone = cache(self._stands_alone)
        self.machine = cache(self._machine)

        self.whole_machine = False  # what a sweep's file says of the machine yields to the machine that is chosen

    def with_hydra(self, hydra: Sequence[str]) -> axes.Options:
        """Take over hydra.* settings (such as hydra.searchpath); returns the lookup of groups under them."""
        self._hydra = list(hydra)
        return self.options

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Compose one configuration. Raises ConfigError with Hydra's own explanation."""
        found = self._load(overrides)
        machine = tuple(text for text in overrides if _group(text) in ("machine", "scenario"))
        if self.whole_machine and any(text.startswith("machine=") for text in machine):
            with flag_override(found, ["readonly", "struct"], False):
                found.machine = self.machine(machine)
        return found

    def _machine(self, overrides: Sequence[str]) -> Any:
        return self._load(overrides).machine

    def _load(self, overrides: Sequence[str]) -> DictConfig:
        try:
            return self._loader.load_configuration("config", [*self._hydra, *overrides], RunMode.RUN, from_shell=False)
        except problems.COMPOSE_ERRORS as error:
            text = problems.explanation(error)
            raise ConfigError(text + renamed.hint(text)) from error

    def _stands_alone(self, group: str, option: str) -> bool:
        """Tell whether an option's file is plain values for its own node: no package, no defaults of other groups."""
        found = repository(self._loader).load_config(f"{group}/{option}")
        if found is None or found.header.get("package"):
            return False
        inner = [default for default in found.defaults_list or () if not default.is_self()]
        # What such a file builds on may not be found by its bare name: then it is another group's.
        return all(
            isinstance(default, ConfigDefault) and not default.is_override()
            and str(default.path) in self.options(group) and self.stands_alone(group, str(default.path))
            for default in inner
        )  # fmt: skip

    def _options(self, group: str) -> Sequence[str]:
        if not re.fullmatch(r"[\w/-]+", group):
            return ()
        return tuple(self._loader.get_group_options(group, overrides=self._hydra))


def _group(override: str) -> str:
    """First word of the key of an override."""
    return re.split(r"[=.@/]", override.lstrip("+~"), maxsplit=1)[0]


def repository(loader: ConfigLoader) -> "IConfigRepository":
    """Where Hydra's loader finds its files: an attribute that the published interface leaves out."""
    return cast("ConfigLoaderImpl", loader).repository


def plain(composed: DictConfig, keys: Sequence[str]) -> dict[str, Any]:
    """Turn nodes into plain dicts, references resolved. Raises ConfigError."""
    nodes = {}
    for key in keys:
        if key not in composed:
            raise ConfigError(f"{key}: has been deleted, but every cell needs it")
        try:
            value = OmegaConf.select(composed, key, throw_on_missing=True)
            is_tree = OmegaConf.is_config(value)
            nodes[key] = OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if is_tree else value
        except OmegaConfBaseException as error:
            raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    return nodes
