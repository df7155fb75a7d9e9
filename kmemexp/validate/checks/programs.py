"""Random programs on every allocator: no two live objects overlap, and nothing is lost or made up (C1)."""

from collections.abc import Iterator

from kmemexp.parts.finding import parts
from kmemexp.testing import check_allocator
from kmemexp.validate.check import Check
from kmemexp.validate.rows import Row, Wanted
from kmemexp.validate.setting import Setting

ANCHORS = ("buckets", "zalloc", "dfly_slab", "uma", "slub", "illumos_kmem", "percpu_freelist")
"""The allocators of the quick level."""


def programs(s: Setting) -> Iterator[Row]:
    """C1: the conformance suite of parts, with programs drawn from the seed."""
    of = Wanted("C1", "conservation; kmemexp.testing", "A")
    names = [name for name in parts("allocators") if name != "absent"] if s.full else ANCHORS
    for name in names:
        wrong = ""
        try:
            check_allocator(name, operations=max(round(s.long(400, 2000)), 150), seeds=(s.seed(),))
        except AssertionError as error:
            wrong = str(error)
        yield of.holds(f"{name}: addresses are apart, bytes and pages add up, twice the same", not wrong, wrong)


CHECKS = (Check("C1", programs, 4),)
