"""A wiring in one array: tables where `shape` says, links that are places, settings by their words."""

import numpy as np
import pytest

from kmemexp.boot.layout import Wired, build, enlarge_messages
from kmemexp.boot.wiring import Wiring
from kmemexp.errors import ConfigError
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine import programs as pg
from kmemexp.sim.engine.tables import cpu, ctx, glob, msg, prog, src


def wiring(**settings: object) -> Wiring:
    w = Wiring(cpus=2, threads=2, **settings)
    w.lock("zone", "spin", 2)
    w.lock("map", "sleep")
    w.source("net", "device", [{"lock": "zone"}, {"work": 300}, {"unlock": "zone"}], law="poisson", rate_hz=1000.0)
    w.source("user", "task", [{"work": {"law": "exponential", "ns": 50}}, {"raise": "net"}], route=1)
    return w


def test_tables_follow_each_other_and_fill_the_array() -> None:
    wired = build(wiring(log_rows=3))
    at = glob.COLUMNS
    for place, rows, columns in wired.shape.values():
        assert place == at
        at += rows * columns
    assert at == len(wired.m)
    assert wired.table("log").shape == (3, mc.LOG_COUNT)


@pytest.mark.parametrize(
    ("setting", "values"), [("model", mc.MODELS), ("would_sleep", mc.WOULD_SLEEP), ("on_deadlock", mc.ON_DEADLOCK)]
)
def test_a_word_becomes_its_place_in_the_list_of_words(setting: str, values: tuple[str, ...]) -> None:
    for number, word in enumerate(values):
        assert build(wiring(**{setting: word})).m[getattr(glob, setting.upper())] == number


def test_settings_that_are_numbers_arrive() -> None:
    m = build(wiring(queue=5, depth=7, sleep_locked=True, big_lock=True, seed=11, direct_map=4)).m
    names = ("QUEUE", "DEPTH", "SLEEP_LOCKED", "BIG_LOCK", "SEED", "DIRECT_MAP", "CPUS", "THREADS")
    assert [m[getattr(glob, name)] for name in names] == [5, 7, 1, 1, 11, 4, 2, 2]


def program(wired: Wired, source: str) -> np.ndarray:
    """Items of a source's program, with its end."""
    context = wired.table("contexts")[wired.names.contexts.index(source)]
    first = (context[ctx.PROG] - wired.shape["programs"][0]) // prog.COLUMNS
    items = wired.table("programs")
    last = (items[first, pg.PC_END] - wired.shape["programs"][0]) // prog.COLUMNS
    return items[first : last + 1]


def test_programs_name_locks_and_sources_by_their_places() -> None:
    wired = build(wiring())
    net = program(wired, "net")
    assert net[:, pg.PC_CODE].tolist() == [prog.LOCK, prog.WORK, prog.UNLOCK, prog.END]
    first_zone = wired.place("locks", np.array(1))
    assert net[0, [pg.PC_1, pg.PC_2]].tolist() == [first_zone, 1], "one for each CPU"
    assert net[1, [pg.PC_1, pg.PC_2]].tolist() == [pg.FIXED, 300]
    user = program(wired, "user")
    assert user[0, [pg.PC_1, pg.PC_2]].tolist() == [pg.EXPONENTIAL, 50]
    assert user[1, pg.PC_1] == wired.shape["sources"][0]


def test_queues_have_a_row_for_each_cpu_and_come_in_the_order_of_their_names() -> None:
    w = Wiring(cpus=2, queue=9)
    alloc = {"alloc": {"kind": "buffer", "bytes": 64}}
    w.source("fills", "task", [{"alloc": {"kind": "buffer", "bytes": 64, "queue": "other"}}, alloc])
    w.source("net", "device", [{"free": "buffer"}], law="poisson", rate_hz=10.0)
    wired = build(w, kind_number={"buffer": 3})
    assert wired.table("queues").shape == (4, pg.Q_ROWS + 9)
    assert wired.m[glob.QUEUES] == 2, "those that handlers free from are the first"
    buffer, other = wired.place("queues", np.array([0, 2]))
    items = program(wired, "fills")
    assert items[:2, pg.PC_4].tolist() == [other, buffer]
    assert items[0, pg.PC_1] == 3
    assert program(wired, "net")[0, pg.PC_1] == buffer


def test_a_source_has_one_context_or_one_on_each_cpu() -> None:
    w = wiring()
    w.source("clock", "fast", (), law="periodic", period_ns=1000, route="each")
    wired = build(w, recorded=True)
    names = wired.names.contexts
    assert [names.count(name) for name in ("net", "user", "clock", "ipi", "recorded_soft")] == [1, 1, 2, 2, 2]
    contexts = wired.table("contexts")
    assert contexts[names.index("clock"), ctx.KIND] == mc.FAST
    assert wired.m[glob.IPI0] == wired.place("contexts", np.array(names.index("ipi")))
    first = wired.table("sources")[wired.names.sources.index("clock"), src.FIRST]
    assert first == wired.place("contexts", np.array(names.index("clock")))


def test_interrupts_are_forwarded_to_the_cpu_with_the_big_lock_in_the_spl_model() -> None:
    """There a device needs a context on each CPU, whatever its route."""
    names = build(wiring(model="spl", big_lock=True)).names.contexts
    assert names.count("net") == 2


def test_each_cpu_begins_with_its_first_thread_and_the_others_are_parked() -> None:
    wired = build(wiring())
    threads = wired.place("contexts", np.arange(4)).tolist()
    cpus = wired.table("cpus")
    assert cpus[0, cpu.TOP] == threads[0]
    assert cpus[:, cpu.PARKED].tolist() == [threads[1], threads[3]]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ([{"lock": "zone_lock"}], r"interrupts\.sources\.bad\.program\[0\]\.lock=zone_lock: unknown"),
        ([{"work": 1}, {"alloc": {"kind": "page", "bytes": 1}}], r"program\[1\]\.alloc\.kind=page: unknown"),
    ],
)
def test_a_name_that_only_a_whole_machine_knows_is_looked_up_here(program: list[dict], said: str) -> None:
    w = wiring()
    w.source("bad", "task", program)
    with pytest.raises(ConfigError, match=said):
        build(w)


def test_a_route_to_a_cpu_that_there_is_not_is_refused() -> None:
    w = wiring()
    w.source("far", "device", (), law="poisson", rate_hz=1.0, route=2)
    with pytest.raises(ConfigError, match=r"interrupts\.sources\.far\.route=2: there are 2 CPUs"):
        build(w)


def test_more_room_for_messages_is_free_and_what_was_stays() -> None:
    small = build(wiring(), messages=4)
    small.m[glob.MSG_FREE] = -1
    large = enlarge_messages(small)
    assert large.table("messages").shape == (8, msg.COLUMNS)
    np.testing.assert_array_equal(large.m[glob.COLUMNS : len(small.m)], small.m[glob.COLUMNS :])
    free, at = [], int(large.m[glob.MSG_FREE])
    while at >= 0:
        free.append(at)
        at = int(large.m[at + msg.NEXT])
    assert free == large.place("messages", np.arange(4, 8)).tolist()
