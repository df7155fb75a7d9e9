"""Shared fixtures, and the one profile under which property tests run."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from kmemexp import jit
from kmemexp.jit import pipeline

ROOT = Path(__file__).resolve().parents[1]
HERE = str(Path(__file__).parent)
REFUSE = pipeline.Inside.__call__


def call_twin(kernel: pipeline.Inside, *args: Any) -> Any:
    """Let tests, and what of a kernel they run as Python, call kernels; all else is refused as it is without tests."""
    caller = sys._getframe(1)
    is_kernel = isinstance(caller.f_globals.get(caller.f_code.co_name), pipeline.Inside)
    if is_kernel or caller.f_code.co_filename.startswith(HERE):
        return jit.entry(kernel)(*args)
    return REFUSE(kernel)


pipeline.Inside.__call__ = call_twin  # type: ignore[method-assign]  # for all of this process

# The first example may compile for a minute, and on a loaded machine any of them may take long: time says nothing here.
hypothesis.settings.register_profile("kmemexp", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("kmemexp")


# Hundreds of tests start Python: what one of these has compiled of the package, the next ones take.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without the garbage collector, and let it pass over what stays: all tests, and all that was imported."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)  # compiling makes much that is garbage in no circle


@pytest.fixture(scope="session")
def shared_traces() -> Path:
    """Folder of the recorded kernel traces, which stands beside the checkout where it is available."""
    folder = ROOT.parent / "shared" / "traces"
    if not (folder / "compile.txt.zst").is_file():
        pytest.skip(f"the recorded kernel traces are not here ({folder}); everything else is tested without them")
    return folder
