"""Deadlocks in words: the members of the circle, one line for the table, the events before it."""

import json

import pytest

from kmemexp import api
from kmemexp.boot.timed import Timed
from kmemexp.lane import witness
from kmemexp.lane.replica import prepare
from kmemexp.lane.timed import booted, run_out
from kmemexp.sim.engine.tables import seen


def played(scenario: str) -> Timed:
    """The machine of a scenario when it has ended."""
    (plan,) = api.plan([f"scenario={scenario}"])
    (replica,) = prepare(json.loads(plan.cells["config"].iloc[0]), (0,))
    return run_out(booted(replica, log_rows=256), replica)


@pytest.fixture(scope="module")
def deadlocked() -> Timed:
    return played("interrupted_holder")


def test_a_deadlock_is_told_by_its_members_and_the_events_before_it(deadlocked: Timed) -> None:
    first, second = witness.members(deadlocked.wired)
    assert (first["context"], first["state"], first["waits_for"]) == ("net", "blocked", "kernel_map (mainline)")
    assert (second["context"], second["holds"]) == ("mainline", "kernel_map")
    assert second["holds_since_ns"] <= first["since_ns"] == int(deadlocked.wired.m[seen.DEADLOCK_AT])
    lines = list(witness.timeline(deadlocked.wired, 6))
    assert lines[-1].endswith("closes the circle: DEADLOCK")
    assert any("net                  asks for kernel_map, which it holds itself" in line for line in lines)


def test_the_summary_names_each_member_with_what_it_holds_and_wants(deadlocked: Timed) -> None:
    told = witness.summary(deadlocked.wired).split("; ")
    assert told[0] == "net on CPU 0 waits for kernel_map (mainline)"
    assert told[1].startswith("mainline on CPU 0 holding kernel_map waits for ")


def test_spans_end_where_a_lock_is_given_back_and_those_of_the_circle_do_not_end(deadlocked: Timed) -> None:
    spans = witness.tracks(deadlocked.wired)
    assert {span["context"] for span in spans} == {"net", "mainline"}
    held = [span for span in spans if span["open"] and span["kind"] == "holds"]
    assert [(span["context"], span["lock"]) for span in held] == [("mainline", "kernel_map")]
    waits = [span for span in spans if span["open"] and span["kind"] == "waits"]
    assert [(span["context"], span["lock"]) for span in waits] == [("net", "kernel_map")]
    assert held[0]["begin_ns"] == witness.members(deadlocked.wired)[1]["holds_since_ns"]
    assert all(span["begin_ns"] <= span["end_ns"] for span in spans)


def test_without_a_deadlock_there_is_nothing_to_tell() -> None:
    ended = played("interrupted_holder_fixed")
    assert witness.members(ended.wired) == []
    assert witness.summary(ended.wired) == ""
    assert witness.tracks(ended.wired) == []
    assert list(witness.timeline(ended.wired, 3))
