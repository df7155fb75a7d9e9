"""The command line: `python -m kmemexp`, or the console script `kmemexp`."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import _run_hydra, create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import setbase
from omegaconf import DictConfig

from kmemexp.config import files, reading, schema
from kmemexp.errors import ConfigError, InputError, wants_traceback

STOCK = ("run", "cfg", "info", "help", "hydra_help", "shell_completion", "config_path", "config_name")
"""Flags that are left to Hydra as it is."""


class Explaining(Hydra):
    """Hydra, but what is wrong with a configuration is a ConfigError."""

    def compose_config(self, *args: Any, **kwargs: Any) -> DictConfig:
        """Compose as Hydra does."""
        try:
            return super().compose_config(*args, **kwargs)
        except schema.COMPOSE_ERRORS as error:
            raise ConfigError(schema.explanation(error)) from error


def main() -> None:
    """Parse Hydra's flags and run; ends the process with an exit code unless that is 0."""
    setbase("1.3")
    schema.register()
    parser = get_args_parser()
    args = parser.parse_args()
    try:
        if any(getattr(args, flag) for flag in STOCK):
            folder = str(files.conf_dir())
            _run_hydra(args=args, args_parser=parser, task_function=_single, config_path=folder, config_name="config")
        else:
            _multirun(args)
    except InputError as error:
        if wants_traceback():
            raise
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `action=plan | head`: what was asked for has been read
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _multirun(args: argparse.Namespace) -> None:
    """Do what `hydra.main` does for a multirun, whether or not there is a `-m`.

    Left to itself, Hydra composes once more to ask for `hydra.mode`, and falls back to a single run where a
    configuration does not compose: then it blames the first comma list for what another override did.
    """
    path = create_config_search_path(str(files.conf_dir()))
    if args.config_dir is not None:
        folder = Path(args.config_dir).expanduser().absolute()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir: there is no folder {folder}")
        path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    try:
        hydra = Explaining.create_main_hydra2("kmemexp", path)
        hydra.config_loader = reading.keeping(hydra.config_loader)
        hydra.multirun("config", _single, args.overrides)
    finally:
        GlobalHydra.instance().clear()


def _single(composed: DictConfig) -> None:
    """Run without the sweeper, which `--run` asks for."""
    from kmemexp.cli import main as act  # noqa: PLC0415 (pandas is slow to import, and --help does without)

    if code := act(list(HydraConfig.get().overrides.task)):
        sys.exit(code)


if __name__ == "__main__":
    main()
