"""Shared fixtures, and the one profile under which property tests run."""

from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]

# The first example may compile for a minute, and on a loaded machine any of them may take long: time says nothing here.
hypothesis.settings.register_profile("kmemexp", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("kmemexp")


@pytest.fixture(scope="session")
def shared_traces() -> Path:
    """Folder of the recorded kernel traces, which stands beside the checkout where it is available."""
    folder = ROOT.parent / "shared" / "traces"
    if not (folder / "compile.txt.zst").is_file():
        pytest.skip(f"the recorded kernel traces are not here ({folder}); everything else is tested without them")
    return folder
