"""Size classes against the published tables."""

import pytest

from kmemexp.workload.traces import rounding


@pytest.mark.parametrize(
    ("request_bytes", "granted"),
    [(0, 16), (1, 16), (16, 16), (17, 32), (33, 64), (129, 256), (2049, 4096), (4096, 4096), (4097, 8192), (8192, 8192),
     (8193, 12288), (20000, 20480), (1 << 20, 1 << 20)],
)  # fmt: skip
def test_buckets_of_44bsd(request_bytes, granted):
    assert rounding.buckets(request_bytes) == granted


@pytest.mark.parametrize(
    ("request_bytes", "granted"),
    [(1, 16), (17, 32), (2048, 2048), (2049, 4096), (4096, 4096), (4097, 8192), (8193, 12288), (12289, 16384)],
)
def test_malloc_zones_of_uma(request_bytes, granted):
    assert rounding.uma(request_bytes) == granted


@pytest.mark.parametrize(
    ("request_bytes", "granted"),
    [(1, 8), (8, 8), (9, 16), (65, 72), (127, 128), (128, 128), (129, 144), (255, 256), (257, 288), (511, 512),
     (513, 576), (1023, 1024), (1025, 1152), (2047, 2048), (2049, 2304), (4095, 4096), (4096, 4096), (4097, 4608),
     (8191, 8192), (8192, 8192), (8193, 9216), (12287, 12288), (12288, 12288), (16383, 16384), (16384, 16384),
     (20000, 20480)],
)  # fmt: skip
def test_chunks_of_the_dragonfly_slab(request_bytes, granted):
    assert rounding.slab(request_bytes) == granted
