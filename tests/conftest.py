"""Shared fixtures."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_traces() -> Path:
    """Folder of the recorded kernel traces, which stands beside the checkout where it is available."""
    folder = ROOT.parent / "shared" / "traces"
    if not (folder / "compile.txt.zst").is_file():
        pytest.skip(f"the recorded kernel traces are not here ({folder}); everything else is tested without them")
    return folder
