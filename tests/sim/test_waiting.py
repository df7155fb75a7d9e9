"""Requests that wait at a limit until somebody frees something: who is woken when, and what becomes of the others."""

import pytest
from event_log import events

TWO = ["design=freebsd4", "machine.tunables.nmbclusters=2", "machine.tunables.nmbufs=16"]
MANY = range(256)  # objects of a cache whose limit is raised to eight magazines of 16 for each of two CPUs
PAD = [f"malloc 100 p{k} cpu1" for k in range(40)]
PROGRAMS = {
    "cluster": (TWO, ["mbuf 2048 a", "mbuf 2048 b", "mbuf 2048 c", "free a cpu1"]),
    "nowait": (TWO, ["mbuf 2048 a", "mbuf 2048 b", "mbuf 2048 c nowait", "free a cpu1"]),
    "too late": (TWO, ["mbuf 2048 a", "mbuf 2048 b", "mbuf 2048 c", *PAD]),
    "interrupt": ([*TWO, "interrupts.would_sleep=panic"], ["mbuf 2048 a", "mbuf 2048 b", "mbuf 2048 c soft",
                  "free a cpu1"]),
    "objcache": (["design=dragonfly_2010"], [*(f"zone a{k}" for k in MANY), "zone x",
                 *(f"free a{k} cpu1" for k in range(40))]),
    "own CPU": (["design=dragonfly_2010", "machine.threads=2"], [*(f"zone a{k}" for k in MANY), "zone x", "free a0"]),
    "nobody": (["design=dragonfly_2010"], [*(f"zone a{k}" for k in MANY), "zone x"]),
    "uma": (["design=freebsd5_uma"], [*(f"zone a{k}" for k in range(20)), "zone x", "free a3 cpu1"]),
    "uma today": (["design=freebsd15", "machine.arch=amd64", "machine.kva_bytes=3TiB"],
                  [*(f"zone a{k}" for k in range(20)), "zone x", "free a3 cpu1"]),
    "mb_alloc": (["design=freebsd5_uma", "machine.tunables.nmbclusters=64", "machine.tunables.nmbufs=1024"],
                 [*(f"mbuf 2048 a{k}" for k in range(64)), "mbuf 2048 x", "free a3 cpu1"]),
    "zone": (["design=freebsd4"], ["zone z nowait"]),
    "exec": (["design=freebsd4"], [*(f"exec 69632 a{k}" for k in range(17)), "exec 69632 x", "free a3 cpu1"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, str]]:
    limits = {"uma": 20, "uma today": 20, "objcache": 256, "own CPU": 256, "nobody": 256}
    programs = {
        name: {"overrides": overrides, "requests": requests, "limit": limits.get(name, 0)}
        for name, (overrides, requests) in PROGRAMS.items()
    }
    programs["zone"] |= {"pages": {"LIMITED": 1, "FREE": 3, "RESERVED": 9}}
    found = events(programs)
    return {
        name: {request: " ".join(words) for request, words in zip(requests, found[name], strict=True)}
        for name, (_, requests) in PROGRAMS.items()
    }


def test_a_free_lets_a_request_for_a_cluster_go_on(told) -> None:
    assert told["cluster"]["mbuf 2048 c"] == "enter leave sleeps"
    assert told["cluster"]["free a cpu1"] == "enter leave enter leave done"


def test_who_may_not_wait_fails_at_once(told) -> None:
    assert told["nowait"]["mbuf 2048 c nowait"] == "enter leave failed"


def test_a_request_for_a_cluster_sleeps_for_32_ticks(told) -> None:
    ends = [k for k, (_, words) in enumerate(told["too late"].items()) if "failed" in words]
    assert ends == [2 + 32]


def test_a_handler_on_a_borrowed_stack_must_not_sleep(told) -> None:
    assert told["interrupt"]["mbuf 2048 c soft"].endswith("failed")


def test_an_object_in_a_magazine_wakes_those_of_its_cpu_only(told) -> None:
    assert told["own CPU"]["zone x"].endswith("sleeps")
    assert told["own CPU"]["free a0"].endswith("done")
    assert told["objcache"]["zone x"].endswith("sleeps")
    done = [k for k in range(40) if told["objcache"][f"free a{k} cpu1"].count("done") > 0]
    assert done == [32]  # two magazines of CPU 1 are full: one goes to the depot


def test_who_would_sleep_for_ever_fails(told) -> None:
    assert told["nobody"]["zone x"].endswith("failed")
    assert "sleeps" in told["nobody"]["zone x"]


@pytest.mark.parametrize("name", ["uma", "uma today", "mb_alloc"])
def test_a_zone_at_its_limit_hands_on_what_comes_back(told, name) -> None:
    where = "mbuf 2048 x" if name == "mb_alloc" else "zone x"
    assert told[name][where].endswith("sleeps")
    assert "done" in told[name]["free a3 cpu1"]


def test_a_zone_s_pages_are_waited_for_whatever_the_request_says(told) -> None:
    assert "waits" in told["zone"]["zone z nowait"]
    assert "failed" not in told["zone"]["zone z nowait"]


def test_exec_map_is_waited_for(told) -> None:
    assert told["exec"]["exec 69632 x"].endswith("sleeps")
    assert told["exec"]["free a3 cpu1"].endswith("done")
