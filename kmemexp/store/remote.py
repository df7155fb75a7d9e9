"""Object stores: what a URI such as `s3://bucket/folder?endpoint=http://host:9000&http=true` says.

The part after the `?` holds `store.options`. Credentials are named there by where they are, never given: they come from
the environment (AWS_ACCESS_KEY_ID …), from a profile in ~/.aws/credentials, or, only where `metadata` says so, from the
cloud's metadata service.
"""

import configparser
import os
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from kmemexp.errors import StoreError

OPTIONS = ("endpoint", "region", "http", "profile", "anonymous", "metadata")
PATIENCE = timedelta(seconds=4)  # a bucket or a host that is not there is told of within this
KEYS = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token", "region": "region"}  # fmt: skip


def with_options(root: str, options: Mapping[str, Any]) -> str:
    """Put options into a URI. Raises StoreError for unknown ones, and for options of a plain path."""
    given = {name: value for name, value in options.items() if value not in (None, False, "")}
    if unknown := sorted(set(given).difference(OPTIONS)):
        raise StoreError(f"store.options.{unknown[0]}: unknown; there are {', '.join(OPTIONS)}")
    if not given:
        return root
    if "://" not in root:
        raise StoreError(f"store.options: {root} is a path on this machine; options are for s3:// and its like")
    text = {name: "true" if value is True else str(value) for name, value in given.items()}
    return f"{root}{'&' if '?' in root else '?'}{urlencode(text)}"


def split(root: str) -> tuple[str, dict[str, str]]:
    """Split a URI into the folder and its options."""
    folder, _, query = root.partition("?") if "://" in root else (root, "", "")
    return folder, dict(parse_qsl(query, keep_blank_values=True))


def bare(root: str) -> str:
    """Name a folder without options."""
    return split(root)[0]


def below(root: str, name: str) -> str:
    """Name a folder in another one."""
    folder, sign, query = root.partition("?") if "://" in root else (root, "", "")
    return f"{folder.rstrip('/')}/{name}{sign}{query}"


@cache  # every connection to a memory:// URI is a new, empty store
def connect(root: str) -> ObjectStore:
    """Connect to an object store. Raises StoreError where it cannot be, or credentials are missing."""
    folder, options = split(root)
    if unknown := sorted(set(options).difference(OPTIONS)):
        raise StoreError(f"store.options.{unknown[0]}: unknown; there are {', '.join(OPTIONS)}")
    how: dict[str, Any] = {}
    if folder.startswith(("s3://", "s3a://")):
        how["config"] = _s3(folder, options)
    if not folder.startswith("memory://"):
        how["client_options"] = {"connect_timeout": PATIENCE, "allow_http": options.get("http") == "true"}
        how["retry_config"] = {"max_retries": 3, "retry_timeout": PATIENCE}
    try:
        return from_url(folder, **how)
    except BaseError as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise StoreError(
            f"store.root={folder}: {line}. Give a path, or a URI such as s3://bucket/folder or gs://bucket/folder."
        ) from error


def reason(error: Exception) -> str:
    """Say in short what an object store, or a disk, has answered."""
    text = str(error).strip() or type(error).__name__
    if "NoSuchBucket" in text:
        return "there is no such bucket (NoSuchBucket)"
    return text.splitlines()[0].rstrip(".")


def filesystem(root: str) -> tuple[str, Any]:
    """Path and `pyarrow.fs` file system of a folder, for `pd.read_parquet(path, filesystem=filesystem)`."""
    from pyarrow import fs  # noqa: PLC0415 - slow to import, and few need it

    folder, options = split(root)
    if not folder.startswith(("s3://", "s3a://")):
        found, path = fs.FileSystem.from_uri(folder) if "://" in folder else (fs.LocalFileSystem(), folder)
        return path, found
    config = _s3(folder, options)
    given: dict[str, Any] = {
        "access_key": config.get("access_key_id"), "secret_key": config.get("secret_access_key"),
        "session_token": config.get("session_token"), "region": config.get("region"),
        "endpoint_override": options.get("endpoint"), "anonymous": bool(config.get("skip_signature")),
        "scheme": "http" if options.get("http") == "true" else "https",
    }  # fmt: skip
    return folder.partition("://")[2], fs.S3FileSystem(**{name: value for name, value in given.items() if value})


def _s3(folder: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Options as obstore wants them, with credentials. Raises StoreError where there are none."""
    config: dict[str, Any] = {}
    if profile := options.get("profile"):
        config |= _profile(profile)
    elif options.get("anonymous") == "true":
        config["skip_signature"] = True
    elif "AWS_ACCESS_KEY_ID" in os.environ:
        names = {"access_key_id": "AWS_ACCESS_KEY_ID", "secret_access_key": "AWS_SECRET_ACCESS_KEY",
                 "session_token": "AWS_SESSION_TOKEN"}  # fmt: skip
        config |= {name: os.environ[variable] for name, variable in names.items() if os.environ.get(variable)}
    elif options.get("metadata") != "true" and "AWS_WEB_IDENTITY_TOKEN_FILE" not in os.environ:
        raise StoreError(
            f"store.root={folder}: there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give "
            "store.options.profile=NAME (of ~/.aws/credentials), store.options.anonymous=true, or "
            "store.options.metadata=true on a machine of the cloud, whose metadata service is asked then."
        )
    if endpoint := options.get("endpoint"):
        config["endpoint"] = endpoint
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return config | ({"region": region} if region else {})


def _profile(name: str) -> dict[str, str]:
    place = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials")
    reader = configparser.ConfigParser(interpolation=None)
    try:
        reader.read_string(place.read_text("utf-8"))
        return {KEYS[key]: value for key, value in reader[name].items() if key in KEYS}
    except (OSError, KeyError, configparser.Error) as error:
        raise StoreError(f"store.options.profile={name}: cannot be read from {place}: {error!r}") from None
