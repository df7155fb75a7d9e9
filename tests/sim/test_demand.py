"""Arrays of which only what is touched takes memory."""

import resource

import numpy as np
import pytest

from kmemexp.sim import demand

TIB = 1 << 40


def test_an_array_larger_than_any_memory_is_zeros_and_takes_what_is_touched():
    array = demand.zeros((TIB // 64, 8))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    array[-1, -1] = 7
    array[:: TIB // 64 // 1000, 3] += 1
    assert array.shape == (TIB // 64, 8)
    assert array.dtype == np.int64
    assert (array[-1, -1], array[5, 5], array[0, 3]) == (7, 0, 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_small_arrays_are_numpys_own_and_zero():
    array = demand.zeros(1000, np.int8)
    assert array.flags.owndata
    assert not array.any()
    assert demand.empty((3, 4), np.int16).shape == (3, 4)


def test_larger_arrays_begin_with_a_huge_page_and_are_zero():
    for array in (demand.zeros((1 << 20, 3), np.int16), demand.empty((1 << 20) + 1, np.int64)):
        assert array.nbytes >= demand.SMALL
        assert array.ctypes.data % demand.HUGE_PAGE == 0
        assert array.flags.writeable
        assert not array.any()


def test_scattered_arrays_are_zero_and_lie_in_small_pages():
    array = demand.scattered((1 << 20, 3), np.int16)
    assert not array.any()
    assert demand.scattered(1000, np.int8).flags.owndata
    array[:: 1 << 16] = 1
    assert array.sum() == 3 << 4


def test_what_no_address_space_can_hold_is_a_memory_error():
    with pytest.raises(MemoryError, match="GiB of address space"):
        demand.zeros(1 << 60)
