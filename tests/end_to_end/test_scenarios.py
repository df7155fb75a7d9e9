"""The four cases in which an interrupt and kernel_map lock each other up, and DragonFly's fallout of autumn 2003.

Each is a file in conf/scenario/, run by the real engine: the state with the trouble shows it, the mended state does
not.
"""

import functools

import pandas as pd
import pytest

import kmemexp
from kmemexp.config import files
from kmemexp.errors import ConfigError

SAFE = {
    "deadlocks_count": 0,
    "self_locks_count": 0,
    "would_sleep_count": 0,
    "blockable_locks_count": 0,
    "panics_count": 0,
}


@functools.cache
def outcome(name: str) -> tuple[pd.Series, pd.DataFrame]:
    """Metrics and latencies of a scenario."""
    results = kmemexp.simulate([f"scenario={name}"])
    return results.metrics.iloc[0], results.latency.set_index("what")


def waits_for_kernel_map(name: str) -> int:
    latency = outcome(name)[1]
    return int(latency["count"].get("wait_kernel_map", 0))


def test_handler_on_the_stack_of_the_holder_locks_against_itself() -> None:
    metrics, _ = outcome("interrupted_holder")
    assert metrics["deadlocks_count"] == 1
    assert metrics["self_locks_count"] == 1
    assert metrics["panic"] == "lockmgr: locking against myself"
    assert "net on CPU 0 waits for kernel_map (mainline)" in metrics["deadlock"]
    assert "mainline on CPU 0 holding kernel_map waits for its CPU (net)" in metrics["deadlock"]


def test_kmem_map_kept_the_handler_out() -> None:
    assert outcome("interrupted_holder_kmem_map")[0][list(SAFE)].to_dict() == SAFE
    assert waits_for_kernel_map("interrupted_holder_kmem_map") == 0


def test_an_interrupt_thread_waits_for_the_holder_instead() -> None:
    assert outcome("interrupted_holder_fixed")[0][list(SAFE)].to_dict() == SAFE
    assert waits_for_kernel_map("interrupted_holder_fixed") > 100


def test_handler_sleeps_on_the_stack_of_a_bystander() -> None:
    metrics, _ = outcome("sleeping_holder")
    assert metrics["would_sleep_count"] == 10  # 20 Hz for half a second, each time while the holder sleeps
    assert metrics["panic"] == "sleep in an interrupt"
    assert outcome("sleeping_holder_idle")[0]["panic"] == "sleep in an interrupt without a process"


def test_interrupt_threads_only_pay_in_latency_for_a_sleeping_holder() -> None:
    metrics, _ = outcome("sleeping_holder_fixed")
    assert metrics[list(SAFE)].to_dict() == SAFE
    assert metrics["irq_device_done_max_ns"] > 5e6  # what is left of the holder's 20 ms


def test_sleeping_for_memory_with_the_map_locked_closes_a_circle_through_the_disk() -> None:
    metrics, _ = outcome("pageout_circle")
    assert metrics["deadlocks_count"] == 1
    assert "pageout_io on CPU 0 waits for kernel_map (mainline)" in metrics["deadlock"]
    assert "mainline on CPU 0 holding kernel_map waits for memory (pagedaemon)" in metrics["deadlock"]
    assert "pagedaemon on CPU 0 waits for an interrupt (pageout_io)" in metrics["deadlock"]


def test_unlocking_the_map_before_sleeping_breaks_that_circle() -> None:
    metrics, _ = outcome("pageout_circle_fixed")
    assert metrics["deadlocks_count"] == 0
    assert metrics["memory_waits_count"] > 0
    assert metrics["paged_out_count"] > 0


def test_a_map_entry_that_needs_the_locked_map_is_a_panic_and_reservations_mend_it() -> None:
    assert outcome("entry_recursion")[0]["panic"] == "kernel_map needed while it is locked"
    assert outcome("entry_recursion_fixed")[0]["panic"] == ""
    assert outcome("entry_recursion_fixed")[0]["alloc_failures_count"] == 0


@pytest.mark.parametrize("name", ["free_unmaps", "oversize_fast"])
def test_a_free_in_a_message_or_a_fast_interrupt_took_kernel_map(name: str) -> None:
    assert outcome(name)[0]["blockable_locks_count"] > 0
    assert outcome(f"{name}_fixed")[0][list(SAFE)].to_dict() == SAFE


def test_a_free_in_an_interrupt_thread_blocked_on_kernel_map() -> None:
    assert waits_for_kernel_map("oversize_thread") > 100
    assert waits_for_kernel_map("oversize_thread_fixed") == 0


def test_every_scenario_is_in_the_history_sweep_and_has_a_mended_state() -> None:
    names = {f.stem for f in (files.conf_dir() / "scenario").glob("*.yaml")} - {"none"}
    (plan,) = kmemexp.plan(["+sweep=history"])
    assert len(plan.cells) == len(names)
    troubled = {n for n in names if not n.endswith("_fixed") and f"{n}_fixed" not in names}
    assert troubled == {"interrupted_holder_kmem_map", "sleeping_holder_idle"}  # further states of their neighbours


def test_a_source_that_cannot_be_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"interrupts\.sources\.net\.mode=slow: unknown; there are task, soft"):
        kmemexp.plan(["scenario=interrupted_holder", "interrupts.sources.net.mode=slow"])
    with pytest.raises(ConfigError, match=r"program\[0\]\.alloc\.bytes: is missing"):
        kmemexp.plan(["interrupts.sources.net.program=[{alloc: {kind: a, class: malloc}}]"])
