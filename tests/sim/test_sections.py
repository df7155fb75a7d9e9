"""Where sections and locks begin and end: events of hand-made requests against what the real sources do.

Sources are those of the allocators and arenas; the worked examples are counted by hand from them. "enter" and "leave"
are a critical section or an spl level, "+5" and "-5" pages taken and given back.
"""

import pkgutil
from itertools import pairwise
from pathlib import Path

import pytest
from event_log import events

from kmemexp.errors import ConfigError
from kmemexp.parts import map_calls
from kmemexp.sim.allocators import absent
from kmemexp.sim.engine.tables import word

ZONES = [f"malloc 8000 z{k}" for k in range(18)]  # six zones of three chunks
GONE = [f"free z{k}" for k in range(18)]
BLOCKS = [f"malloc 20000 v{k}" for k in range(3)]
QUEUED = [f"free v{k} soft" for k in range(3)]
STRANGE = ["interrupts.on_deadlock=continue"]  # nobody brings pages: a request that waits for them fails at last
SHORT = {"LIMITED": 1, "FREE": 3}
DRAINS = (1, 100)
AMD64 = ["machine.arch=amd64", "machine.kva_bytes=3TiB"]
RAM = ["machine.ram_bytes=1GiB", "machine.kva_bytes=2GiB"]
PROGRAMS = {
    "october": (["design=mail2003_bare"], ["malloc 100 a", *ZONES, *BLOCKS, *GONE, *QUEUED, "malloc 100 n nowait",
                "malloc 100 q", "free q cpu1", "malloc 20000 o", "free o"]),
    **{f"drain of {n}": (["design=mail2003_bare"], ["malloc 100 a", *(f"malloc 20000 v{k}" for k in range(n)),
       *(f"free v{k} soft" for k in range(n)), "malloc 100 b"]) for n in DRAINS},
    "august": (["design=dragonfly_2003aug27"], [*ZONES[:12], *GONE[:12], "malloc 20000 o", "free o soft"]),
    "by need": (["design=proactive"], ["malloc 100 a", "malloc 100 b", "free a", "free b cpu1",
                "malloc 20000 o", "free o"]),
    "passive": (["design=dragonfly_2005"], [*(f"malloc 100 a{k} cpu1" for k in range(12)),
                *(f"free a{k}" for k in range(12)), *(f"malloc 100 b{k}" for k in range(27))]),
    "objcache": (["design=dragonfly_2010"], ["zone a", "free a", "zone b", "malloc 20000 o", "free o"]),
    "2020": (["design=dragonfly_2020"], ["malloc 100 a", "malloc 20000 b", "free b", "malloc 20000 c", "free c soft",
             "malloc 100 d", "free d cpu1"]),
    "kmalloc_obj": (["design=dragonfly_2021"], ["zone a", "zone b", "free a"]),
    "freebsd4": (["design=freebsd4"], ["malloc 100 a", "malloc 100 b", "free a", "malloc 20000 c", "free c",
                 "mbuf 256 m", "mbuf 256 n", "free m", "kva 8192 k", "kva_wired 8192 w", "free w"]),
    "zalloc": (["design=freebsd4"], ["zone a", "free a"]),
    "token": (["design=dragonfly_2003aug25"], ["zone a", "free a"]),
    "interrupt zone": (["design=freebsd4"], ["zone a", "free a"]),
    "percpu": (["design=mail2003_bare", "objects.kinds.zone=percpu_freelist"], ["zone a", "zone b", "free a"]),
    "uma": (["design=freebsd5_uma"], ["malloc 20000 a", "malloc 20000 b", "free b", "zone z", "zone y"]),
    "mb_alloc": (["design=freebsd5_uma"], ["mbuf 256 a", "mbuf 256 b", "free a"]),
    "uma_today": (["design=freebsd15", *AMD64], ["malloc 100000 a", "free a", "zone z", "zone y", "kva_wired 8192 w",
                  "free w"]),
    "illumos": (["design=illumos"], ["zone a", "zone b", "malloc 200000 c", "free c", "kva_wired 8192 w", "free w"]),
    "slub": (["design=linux_6_12", *RAM], ["malloc 64 a", "malloc 64 b", "free a"]),
    "pages": (["design=linux_6_12", *RAM], [*(f"malloc 32768 a{k}" for k in range(15)), "free a0", "malloc 65536 b",
              "free b"]),
    "vmalloc": (["design=linux_6_12", *RAM], ["kva_wired 16384 w", "free w"]),
    "lazy": (["design=linux_6_12", *RAM, "+maps.params.linux_mm.lazy_max_pages=10"],
             [*(f"kva_wired 16384 w{k}" for k in range(4)), *(f"free w{k}" for k in range(4))]),
    "fast_fits": (["design=mail2003_bare", "objects=fast_fits"], ["malloc 100 a", "malloc 100 b", "free a"]),
    "lazy_buddy": (["design=mail2003_bare", "objects=lazy_buddy"], ["malloc 100 a", "malloc 100 b", "free a"]),
    **{m: (["design=mail2003_bare", f"maps={m}"], ["kva_wired 8192 w", "free w"]) for m in ("two_ended", "regions")},
    "october, no page": (["design=mail2003_bare", *STRANGE], ["malloc 20000 a", "malloc 20000 b nowait"]),
    "freebsd4, no page": (["design=freebsd4", *STRANGE], ["malloc 20000 a", "malloc 20000 b nowait",
                          "kva_wired 20000 c"]),
    "freebsd5, no page": (["design=freebsd5_uma_unified", *STRANGE], ["malloc 9000 a", "malloc 9000 b nowait"]),
    "direct map": (["design=freebsd15", *AMD64], ["malloc 4096 a", *(f"malloc 4096 a{k}" for k in range(9)), "zone z"]),
    "today, no page": (["design=freebsd15", *AMD64, *STRANGE], ["malloc 100000 b nowait"]),
}  # fmt: skip
OBJECT = "lock kernel_object unlock kernel_object"


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, str]]:
    """Events of each request of each program, in one line."""
    programs = {
        name: {"overrides": overrides, "requests": requests, "limit": 100 * (name == "interrupt zone"),
               "pages": SHORT if "no page" in name else {}, "timed": name.startswith("drain"),
               **({"apart": 200_000} if name == "passive" else {})}
        for name, (overrides, requests) in PROGRAMS.items()
    }  # fmt: skip
    found = events(programs)
    return {
        name: {request: " ".join(words) for request, words in zip(requests, found[name], strict=True)}
        for name, (_, requests) in PROGRAMS.items()
    }


def test_malloc_of_october_2003_leaves_its_section_after_each_zone_and_block_that_it_drains(told) -> None:
    """Five zones and three blocks wait; two zones may stay: seven sections, six removals, six gaps for the clock."""
    zone = "enter lock kernel_map shootdown -8 unlock kernel_map leave"
    block = "enter lock kernel_map shootdown -5 unlock kernel_map leave"
    assert told["october"]["malloc 100 q"] == " ".join([zone] * 3 + [block] * 3 + ["enter leave"])
    assert told["october"]["malloc 100 n nowait"] == "enter leave"


def test_a_longer_drain_holds_interrupts_off_for_no_longer(told) -> None:
    """The longest section of a drain of a hundred blocks is that of one: one block and its pages."""
    lasted = {n: _sections(told[f"drain of {n}"]["malloc 100 b"]) for n in DRAINS}
    assert (len(lasted[1]), len(lasted[100])) == (2, 101)
    assert max(lasted[100]) == max(lasted[1]) > 5 * 118  # ns: five pages
    first, *more = lasted[100][:-1]
    assert set(more) == {min(more)}
    assert 0 <= first - min(more) < 100  # it has the big lock to take


def _sections(line: str) -> list[int]:
    """How long each section lasted, ns."""
    return [int(word) for word in line.split() if word.isdigit()]


def test_what_goes_straight_to_the_map_in_october_2003_has_sections_of_its_own(told) -> None:
    """Reservation, search to last page, release, counters; page tables are entered with the map alone locked."""
    allocated = "enter leave enter lock kernel_map +5 leave unlock kernel_map enter leave enter leave"
    assert told["october"]["malloc 20000 o"] == allocated
    assert told["october"]["free o"] == "enter leave enter lock kernel_map shootdown -5 unlock kernel_map leave"
    assert told["october"]["free v0 soft"] == "enter leave"


def test_a_new_zone_is_made_in_one_section(told) -> None:
    assert told["october"]["malloc 8000 z0"] == "enter lock kernel_map +8 unlock kernel_map leave"
    assert told["october"]["malloc 8000 z1"] == "enter leave"


def test_a_chunk_freed_elsewhere_is_taken_back_in_a_section_of_its_owner(told) -> None:
    assert told["october"]["free q cpu1"] == "enter leave enter leave"  # of the sender, of the message's handler


def test_messages_of_2005_wait_for_a_tick_or_for_half_a_ring(told) -> None:
    """Twelve chunks of one CPU, freed by another within a tick: the tenth message finds nine and interrupts."""
    frees = [told["passive"][f"free a{k}"].count("enter leave") for k in range(12)]
    assert frees == [*[1] * 9, 1 + 10, 1, 1]  # the sender's section, and those of the handler
    later = [told["passive"][f"malloc 100 b{k}"].count("enter leave") for k in range(1, 27)]
    assert [k for k, n in enumerate(later, start=1) if n > 1] == [25]  # at 10 ms, two more
    assert later[24] == 1 + 2


def test_free_of_august_2003_unmaps_inside_its_section_and_whoever_calls_it(told) -> None:
    assert told["august"]["free z11"] == "enter lock kernel_map shootdown -8 unlock kernel_map leave"
    assert told["august"]["free o soft"] == "enter leave enter lock kernel_map shootdown -5 unlock kernel_map leave"


def test_zones_by_need_have_the_sections_of_october_2003(told) -> None:
    """The first zone of a class has a page."""
    assert told["by need"]["malloc 100 a"] == "enter lock kernel_map +1 unlock kernel_map leave"
    assert told["by need"]["malloc 100 b"] == told["by need"]["free a"] == "enter leave"
    for request in ("malloc 20000 o", "free o"):
        assert told["by need"][request] == told["october"][request]
    assert told["by need"]["free b cpu1"] == told["october"]["free q cpu1"]


def test_objcache_asks_the_slab_allocator_with_nothing_held(told) -> None:
    depot = "enter leave enter lock objcache.1 unlock objcache.1 leave"
    assert told["objcache"]["zone a"] == f"{depot} enter lock kernel_map +8 unlock kernel_map leave"
    assert told["objcache"]["zone b"] == told["objcache"]["free a"] == "enter leave"
    assert told["objcache"]["malloc 20000 o"] == told["october"]["malloc 20000 o"]


def test_the_map_of_2020_is_unlocked_before_pages_are_taken(told) -> None:
    pages = "lock kernel_map unlock kernel_map lock kernel_object +{} unlock kernel_object"
    assert told["2020"]["malloc 100 a"] == f"enter {pages.format(8)} shootdown leave"
    assert (
        told["2020"]["malloc 20000 b"] == f"enter leave enter {pages.format(5)} leave shootdown enter leave enter leave"
    )
    gone = "lock kernel_map shootdown lock kernel_object -5 unlock kernel_object unlock kernel_map"
    assert told["2020"]["free b"] == f"enter leave enter {gone} leave"
    assert told["2020"]["free c soft"] == "enter leave"
    assert told["2020"]["malloc 100 d"] == f"enter {gone} leave enter leave"
    assert told["2020"]["free d cpu1"] == "enter leave"  # a push on the other CPU's list


def test_a_slab_of_one_type_is_linked_under_the_types_lock_and_made_without_it(told) -> None:
    lists = "enter lock kmalloc_obj.1 unlock kmalloc_obj.1 leave"
    made = "enter lock kernel_map unlock kernel_map lock kernel_object +32 unlock kernel_object shootdown leave"
    assert told["kmalloc_obj"]["zone a"] == f"enter leave {lists} {made} {lists}"
    assert told["kmalloc_obj"]["zone b"] == told["kmalloc_obj"]["free a"] == "enter leave"


def test_malloc_of_freebsd_4_stays_at_splmem_through_kmem_malloc(told) -> None:
    """The inner section is kmem_map's splvm."""
    assert told["freebsd4"]["malloc 100 a"] == "enter enter lock kmem_map +1 unlock kmem_map leave leave"
    assert told["freebsd4"]["malloc 20000 c"] == "enter enter lock kmem_map +5 unlock kmem_map leave leave"
    assert told["freebsd4"]["free c"] == "enter enter lock kmem_map shootdown -5 unlock kmem_map leave leave"
    assert told["freebsd4"]["malloc 100 b"] == told["freebsd4"]["free a"] == "enter leave"


def test_mbufs_of_freebsd_4_stay_at_splimp_through_kmem_malloc(told) -> None:
    assert told["freebsd4"]["mbuf 256 m"] == "enter enter lock mb_map +1 unlock mb_map leave leave"
    assert told["freebsd4"]["mbuf 256 n"] == told["freebsd4"]["free m"] == "enter leave"


def test_kmem_alloc_locks_its_map_for_the_entry_and_again_to_wire_the_pages(told) -> None:
    wired = "lock kernel_map unlock kernel_map +{0} lock kernel_map unlock kernel_map"
    assert told["freebsd4"]["kva_wired 8192 w"] == wired.format(2)
    assert told["freebsd4"]["free w"] == "lock kernel_map shootdown -2 unlock kernel_map"
    assert told["freebsd4"]["kva 8192 k"] == "lock kernel_map unlock kernel_map"
    for arena in ("two_ended", "regions"):
        assert told[arena]["kva_wired 8192 w"] == wired.format(2)


def test_zget_gives_the_zones_lock_up_for_a_map_and_keeps_it_for_pages_of_its_own(told) -> None:
    zone, grown = (
        "enter lock zalloc unlock zalloc leave",
        "lock kernel_map unlock kernel_map +1 lock kernel_map unlock kernel_map",
    )
    assert told["zalloc"]["zone a"] == f"{zone} {grown} {zone}"
    assert told["interrupt zone"]["zone a"] == "enter lock zalloc +1 unlock zalloc leave"
    assert told["zalloc"]["free a"] == told["interrupt zone"]["free a"] == zone


def test_a_zone_of_dragonfly_grows_in_the_section_of_its_token(told) -> None:
    grown = "lock kernel_map unlock kernel_map +1 lock kernel_map unlock kernel_map"
    assert told["token"]["zone a"] == f"enter lock zalloc {grown} unlock zalloc leave"
    assert told["token"]["free a"] == "enter lock zalloc unlock zalloc leave"


def test_a_freelist_of_a_cpu_grows_outside_its_section(told) -> None:
    grown = "lock kernel_map unlock kernel_map +1 lock kernel_map unlock kernel_map"
    assert told["percpu"]["zone a"] == f"enter leave {grown} enter leave"
    assert told["percpu"]["zone b"] == told["percpu"]["free a"] == "enter leave"


def _mapped_5(pages: int, name: str = "kmem_map") -> str:
    """kmem_malloc() of FreeBSD 5, in a map that has splvm here: the object's mutex around each loop over pages."""
    inner = f"lock kernel_object +{pages} unlock kernel_object {OBJECT}"
    return f"enter lock {name} {inner} unlock {name} leave"


def test_uma_drops_its_locks_before_it_asks_the_map(told) -> None:
    large = f"lock uma.1 unlock uma.1 {_mapped_5(5)}"  # the header's zone, then the pages
    assert told["uma"]["malloc 20000 b"] == large
    gone = "enter lock kmem_map shootdown lock kernel_object -5 unlock kernel_object unlock kmem_map leave"
    assert told["uma"]["free b"] == f"{gone} lock uma.1 unlock uma.1"
    assert told["uma"]["zone y"] == "lock uma unlock uma"
    _holds_nothing_in_maps(told["uma"]["zone z"], "uma", "kmem_map")


def test_mb_alloc_releases_both_locks_before_kmem_malloc(told) -> None:
    assert told["mb_alloc"]["mbuf 256 b"] == told["mb_alloc"]["free a"] == "lock mb_alloc unlock mb_alloc"
    assert _mapped_5(2, "mb_map") in told["mb_alloc"]["mbuf 256 a"]
    _holds_nothing_in_maps(told["mb_alloc"]["mbuf 256 a"], "mb_alloc", "mb_map")


def test_freebsd_today_locks_its_arena_for_kva_alone_and_unmaps_before_it_gives_that_back(told) -> None:
    made = "lock kernel_map unlock kernel_map lock kernel_object +{} unlock kernel_object"
    gone = "shootdown lock kernel_object -{} unlock kernel_object lock kernel_map unlock kernel_map"
    assert told["uma_today"]["malloc 100000 a"] == made.format(25)
    assert told["uma_today"]["free a"] == gone.format(25)
    assert told["uma_today"]["zone y"] == "enter leave"
    assert (told["uma_today"]["kva_wired 8192 w"], told["uma_today"]["free w"]) == (made.format(2), gone.format(2))
    _holds_nothing_in_maps(told["uma_today"]["zone z"], "uma_today", "kernel_map")


def test_slabs_of_a_page_take_no_lock_of_arenas_or_objects(told) -> None:
    """The domain's free lock where the CPU's cache of pages is filled; all else is in critical sections and UMA's."""
    words = " ".join(told["direct map"].values())
    assert not {"kernel_map", "kernel_object", "shootdown"} & set(words.split())
    assert 0 < words.count("lock direct_map unlock") < words.count("+1")


def test_illumos_holds_no_lock_over_pages_and_shootdown(told) -> None:
    """CPU, depot and cache one after the other; a slab is made with none of them; what is oversize takes none."""
    layers = "lock {0} unlock {0} lock {0}.1 unlock {0}.1 lock {0}.2 unlock {0}.2".format("illumos_kmem")
    made, slab = "lock kernel_map unlock kernel_map +{}", "lock illumos_kmem.2 unlock illumos_kmem.2"
    gone = "shootdown -{} lock kernel_map unlock kernel_map"
    assert told["illumos"]["zone a"] == f"{layers} {made.format(1)} {slab}"
    assert told["illumos"]["zone b"] == layers
    assert (told["illumos"]["malloc 200000 c"], told["illumos"]["free c"]) == (made.format(49), gone.format(49))
    assert (told["illumos"]["kva_wired 8192 w"], told["illumos"]["free w"]) == (made.format(2), gone.format(2))


def test_slub_has_interrupts_off_beyond_its_fast_path_alone(told) -> None:
    zone = "enter lock direct_map unlock direct_map leave"
    assert told["slub"]["malloc 64 b"] == told["slub"]["free a"] == ""
    assert told["slub"]["malloc 64 a"] == f"enter leave lock direct_map.cpu +1 {zone} unlock direct_map.cpu enter leave"


def test_blocks_of_small_orders_take_zone_lock_only_when_the_cpus_list_is_filled(told) -> None:
    """Batch 63, order 3: seven blocks for each hold of zone->lock. Order 4 always takes it, and no list's lock."""
    at_hand = "lock direct_map.cpu +8 unlock direct_map.cpu"
    refilled = "lock direct_map.cpu +8 enter lock direct_map unlock direct_map leave unlock direct_map.cpu"
    seen = [told["pages"][f"malloc 32768 a{k}"] for k in range(15)]
    assert seen == ([refilled] + [at_hand] * 6) * 2 + [refilled]
    assert told["pages"]["free a0"] == "lock direct_map.cpu -8 unlock direct_map.cpu"
    assert told["pages"]["malloc 65536 b"] == "enter lock direct_map +16 unlock direct_map leave"
    assert told["pages"]["free b"] == "enter lock direct_map -16 unlock direct_map leave"


def test_vmalloc_takes_pages_with_no_lock_and_frees_without_flushing(told) -> None:
    tree = "enter lock kernel_map unlock kernel_map leave"
    assert told["vmalloc"]["kva_wired 16384 w"] == f"lock kernel_map.cpu {tree} unlock kernel_map.cpu +4"
    assert told["vmalloc"]["free w"] == "lock kernel_map.cpu unlock kernel_map.cpu -4"


def test_lazy_frees_are_flushed_together(told) -> None:
    """Four pages each: the third free passes ten pages, and one shootdown is for all that wait."""
    flushed = [told["lazy"][f"free w{k}"].split().count("shootdown") for k in range(4)]
    assert flushed == [0, 0, 1, 0]


@pytest.mark.parametrize("name", ["fast_fits", "lazy_buddy"])
def test_what_says_nothing_gives_its_lock_back_and_asks_as_the_arena_does(name: str, told) -> None:
    grown = "lock kernel_map unlock kernel_map +1 lock kernel_map unlock kernel_map"
    assert told[name]["malloc 100 b"] == told[name]["free a"] == f"lock {name} unlock {name}"
    assert told[name]["malloc 100 a"].startswith(f"lock {name} unlock {name} {grown} lock {name} unlock {name}")


def test_a_request_that_waits_for_pages_drops_its_map_and_keeps_its_section(told) -> None:
    """VM_WAIT; a page that is refused gives back all, the entry too."""
    undone = "shootdown -3 unlock kernel_map leave enter leave failed"
    begun = "enter leave enter lock kernel_map +3"
    assert told["october, no page"]["malloc 20000 b nowait"] == f"{begun} {undone}"
    assert told["october, no page"]["malloc 20000 a"] == f"{begun} unlock kernel_map waits lock kernel_map {undone}"
    spl = "enter enter lock kmem_map +3 shootdown -3 unlock kmem_map leave leave failed"
    assert told["freebsd4, no page"]["malloc 20000 b nowait"] == spl
    waited = "lock kernel_map unlock kernel_map +3 waits lock kernel_map shootdown -3 unlock kernel_map failed"
    assert told["freebsd4, no page"]["kva_wired 20000 c"] == waited


def test_a_request_that_waits_drops_the_objects_lock_first(told) -> None:
    waiting = "unlock kernel_object unlock kernel_map waits"
    assert told["freebsd5, no page"]["malloc 9000 a"].endswith(waiting)
    none = told["today, no page"]["malloc 100000 b nowait"]
    made, undone = (
        "lock kernel_map unlock kernel_map lock kernel_object +3 unlock kernel_object",
        "lock kernel_map shootdown -3 unlock kernel_map",
    )
    assert none == f"{made} {undone} failed"


def _holds_nothing_in_maps(line: str, allocator: str, map_name: str) -> None:
    """No lock of an allocator is held while a map's is."""
    held: set[str] = set()
    words = line.split()
    for verb, name in pairwise(words):
        if verb == "lock":
            assert name != map_name or not held
            held |= {name} if name.startswith(allocator) else set()
        elif verb == "unlock":
            held.discard(name)


def test_every_allocator_that_a_design_may_have_is_tried_here() -> None:
    tried = {
        "buckets", "zalloc", "mbuf", "dfly_slab", "dfly_slab_2020", "kmalloc_obj", "objcache",
        "percpu_freelist", "uma", "mb_alloc", "uma_today", "illumos_kmem", "slub", "fast_fits",
        "lazy_buddy", "absent", "objcache_2020", "slab_by_need",
    }  # fmt: skip
    built_in = {m.name for m in pkgutil.iter_modules([str(Path(absent.__file__).parent)]) if m.name[0] != "_"}
    assert built_in <= tried


def test_a_part_that_says_less_has_the_rest_from_the_arena_and_the_plain_calls() -> None:
    assert map_calls.calls_of() == map_calls.PLAIN
    assert map_calls.calls_of(("keep space",), ("lock space unlock", "space pages")) == (
        "keep space", "space pages", map_calls.PLAIN[map_calls.WIRE],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "says nothing"),
        ("lock pages unlock", 'no "space"'),
        ("lock space", "ends with lock held"),
        ("lock space unlock unlock", "'unlock' without 'lock'"),
        ("lock lock space unlock", "'lock' twice"),
        ("space space", "once"),
        ("section space", '"section" without "leave"'),
        ("keep leave section space", '"section" without "leave"'),
        ("hold space leave", '"hold" and "leave"'),
        ("lock spice unlock", "unknown word 'spice'; there are keep, hold, lock,"),
    ],
)
def test_a_text_that_is_no_map_call_is_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        map_calls.rows(text)


def test_the_numbers_of_a_call_lead_to_its_tail() -> None:
    numbers = map_calls.rows("keep lock space unlock")
    tail = numbers[numbers[word.TAIL] :]
    assert numbers[word.KEEPS] == word.KEEPS_SECTION
    assert tail == [word.UNOBJECT, word.UNCPU, word.UNLOCK, word.END]  # the section goes on
    assert numbers[numbers[word.UNDO_AT] : numbers[word.TAIL]] == [word.UNOBJECT, word.LOCK, word.UNDO]
