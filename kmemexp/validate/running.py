"""Running checks in processes of their own, as many as there are CPUs."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed

from kmemexp.lane import children
from kmemexp.validate.suite import Done, checks, ordered, run_one


def run(
    names: Sequence[str], seed: int, *, level: str, record: bool = False, processes: int | None = None,
    tell: Callable[[Done], object] = lambda _: None,
) -> list[Done]:  # fmt: skip
    """Run these checks; in this process where one is enough. `tell` hears of each. In the table's order."""
    processes = min(processes or os.cpu_count() or 1, len(names))
    if processes <= 1:
        done = []
        for name in names:
            done.append(run_one(name, seed, level, record))
            tell(done[-1])
        return done
    found: dict[str, Done] = {}
    pool = children.pool(processes)
    try:
        waiting = [pool.submit(run_one, name, seed, level, record) for name in ordered(names)]
        for future in as_completed(waiting):
            one = future.result()
            found[one.name] = one
            tell(one)
    except BaseException:  # Ctrl-C too
        children.abandon(pool)
        raise
    pool.shutdown()
    return [found[name] for name in checks() if name in found]
