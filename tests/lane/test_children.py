"""Processes that compile and check: they outlive neither the process that they work for nor a Ctrl-C."""

import os
import signal
import subprocess
import sys
import time

import pytest

from kmemexp.lane import children

BUSY = """
import os, signal, sys, time
from kmemexp.lane import children
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts tests in the background has it ignored
    pool = children.pool(1)
    child = pool.submit(os.getpid).result()
    pool.submit(time.sleep, 600)
    try:
        print(child, flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        children.abandon(pool)
"""


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_child_ends_with_the_process_that_it_works_for(tmp_path, how) -> None:
    (tmp_path / "busy.py").write_text(BUSY)
    parent = subprocess.Popen([sys.executable, "busy.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert is_running(child)
    parent.send_signal(how)
    parent.wait(60)
    deadline = time.monotonic() + 60
    while is_running(child):
        assert time.monotonic() < deadline, "the child is still there"
        time.sleep(0.05)


def test_a_pool_does_what_it_is_asked() -> None:
    pool = children.pool(2)
    assert list(pool.map(abs, [-1, 2, -3])) == [1, 2, 3]
    pool.shutdown()
