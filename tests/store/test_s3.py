"""An S3 server on this machine: sweeps go there, everybody reads it, and what is missing is told of at once."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from sweep_fakes import make_plan

from kmemexp.errors import StoreError
from kmemexp.report import results
from kmemexp.store import checking, remote
from kmemexp.store.schema import SCHEMAS
from kmemexp.store.store import Store
from kmemexp.sweep.execute import execute

moto = pytest.importorskip("moto.server")
BUCKET = "kmemexp-tests"
AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_PROFILE")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server that has the bucket."""
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y"
    ).create_bucket(Bucket=BUCKET)
    yield address
    server.stop()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AWS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")


def options(server: str) -> dict:
    return {"endpoint": server, "region": "us-east-1", "http": True}


def test_a_sweep_goes_to_s3_and_everybody_reads_it(server: str, keys: None, tmp_path: Path) -> None:
    bare = f"s3://{BUCKET}/run1"
    root = remote.with_options(bare, options(server))
    cluster = {"runner": "serial", "batch_s": 0.3}
    assert execute(make_plan(root, [{}] * 5, replicas=3, cluster=cluster), progress=False)[:3] == (15, 0, 0)
    assert execute(make_plan(root, [{}] * 6, replicas=3, cluster=cluster), progress=False)[:3] == (3, 0, 15)
    execute(make_plan(tmp_path, [{}] * 6, replicas=3), progress=False)
    for table in SCHEMAS:
        assert Store(root).read(table).equals(Store(str(tmp_path)).read(table))
    loaded = results.load(bare, options(server))
    assert len(loaded.metrics) == 18
    assert loaded.root == bare
    path, filesystem = remote.filesystem(root)
    assert len(pd.read_parquet(path, filesystem=filesystem)) == 18
    assert checking.examine(root)[1] == []
    assert Store(root, write=True).compact() > 1
    assert len(pd.read_parquet(path, filesystem=filesystem)) == 18
    assert "AWS" not in json.dumps(Store(root).read_text("_run.json"))


def test_a_profile_is_read(server: str, keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (tmp_path / "credentials").write_text("[me]\naws_access_key_id = x\naws_secret_access_key = y\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    root = remote.with_options(f"s3://{BUCKET}/run2", options(server) | {"profile": "me"})
    assert Store(root, write=True).counts() == {"done": 0, "failed": 0}
    with pytest.raises(StoreError, match="profile=you"):
        Store(remote.with_options(f"s3://{BUCKET}/run2", options(server) | {"profile": "you"}), write=True)


@pytest.mark.parametrize("what", ["bucket", "host", "credentials", "option"])
def test_what_is_missing_is_told_of_at_once(
    server: str, keys: None, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    given = options(server)
    if what == "host":
        given["endpoint"] = "http://127.0.0.1:1"
    if what == "credentials":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    started = time.monotonic()
    root = f"s3://{'no-such-bucket' if what == 'bucket' else BUCKET}/run3"
    with pytest.raises(StoreError) as error:
        Store(remote.with_options(root, given | ({"endpont": "x"} if what == "option" else {})), write=True)
    assert time.monotonic() - started < 30  # five seconds where nothing else runs
    wanted = {"bucket": "NoSuchBucket", "host": "cannot write to", "credentials": "AWS_ACCESS_KEY_ID",
              "option": "endpont: unknown"}  # fmt: skip
    assert wanted[what] in str(error.value)
