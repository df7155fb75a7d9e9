"""What would this kernel memory allocator cost on my load? Sweeps over simulated kernel memory systems.

    import kmemexp
    results = kmemexp.load("results/fragmentation")   # pandas frames: .metrics, .series, .snapshots
    results.compare(baseline={"design": "freebsd4"})  # paired differences with confidence intervals

`designs`, `plan`, `run`, `simulate`, `load` and `compare` are described in `kmemexp.api`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmemexp.api import Results, compare, designs, load, plan, run, simulate

__version__ = "0.1.0"
__all__ = ["Results", "compare", "designs", "load", "plan", "run", "simulate"]


def __getattr__(name: str) -> Any:
    """Import the interface for notebooks when it is first used: a worker process needs none of it."""
    if name in __all__:
        from kmemexp import api  # noqa: PLC0415

        return getattr(api, name)
    raise AttributeError(f"module 'kmemexp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
