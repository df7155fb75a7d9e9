"""Places of objects of many sizes in one array: no two share one, and there are about as many as objects."""

from hypothesis import given
from hypothesis import strategies as st

from kmemexp.sim.allocators._shared import planes
from kmemexp.sim.slots import PAGE

KVA = 64 * PAGE
LAYOUTS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4096), st.booleans(), st.integers(0, 63)), max_size=8)


@given(LAYOUTS)
def test_no_two_objects_share_a_place(slabs):
    taken, page = set(), 0
    for pages, units, pair, colour in slabs:  # slabs one behind the other, of objects of so many units of 8 bytes
        shift = planes.shift_of(8 * units, 1 + pair)
        plane = planes.plane(KVA, shift)
        size = pages * PAGE // 8
        for word in range(min(colour, max(size - units, 0)), size - units + 1, units):
            place = plane + (page * PAGE // 8 + word >> shift)
            mine = {place, place + 1} if pair and units >= 2 else {place}
            assert not mine & taken
            assert max(mine) < planes.elements(KVA)
            taken |= mine
        page += pages


def test_large_objects_take_a_hundredth_of_their_memory_and_small_ones_an_element_each():
    assert [planes.shift_of(n) for n in (8, 16, 24, 64, 1024, 4096, 65536)] == [0, 1, 1, 3, 7, 9, 9]
    assert [planes.shift_of(n, 2) for n in (512, 1024, 8192)] == [5, 6, 9]
    assert planes.elements(PAGE) == 512 + 256 + 128 + 64 + 32 + 16 + 8 + 4 + 2 + 1
