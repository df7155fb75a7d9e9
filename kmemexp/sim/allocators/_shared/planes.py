"""A number for each object of caches of many sizes, in memory by how many objects there are and not by their bytes.

An array with an element for each 8 bytes of address space is touched whole where objects lie, however large they are.
Here it has planes: in plane f an element stands for 2**f units of 8 bytes, and objects as far apart as that have one
each. A cache uses the plane of its objects' size, up to a page; slabs begin at pages, so no two of them share elements.
An object's element is `plane + (word >> shift)`, word = address / 8.
"""

from kmemexp.sim.slots import PAGE_SHIFT

WORD_SHIFT = 3
LAST = PAGE_SHIFT - WORD_SHIFT  # a plane with an element for each page


def plane(kva_bytes: int, shift: int) -> int:
    """Where plane `shift` begins."""
    pages = -(-kva_bytes >> PAGE_SHIFT)
    return sum(pages << LAST - below for below in range(shift))


def elements(kva_bytes: int) -> int:
    """Elements of all planes."""
    return plane(kva_bytes, LAST + 1)


def shift_of(nbytes: int, each: int = 1) -> int:
    """Plane for objects `nbytes` apart that want `each` elements (a power of two), one behind the other."""
    return max(min((nbytes >> WORD_SHIFT).bit_length() - each.bit_length(), LAST), 0)
