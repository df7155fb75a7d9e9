"""Traces that are imported on the way go into a folder of the tests' own."""

import pytest

from kmemexp.workload.traces import library


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep imported text out of the user's cache."""
    folder = tmp_path_factory.getbasetemp() / "imported"
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(library, "cache_folder", lambda: folder)
