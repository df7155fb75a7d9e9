"""Configuration files, read once: Hydra by itself reads, parses and copies them again for each composition.

A file whose time of modification, size or inode has changed is read again. What is composed is the same. Copies are
made by pickling, here and in memory only, which takes a tenth of the time that `copy.deepcopy` takes.
"""

import contextlib
import copy
import itertools
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from kmemexp.config.problems import yaml_problem
from kmemexp.errors import ConfigError

try:
    from yaml.cyaml import CParser  # type: ignore[import-untyped]  # as above
except ImportError:  # PyYAML without libyaml
    CParser = None

WORTH_KEEPING = 4  # files that need not be merged again
BEGINNINGS = 64  # of compositions, kept merged: some 50 kB each
HEADER = 512  # characters at the beginning of a file in which Hydra looks for `# @package`

Place = tuple[str | None, bool]
"""Where a file's content goes: its package, and whether it is the primary configuration."""


@dataclass
class KeptResult(ConfigResult):
    """What a file holds: to look at, not to change."""

    placed: dict[Place, bytes] = field(default_factory=dict)
    """The same, pickled, as it is merged at a place. To unpickle takes a tenth of the time of a deep copy."""


class _Kept(NamedTuple):
    """What a source gave, when its file had this stamp; () where there is no file."""

    stamp: tuple[int, ...]
    result: KeptResult
    entry: Any = None  # of Hydra's store, held because the stamp is its address


Known = dict[tuple[str, str, str], _Kept]  # by provider and place of the source, and path of the file

_files: Known = {}
_last: list[bytes] = []  # files of the last composition, as they were merged
_begun: dict[tuple[bytes, ...], bytes] = {}  # what came of the first files of a composition, which say all of it


def keeping(loader: ConfigLoader) -> ConfigLoader:
    """Give a loader for the same search path that reads each configuration file once."""
    return loader if isinstance(loader, KeepingLoader) else KeepingLoader(loader.get_search_path())


class KeepingLoader(ConfigLoaderImpl):
    """Hydra's loader, but that a file is read once."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = KeepingRepository(config_search_path)

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        """Compose as Hydra does."""
        with _choices_when_needed():
            return super().load_configuration(*args, **kwargs)

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        """Merge the files as Hydra does, but all at once, and go on from what the last composition has begun with."""
        contents = [self._pickled(default, repo) for default in defaults]
        try:
            merged = _merged(contents)
        except OmegaConfBaseException:
            return super()._compose_config_from_defaults_list(defaults, repo)  # says in which file
        _strip_defaults(merged)
        return merged

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        """Give the content of a file as it is merged into a configuration; the caller may change it."""
        return cast(ConfigResult, pickle.loads(self._pickled(default, repo)))  # noqa: S301

    def _pickled(self, default: ResultDefault, repo: IConfigRepository) -> bytes:
        kept = cast(KeptResult, repo.load_config(str(default.config_path)))
        place = default.package, default.primary
        if place not in kept.placed:
            kept.placed[place] = pickle.dumps(super()._load_single_config(default, _Copying(repo)))
        return kept.placed[place]


def _merged(contents: list[bytes]) -> DictConfig:
    pairs = zip(contents, _last, strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    _last[:] = contents
    known = next((n for n in range(len(contents), 0, -1) if tuple(contents[:n]) in _begun), 0)
    merged = pickle.loads(_begun[tuple(contents[:known])]) if known else OmegaConf.create()  # noqa: S301
    if shared - known >= WORTH_KEEPING:
        _merge(merged, contents[known:shared])
        _begun[tuple(contents[:shared])] = pickle.dumps(merged)
        if len(_begun) > BEGINNINGS:
            del _begun[next(iter(_begun))]
        known = shared
    _merge(merged, contents[known:])
    return cast(DictConfig, merged)


def _merge(merged: DictConfig, contents: list[bytes]) -> None:
    """Merge all at once: the nodes are then told their parents once, not after each file."""
    with flag_override(merged, "no_deepcopy_set_nodes", True):
        merged.merge_with(*(pickle.loads(content).config for content in contents))  # noqa: S301


def _strip_defaults(node: Any) -> None:
    """Take the defaults lists out of structured configurations, which Hydra has marked."""
    if not isinstance(node, DictConfig) or node._is_missing() or node._is_none():
        return
    if node._get_flag("HYDRA_REMOVE_TOP_LEVEL_DEFAULTS"):
        with flag_override(node, ["readonly", "struct"], False):
            node._set_flag("HYDRA_REMOVE_TOP_LEVEL_DEFAULTS", None)
            node.pop("defaults", None)
    for _, child in node.items_ex(resolve=False):
        _strip_defaults(child)


@contextlib.contextmanager
def _choices_when_needed() -> Iterator[None]:
    """Let Hydra tabulate all choices where a defaults list refers to them, not for each file: a quarter of its time."""
    tabulate = defaults_list._create_interpolation_map

    def when_needed(overrides: Any, defaults: list[InputDefault], self_added: bool) -> DictConfig:
        refers = any(default.is_interpolation() for default in defaults)
        return tabulate(overrides, defaults, self_added) if refers else OmegaConf.create()

    defaults_list._create_interpolation_map = when_needed  # type: ignore[assignment]  # called as Hydra's is
    try:
        yield
    finally:
        defaults_list._create_interpolation_map = tabulate


class KeepingRepository(ConfigRepository):
    """Hydra's sources of configuration files, each of which is asked once for a file."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        self._others: Known = {}  # what is neither in a file nor in Hydra's store, such as its own settings
        super().__init__(config_search_path)

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Make the sources of a search path."""
        super().initialize_sources(config_search_path)
        self.sources = [
            QuickFiles(source.provider, source.path) if source.scheme() == "file" else source for source in self.sources
        ]

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Give the content of a file, which the caller must not change."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None:
            return None
        known: Known = self._others
        stamp: tuple[int, ...] = ()
        entry = None
        if isinstance(source, QuickFiles):
            known, stamp = _files, source.stamp(config_path)
        elif source.scheme() == "structured":
            entry = ConfigStore.instance()._load(source._normalize_file_name(config_path))
            known, stamp = _files, (id(entry),)
        key = (source.provider, source.full_path(), config_path)
        found = known.get(key)
        if found is None or found.stamp != stamp:
            read = super().load_config(config_path)
            if read is None:
                return None
            found = known[key] = _Kept(stamp, KeptResult(**vars(read)), entry)
        return found.result

    def __deepcopy__(self, memo: dict[int, Any]) -> "KeepingRepository":
        """Hydra copies it for each composition, which may then get other sources; those do not change."""
        return copy.copy(self)


class _Copying(CachingConfigRepository):
    """Gives what may be changed."""

    def __init__(self, delegate: IConfigRepository) -> None:
        self.delegate, self.cache = delegate, {}  # Hydra's own would be a copy of the other one

    def load_config(self, config_path: str) -> ConfigResult | None:
        return copy.deepcopy(super().load_config(config_path))


class QuickFiles(FileConfigSource):
    """Hydra's source of configuration files on disk, with a faster parser."""

    def stamp(self, config_path: str) -> tuple[int, ...]:
        """What changes with a file."""
        facts = self._place(config_path).stat()
        return facts.st_mtime_ns, facts.st_size, facts.st_ino

    def load_config(self, config_path: str) -> ConfigResult:
        """Read and parse a file."""
        try:
            text = self._place(config_path).read_text("utf-8")
            content = yaml.load(text, Loader=_loader())  # noqa: S506 - built on the safe one
        except yaml.YAMLError as error:
            raise ConfigError(yaml_problem(error, str(self._place(config_path)))) from error
        if not isinstance(content, dict):
            return super().load_config(config_path)  # says what is wrong, and where
        header = self._get_header_dict(text[:HEADER])
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create(content), header)

    def _place(self, config_path: str) -> Path:
        return Path(self.path) / self._normalize_file_name(config_path)


@cache
def _loader() -> Any:
    """OmegaConf's rules of YAML, with libyaml's parser where there is one: it takes a tenth of the time."""
    rules = get_yaml_loader()
    if CParser is None:
        return rules

    def begin(self: Any, stream: str) -> None:
        CParser.__init__(self, stream)
        yaml.constructor.SafeConstructor.__init__(self)
        yaml.resolver.Resolver.__init__(self)

    return type("Loader", (CParser, rules), {"__init__": begin})  # the parser in front hides the one behind it
