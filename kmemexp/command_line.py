"""The command line: Hydra's flags and our own, and what Hydra does with them."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import _run_hydra, create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.version import setbase
from omegaconf import DictConfig

from kmemexp import __version__
from kmemexp.config import files, problems, reading, renamed, scales, schema
from kmemexp.errors import ConfigError, InputError, wants_traceback
from kmemexp.values import visible

STOCK = ("cfg", "info", "help", "hydra_help", "config_path", "config_name")
"""Flags that are left to Hydra as it is."""
UNAVAILABLE = r".* is not available\."  # what Hydra says, as a warning, of a folder or package that is not there


class Explaining(Hydra):
    """Hydra, but what is wrong with a configuration is a ConfigError."""

    def compose_config(self, *args: Any, **kwargs: Any) -> DictConfig:
        """Compose as Hydra does."""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", UNAVAILABLE, UserWarning)
                return super().compose_config(*args, **kwargs)
        except (*problems.COMPOSE_ERRORS, UserWarning) as error:
            raise ConfigError(problems.explanation(error)) from error


def main() -> None:
    """Parse Hydra's flags and run; ends the process with an exit code unless that is 0."""
    setbase("1.3")
    schema.register()
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        args = _arguments(_with_flags(parser))
        if args.shell_completion:
            _complete(args)
        elif any(getattr(args, flag) for flag in STOCK):
            folder = str(files.conf_dir())
            _run_hydra(args=args, args_parser=parser, task_function=_single, config_path=folder, config_name="config")
        else:
            _multirun(args)
    except InputError as error:
        if wants_traceback():
            raise
        sys.exit(visible(f"error: {error}"))


def _with_flags(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the program's own flags to Hydra's, whose --version would say Hydra's."""
    for action in parser._actions:
        if action.dest == "version":
            action.version = f"kmemexp {__version__}"  # type: ignore[attr-defined]  # of this kind of action
    parser.add_argument("--verbose", action="store_true", help="every table at the end: tables=all")
    parser.add_argument("--quiet", action="store_true", help="only errors: output=quiet")
    return parser


def _arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the flags, and refuse those that do not go with a sweep. Raises ConfigError."""
    try:
        args, unknown = parser.parse_known_args()
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}\n{parser.format_usage()}") from error
    if flags := [word for word in unknown if word.startswith("-")]:
        raise ConfigError(f"{flags[0]}: unknown option\n{parser.format_usage()}")
    meant = {"tables=all": args.verbose, "output=quiet": args.quiet}
    given = [*args.overrides, *unknown, *(text for text, asked in meant.items() if asked)]
    args.overrides = [renamed.in_override(text) for text in given]
    if args.run:
        raise ConfigError("--run: a sweep is always a multirun; leave the flag out")
    if other := [o for o in args.overrides if o.startswith("hydra/sweeper=") and o != "hydra/sweeper=kmemexp"]:
        raise ConfigError(f"{other[0]}: kmemexp plans its sweeps by itself; leave it out")
    if args.shell_completion and "COMP_LINE" not in os.environ and str(args.overrides[:1]).startswith("['query="):
        raise ConfigError(
            f"{args.overrides[0]}: is what an installed completion asks; there are install=SHELL and uninstall=SHELL, "
            "for bash, fish and zsh"
        )
    if args.cfg:
        from kmemexp.cli import with_whole_machine  # noqa: PLC0415 - for this alone

        args.overrides = with_whole_machine(_common(args.overrides), args.config_dir)
    return args


def _common(overrides: Sequence[str]) -> list[str]:
    """Overrides that hold for all cells; the others are printed as what varies, in a comment. Raises ConfigError."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(str(error)) from error
    for override in parsed:
        if override.is_sweep_override():
            print(f"# varies: {override.input_line}")  # noqa: T201
    return [str(override.input_line) for override in parsed if not override.is_sweep_override()]


def _multirun(args: argparse.Namespace) -> None:
    """Do what `hydra.main` does for a multirun, whether or not there is a `-m`.

    Left to itself, Hydra composes once more to ask for `hydra.mode`, and falls back to a single run where a
    configuration does not compose: then it blames the first comma list for what another override did.
    """
    try:
        hydra = Explaining.create_main_hydra2("kmemexp", _search_path(args))
        hydra.config_loader = reading.keeping(hydra.config_loader)
        hydra.multirun("config", _single, [scales.written_out(text) for text in args.overrides])
    finally:
        GlobalHydra.instance().clear()


def _complete(args: argparse.Namespace) -> None:
    """Install or take away a shell's completion, or answer what the Tab key asks. Raises ConfigError."""
    from kmemexp.config.completing import CompletingLoader  # noqa: PLC0415 - for this alone

    path = _search_path(args)
    try:
        hydra = Explaining.create_main_hydra2("kmemexp", path)
        hydra.config_loader = CompletingLoader(path)
        hydra.shell_completion("config", args.overrides)
    except ValueError as error:
        raise ConfigError(f"--shell-completion: {error}") from error
    finally:
        GlobalHydra.instance().clear()


def _search_path(args: argparse.Namespace) -> ConfigSearchPath:
    """Where configuration files are, with the folder of --config-dir first. Raises ConfigError."""
    path = create_config_search_path(str(files.conf_dir()))
    if args.config_dir is not None:
        folder = Path(args.config_dir).expanduser().absolute()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir: there is no folder {folder}")
        path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="main"))
    return path


def _single(composed: DictConfig) -> None:
    """Run without the sweeper, which `hydra.mode=RUN` asks for."""
    from kmemexp.cli import main as act  # noqa: PLC0415 (pandas is slow to import, and --help does without)

    if code := act(list(HydraConfig.get().overrides.task)):
        sys.exit(code)
