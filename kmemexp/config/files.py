"""Where the configuration files are."""

from pathlib import Path

from kmemexp.errors import ConfigError


def conf_dir() -> Path:
    """Folder of the configuration files: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError(f"there is no config.yaml in {package / 'conf'} nor in {package.parent / 'conf'}")
