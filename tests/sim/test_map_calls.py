"""Map calls on the machine with a clock: locks of single CPUs."""

from kmemexp.boot import wiring
from kmemexp.sim.engine.machine import E_TIME
from kmemexp.sim.engine.tables import seen
from kmemexp.sim.slots import ATTR_WIRED, PAGE
from kmemexp.sim.tables import tally
from kmemexp.validate.bench import bench

LISTS = ("cpu space pages zone uncpu",)
GET = {"alloc": {"kind": "page", "bytes": PAGE, "flags": "nowait", "queue": "mine"}}


def test_a_handler_that_finds_its_cpus_lock_taken_takes_the_maps_instead() -> None:
    """As rmqueue_pcplist() does: a trylock, since the handler may lie on top of the holder."""
    w = wiring.Wiring(cpus=1, model="spl", would_sleep="panic")
    w.lock("map", "splhigh+spin")
    w.lock("cpu lock", "spin")
    w.source("holder", "task", [{"lock": "cpu lock"}, {"work": 10_000}, {"unlock": "cpu lock"}, {"sleep": 10**12}])
    w.source("handler", "device", [GET], law="periodic", period_ns=50_000, phase_ns=5_000, klass="net")
    m = bench(w, kinds={"page": (0, ATTR_WIRED)}, calls=LISTS)
    assert m.run(175_000) == E_TIME
    assert m.world.counters[tally.ALLOCS] == 4
    assert m.lock("cpu lock")["taken"] == 1 + 3  # the holder, and the handlers that found it free
    assert m.lock("map")["taken"] == 1
    assert m.count(seen.DEADLOCKS) == m.count(seen.SELF) == 0


def test_a_lock_of_its_own_keeps_cpus_apart_from_each_other() -> None:
    """Eight CPUs that allocate at the same instants never wait; the map's lock is not taken at all."""
    w = wiring.Wiring(cpus=8, cost={"map_ns": 1000, "lock_ns": 10})
    w.lock("map", "spin")
    w.lock("cpu lock", "spin", 8)
    for c in range(8):
        w.source(f"task {c}", "task", [GET, {"free": "mine"}, {"sleep": 1000}], route=c)
    m = bench(w, kinds={"page": (0, ATTR_WIRED)}, calls=(*LISTS, LISTS[0]))
    m.run(100_000)
    assert m.world.counters[tally.ALLOCS] > 8 * 10
    assert (m.lock("map")["taken"], m.count(seen.CONTENDED)) == (0, 0)
    assert m.lock("cpu lock[7]")["taken"] > 10
