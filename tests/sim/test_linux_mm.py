"""Linux's direct map and vmalloc space in one arena: each map is served by the right one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from kmemexp.sim.arenas import buddy, linux_mm, vmap
from kmemexp.sim.maps import DIRECT, MAP_NAMES
from kmemexp.sim.slots import ATTR_PAGEABLE, ATTR_SINGLE, ATTR_WIRED, NO_SPACE, PAGE
from kmemexp.sim.tables import gauge
from tests.sim.naive_buddy import NaiveZone
from tests.sim.naive_vmap import NaiveVmap

EXEC = MAP_NAMES.index("exec_map")
RAM, SUBMAP, PAGES = 2048, 600, 6000


def booted(cpus=2, **params):
    """A direct map of RAM pages and a submap of SUBMAP pages, carved out of map 0."""
    st = linux_mm.init(linux_mm.Params(**params), kva_bytes=PAGES * PAGE, cpus=cpus, maps=len(MAP_NAMES))
    for m, pages in ((DIRECT, RAM), (EXEC, SUBMAP)):
        base = linux_mm.map_alloc(st, 0, pages * PAGE, PAGE, ATTR_SINGLE, 0)
        linux_mm.add_map(st, m, base, pages * PAGE)
    return st


def alloc(st, m, pages=1, align=1, attr=ATTR_WIRED, cpu=0):
    addr = linux_mm.map_alloc(st, m, pages * PAGE, align * PAGE, attr, cpu)
    return addr // PAGE if addr >= 0 else addr


def measure(st, m):
    out = np.zeros(gauge.COLUMNS, np.int64)
    linux_mm.map_measure(st, m, out)
    return out


def test_the_direct_map_has_the_number_that_compose_gives_it():
    assert MAP_NAMES[DIRECT] == "direct_map"


def test_parameters_are_those_of_both():
    assert {*vmap.Params._fields, *buddy.Params._fields} < set(linux_mm.Params._fields)
    defaults = vmap.Params()._asdict() | buddy.Params()._asdict()
    assert all(getattr(linux_mm.Params(), k) == v for k, v in defaults.items())
    st = booted(pcp=0, guard=0, nodes=1, max_order=5)
    assert (st.buddy.p.pcp, st.buddy.p.max_order, st.vmap.p.guard, st.vmap.p.nodes) == (0, 5, 0, 1)


def test_boot_carves_maps_out_of_the_kva_without_guard_pages():
    st = booted()
    assert linux_mm.ranges(st, 0) == [
        (0, RAM * PAGE, ATTR_SINGLE),
        (RAM * PAGE, (RAM + SUBMAP) * PAGE, ATTR_SINGLE),
    ]
    assert linux_mm.used(st, 0) == (RAM + SUBMAP) * PAGE


def test_each_map_is_served_by_its_own_kind():
    st = booted()
    # Three pages of the direct map: a block of four, one page goes back; no guard.
    assert alloc(st, DIRECT, 3) == 0
    assert linux_mm.used(st, DIRECT) == 3 * PAGE
    assert alloc(st, EXEC, 3) == RAM
    assert linux_mm.used(st, EXEC) == 4 * PAGE
    assert alloc(st, 0, 3, attr=ATTR_PAGEABLE) == RAM + SUBMAP
    assert linux_mm.map_free_bytes(st, DIRECT) == (RAM - 3) * PAGE
    assert linux_mm.map_free_bytes(st, EXEC) == (SUBMAP - 4) * PAGE
    for m in (0, DIRECT, EXEC):
        linux_mm.check(st, m)
    counts = linux_mm.census(st)
    assert counts["entries"] == st.buddy.maps[0, buddy.z.AREAS] + vmap.census(st.vmap)["entries"]


def test_a_direct_map_that_was_not_added_has_no_space():
    st = linux_mm.init(linux_mm.Params(), kva_bytes=64 * PAGE, cpus=1, maps=len(MAP_NAMES))
    assert alloc(st, DIRECT) == NO_SPACE
    assert measure(st, DIRECT)[gauge.FREE] == 0


@pytest.mark.parametrize("bad", [{"max_order": 99}, {"nodes": 1000}])
def test_impossible_parameters_are_refused(bad):
    with pytest.raises(ValueError, match=r"max_order|nodes"):
        booted(**bad)


allocs = hs.tuples(
    hs.just("alloc"),
    hs.sampled_from((0, DIRECT, DIRECT, EXEC)),
    hs.sampled_from((1, 1, 2, 3, 4, 8, 20)),
    hs.sampled_from((ATTR_WIRED, ATTR_PAGEABLE)),
    hs.integers(0, 1),
    hs.integers(1, 20),
)
frees = hs.tuples(hs.just("free"), hs.sampled_from((0, DIRECT, EXEC)), hs.integers(0, 99), hs.integers(1, 20))


@settings(max_examples=60)
@given(program=hs.lists(allocs | allocs | frees, max_size=50))
def test_same_as_the_naive_twins(program):
    st = booted(lazy_max_pages=100)
    twins = {
        0: NaiveVmap(RAM + SUBMAP, PAGES, 2, lazy_max=100),
        DIRECT: NaiveZone(0, RAM, cpus=2),
        EXEC: NaiveVmap(RAM, RAM + SUBMAP, 2, lazy_max=100),
    }
    for verb, m, *args in program:
        twin = twins[m]
        for _ in range(args.pop()):
            if verb == "alloc":
                pages, attr, cpu = args
                flag = attr == ATTR_PAGEABLE if m == DIRECT else False
                assert alloc(st, m, pages, 1, attr, cpu) == twin.alloc(pages, 1, flag, cpu, attr)
            elif twin.live:
                page = sorted(twin.live)[args[0] % len(twin.live)]
                assert linux_mm.map_free(st, m, page * PAGE, PAGE, 1) == 0
                twin.release(page, 1 if m == DIRECT else False)
    for m in (0, DIRECT, EXEC):
        linux_mm.check(st, m)
        assert linux_mm.used(st, m) + linux_mm.map_free_bytes(st, m) == {0: PAGES, DIRECT: RAM, EXEC: SUBMAP}[m] * PAGE
        out = measure(st, m)
        assert out[gauge.FREE] == linux_mm.map_free_bytes(st, m)
        assert out[gauge.HIST : gauge.CLAIMS].sum() == out[gauge.FREE]
        bins = np.zeros(10)
        linux_mm.map_paint(st, m, bins)
        size = out[gauge.FREE] + linux_mm.used(st, m)
        assert bins.mean() == pytest.approx(linux_mm.used(st, m) / size)
        assert out[gauge.WALKED] == linux_mm.map_walked(st, m)
