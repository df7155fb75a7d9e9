"""What the Tab key offers: Hydra's keys and options, and the parameters of the parts that the command line chooses."""

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override

from kmemexp.config.reading import KeepingLoader
from kmemexp.parts import written

SERVED = ("malloc", "zone", "mbuf")


class CompletingLoader(KeepingLoader):
    """Composes for completion only: parameters of the chosen allocators and arena are keys, with their defaults."""

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        """Compose what is typed so far, with the first value of each comma list."""
        typed = {"overrides": list(map(_first, kwargs.get("overrides", []))), "run_mode": RunMode.MULTIRUN}
        composed = super().load_configuration(*args, **(kwargs | typed))
        objects, maps = composed.objects, composed.maps
        allocators = {*(objects[name] for name in SERVED), *objects.kinds.values()}
        with flag_override(composed, ["readonly", "struct"], False):
            objects.params = _offered("allocators", allocators, objects.params)
            maps.params = _offered("arenas", {maps.arena}, maps.params)
        return composed


def _first(text: str) -> str:
    """Give an override with the first of the values that it lists."""
    try:
        override = OverridesParser.create().parse_override(text)
        first = next(override.sweep_string_iterator()) if override.is_sweep_override() else None
    except (HydraException, ValueError, StopIteration):
        return text  # what is wrong with it is said when it runs
    return text if first is None else f"{override.get_key_element()}={first}"


def _offered(room: str, parts: set[str], given: DictConfig) -> DictConfig:
    """Give the parameters of these parts: those that are set, and the defaults of the others."""
    defaults = {part: {f.name: f.default for f in written.parameters(room, part)} for part in sorted(parts)}
    merged = OmegaConf.merge(OmegaConf.create({part: found for part, found in defaults.items() if found}), given)
    assert isinstance(merged, DictConfig)  # noqa: S101 - two mappings make one
    return merged
