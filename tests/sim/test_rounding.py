"""What size classes lose to rounding, through the allocators' own classes: closed forms of the literature.

Required by requested bytes. Powers of two for sizes uniform in (0, 2^k]: 4/3, where the sizes are whole numbers
(2 * 4^k + 1) / 3 by 2^k (2^k + 1) / 2; exponential sizes of any mean: 1 / ln 2; k linear steps per doubling: waste
1 / (3k + 1). Peterson and Norman, CACM 20 (1977), treat these cases.
"""

from collections.abc import Callable
from math import exp, log
from pathlib import Path

import pytest

from kmemexp.parts import outside
from kmemexp.validate.checks import sizes

EXAMPLE = Path(__file__).parents[2] / "experiments" / "own_allocator" / "allocators" / "eager_slab.py"


def granting(name: str, **params: int) -> Callable[[int], int]:
    """Bytes that an allocator grants for a malloc of so many; the example of an own one too."""
    if name == "eager_slab":
        outside.add("allocators", EXAMPLE)
    return sizes.granting(name, **params)


@pytest.mark.parametrize(
    ("top", "ratio"), [(1024, 1.332195), (4096, 1.333018), (8192, 1.333173), (16384, 1.208260), (65536, 1.059880)]
)
def test_uniform_sizes_in_44bsds_buckets(top, ratio):
    """16 bytes at least, whole pages above two pages."""
    granted = granting("buckets")
    total = sum(granted(n) for n in range(1, top + 1))
    assert total / (top * (top + 1) // 2) == pytest.approx(ratio, abs=6e-7)


@pytest.mark.parametrize(("doublings", "ratio"), [(6, 1.312981), (10, 1.332033), (12, 1.333008)])
def test_uniform_sizes_in_powers_of_two(doublings, ratio):
    top = 1 << doublings
    granted = granting("buckets")
    # A class below 16 bytes is what the closed form has and the kernel has not.
    total = sum(granted(n) if n > 16 else 1 << (n - 1).bit_length() for n in range(1, top + 1))
    assert total == (2 * 4**doublings + 1) // 3
    assert total / (top * (top + 1) // 2) == pytest.approx(ratio, abs=6e-7)


@pytest.mark.parametrize(("mean", "ratio"), [(100, 1.450929), (1000, 1.442787)])
def test_exponential_sizes_in_powers_of_two(mean, ratio):
    """With the floor of 16 bytes. Above 8 KiB the kernel grants pages, which is a little less."""
    granted = granting("buckets")
    total = sum(granted(n) * (exp(-(n - 1) / mean) - exp(-n / mean)) for n in range(1, 8193))
    total += sum(2**k * (exp(-(2 ** (k - 1)) / mean) - exp(-(2**k) / mean)) for k in range(14, 20))
    assert total / mean == pytest.approx(ratio, abs=6e-7)
    assert ratio == pytest.approx(1 / log(2), rel=0.006)


@pytest.mark.parametrize(
    ("name", "steps", "low", "high"),
    [("dfly_slab", 8, 1024, 2048), ("dfly_slab", 8, 2048, 4096), ("eager_slab", 4, 512, 1024)],
)
def test_linear_steps_per_doubling(name, steps, low, high):
    """Of sizes log-uniform over the octaves, that is uniform inside one: waste 1 / (3k + 1)."""
    granted = granting(name)
    sizes = range(low + 1, high + 1) if name == "eager_slab" else range(low, high)
    requested = sum(sizes)
    waste = 1 - requested / sum(granted(n) for n in sizes)
    assert waste == pytest.approx(1 / (3 * steps + 1), abs=0.001)
