"""Values of the configuration: sizes written as text, and errors that name the key, the value and what would do."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kmemexp.errors import ConfigError


def known(where: str, what: str, name: Any, names: Iterable[Any]) -> Any:
    """Return `name` if it is one of `names`; ConfigError lists them."""
    names = list(names)
    if name not in names:
        raise ConfigError(f"{where}.{what}={name}: unknown; there are {', '.join(map(str, names)) or 'none'}")
    return name


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # and those that turn text around
UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def one_of(key: str, value: Any, known: Sequence[str]) -> None:
    """Refuse a value that is not among the known ones."""
    if value not in known:
        raise ConfigError(f"{key}={value}: unknown{close(str(value), known)}; there are {', '.join(known)}")


def at_least(key: str, value: Any, low: int) -> int:
    """Return an integer that is not below `low`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{key}={value}: must be an integer")
    if value < low:
        raise ConfigError(f"{key}={value}: must be at least {low}")
    return value


def within(key: str, value: Any, low: int, high: int) -> int:
    """Return an integer from `low` to `high`."""
    if at_least(key, value, low) > high:
        raise ConfigError(f"{key}={value}: must be at most {high}")
    return int(value)


def byte_count(key: str, value: Any) -> int:
    """Return the bytes in 4096, "16k", "128MiB" or "1.5 GiB"; units are powers of 1024. Raises ConfigError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(?:i?b)?|b)?", str(value).strip(), re.IGNORECASE)
    number = float(match[1]) * 2 ** UNITS[(match[2] or "").lower()] if match else 0.5
    if not number.is_integer():
        raise ConfigError(f"{key}={value}: must be a number of bytes, such as 4096, 16k, 128MiB or 1GiB")
    return int(number)


def size_text(size: int) -> str:
    """Write a size as one would: 128MiB."""
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift:
            return f"{size / (1 << shift):.6g}{unit}"
    return str(size)


def sizes(key: str, value: Any) -> Any:
    """Turn sizes written as text into integers wherever a key ends in `_bytes`, in lists of them too."""
    if isinstance(value, Mapping):
        return {k: sizes(f"{key}.{k}", v) for k, v in value.items()}
    if isinstance(value, list):
        return [sizes(key, v) for v in value]
    return byte_count(key, value) if isinstance(value, str) and key.endswith("bytes") else value


def visible(text: str) -> str:
    """Write control characters as their hexadecimal codes: a terminal would obey them."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def markdown(text: str) -> str:
    """Write a text so that Markdown, and the HTML made of it, shows just this text, on one line."""
    for sign, shown in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, shown)
    return re.sub(r"([\\`*\[\]|])", r"\\\1", visible(text).replace("\n", " "))


def close(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {near[0]}?)" if near else ""
