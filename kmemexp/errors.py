"""Errors that a user can fix: printed as one message without a traceback, exit code 1."""

import os


class InputError(ValueError):
    """Something the user gave is wrong; the message names the key, file or line, and what to do."""


class ConfigError(InputError):
    """A configuration key or value is wrong."""


class TraceError(InputError):
    """A trace cannot be read."""


class StoreError(InputError):
    """A results folder cannot be used."""


def wants_traceback() -> bool:
    """Whether the user asks for tracebacks in place of messages, as of Hydra itself: HYDRA_FULL_ERROR=1."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"
