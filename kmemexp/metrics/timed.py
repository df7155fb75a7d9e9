"""Metrics of lanes with a clock: latencies, waits, deadlocks, shares of CPU time."""

from kmemexp.metrics.model import Metric

LATENCIES = {
    "alloc_main": "an allocation by the mainline, from the call to the return",
    "alloc_irq": "an allocation in an interrupt",
    "free_main": "a free by the mainline",
    "free_irq": "a free in an interrupt",
    "irq_fast_start": "a fast interrupt, from its raising to its handler's first instruction",
    "irq_fast_done": "a fast interrupt, from its raising to its handler's end",
    "irq_device_start": "a device interrupt, to its handler's first instruction",
    "irq_device_done": "a device interrupt, to its handler's end",
    "irq_soft_start": "a soft interrupt, to its handler's first instruction",
    "irq_soft_done": "a soft interrupt, to its handler's end",
    "ipi_done": "a message to another CPU, from its arrival to the end of its work",
    "lock_wait": "a wait for a lock (of those that waited)",
}
"""What has a distribution, and what it is the time of. Each has the columns QUANTILES."""

QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
LEAST_SAMPLES = {"p50": 6, "p99": 299, "p999": 2995, "max": 1}
"""Samples below which a quantile has no 95 % upper bound among them (1 - q^n >= 0.95); it is not reported then."""

TIMED = (
    Metric("deadlocks_count", "less", "safety", "circles in the wait-for graph"),
    Metric(
        "stalled_cpus_count",
        "less",
        "safety",
        "CPUs that for 100 ms spun, or did nothing but interrupts, with work to do",
    ),
    Metric("would_sleep_count", "less", "safety", "attempts to sleep in an interrupt that must not"),
    Metric("self_locks_count", "less", "safety", "locks requested by their own holder, or a handler on its stack"),
    Metric("lock_reversals_count", "less", "safety", "pairs of locks that were taken in both orders"),
    Metric(
        "blockable_locks_count", "less", "safety", "locks that may sleep, requested in a fast interrupt or a message"
    ),
    Metric("page_failures_count", "less", "safety", "requests refused for lack of physical pages"),
    Metric("lost_interrupts_count", "less", "safety", "interrupts that found too many waiting for their handler"),
    Metric("simulated_ns", "", "cost", "simulated time until the last operation was over"),
    Metric(
        "throughput_hz", "more", "cost", "operations per simulated second: a load's own rate where the machine keeps up"
    ),
    Metric("main_ratio", "", "cost", "share of the CPU time spent in operations of the mainline"),
    Metric("interrupt_ratio", "", "cost", "share spent in interrupts of all kinds"),
    Metric("spin_ratio", "less", "cost", "share spent spinning for locks"),
    Metric(
        "lock_wait_ratio",
        "less",
        "cost",
        "time waited for locks, spinning or asleep, per CPU time, by those too who still wait at the end",
    ),
    Metric("contended_ratio", "less", "cost", "share of the locks taken that had to be waited for"),
    Metric("locks_count", "less", "cost", "locks taken"),
    Metric("interrupts_count", "", "cost", "interrupts raised"),
    Metric("preemptions_count", "less", "cost", "times that a running context was preempted"),
    Metric("shootdowns_count", "less", "cost", "TLB shootdowns"),
    Metric("forwarded_count", "", "cost", "interrupts delivered on the CPU that held the big lock"),
    Metric("memory_waits_count", "less", "cost", "requests that slept for memory"),
    Metric("paged_out_count", "less", "cost", "pages that the page daemon freed"),
    Metric("free_pages_min_count", "more", "cost", "least number of free pages"),
    Metric("handed_frees_count", "", "cost", "frees that came before their object's allocation had ended"),
    Metric("unfinished_count", "less", "cost", "operations that were not done when the simulation ended"),
    Metric(
        "saturated_count",
        "less",
        "cost",
        "1 where the machine did not keep up: operations left at the time limit, or done later than 1.05 times their "
        "load's length and 10 ms, or over 1 % of the interrupts lost",
    ),
    *(
        Metric(f"{name}_{q}_ns", "less", "latency", f"{text}: {'the longest' if q == 'max' else f'{v:.1%} quantile'}")
        for name, text in LATENCIES.items()
        for q, v in QUANTILES.items()
    ),
)
"""What only the driver with a clock can say; NaN without one."""
