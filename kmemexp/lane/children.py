"""Processes that work for this one, and end when it does, however it ends."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor


def pool(processes: int) -> ProcessPoolExecutor:
    """Make a pool of so many processes. A Ctrl-C is for this process alone; when it is killed, they end by themselves.

    They are spawned: a fork would share threads' locks of Arrow and BLAS.
    """
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin)


def abandon(workers: ProcessPoolExecutor) -> None:
    """End a pool without waiting for what is in work."""
    at_work = list((workers._processes or {}).values())
    workers.shutdown(wait=False, cancel_futures=True)
    for child in at_work:
        child.terminate()


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True, name="kmemexp-follow").start()


def _follow() -> None:
    """End as soon as the parent has ended: a killed one tells nobody, and its children would wait for work for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
