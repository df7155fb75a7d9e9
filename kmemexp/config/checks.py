"""What makes a value of the configuration impossible.

Each check takes one node of a cell as a plain dict and returns it in normal form (sizes as integers, nothing in it
that does not change the simulation); ConfigError names the key, the value and what would do.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kmemexp import metrics
from kmemexp.boot import sources
from kmemexp.config import tunables
from kmemexp.config.design import maps_node, objects_node
from kmemexp.config.snapshot import machine_of
from kmemexp.errors import ConfigError
from kmemexp.parts.finding import parts
from kmemexp.parts.spaces import ARCHITECTURES
from kmemexp.sim.slots import PAGE
from kmemexp.values import at_least, byte_count, close, one_of, sizes, within
from kmemexp.workload import roles, stability
from kmemexp.workload.check import check
from kmemexp.workload.stream import MAX_CPUS

ACTIONS = (
    "run", "plan", "status", "live", "report", "validate", "compact", "export", "check", "repair", "explain", "designs",
    "metrics", "workloads", "knobs",
)  # fmt: skip
"""The verbs that `action=` names, each a file in kmemexp/actions/."""
EXPORTS = ("folder", "csv", "sqlite", "duckdb")
MODELS = ("spl", "ithread")
MOST_HZ = 1e9
MOST_SEED = 2**63 - 1
SAMPLES = {"points": (1, 100_000), "snapshots": (0, 10_000), "bins": (1, 65_536)}
"""Fewest and most: a replica's points are held in memory."""
RUNNERS = ("ray", "serial")
ON_ERROR = ("skip", "stop")
LEVELS = ("quick", "full")
"""Of action=validate."""
OUTPUTS = ("text", "json", "quiet")
TABLES = ("answer", "all")
LEAST_PILOT = 10  # replicas in a pilot: with fewer, intervals are too narrow afterwards


def check_node(node: str, value: Any) -> Any:
    """Check one node of a cell and return its normal form. Raises ConfigError."""
    return CHECKS[node](value)


def check_run(settings: Mapping[str, Any]) -> None:
    """Check what belongs to the run and not to a cell: sweep, cluster, store, action. Raises ConfigError."""
    sweep, cluster = settings["sweep"], settings["cluster"]
    one_of("action", settings["action"], sorted(ACTIONS))
    one_of("on_error", settings["on_error"], ON_ERROR)
    one_of("validate.level", settings["validate"]["level"], LEVELS)
    one_of("export.to", settings["export"]["to"], EXPORTS)
    one_of("output", settings["output"], OUTPUTS)
    one_of("tables", settings["tables"], TABLES)
    one_of("cluster.runner", cluster["runner"], RUNNERS)
    if not re.fullmatch(r"local|auto|ray://.+|[\w.-]+:\d+", str(cluster["address"])):
        raise ConfigError(f"cluster.address={cluster['address']}: must be local, auto, host:port or ray://host:port")
    for key in ("num_cpus", "window"):
        if cluster[key] is not None:
            at_least(f"cluster.{key}", cluster[key], 1)
    if not cluster["batch_s"] > 0:
        raise ConfigError(f"cluster.batch_s={cluster['batch_s']}: must be above 0 seconds")
    if not 0 <= cluster["grace_s"] < float("inf"):
        raise ConfigError(f"cluster.grace_s={cluster['grace_s']}: must be at least 0 seconds")
    if settings["max_failures"] is not None:
        at_least("max_failures", settings["max_failures"], 1)
    _check_reps(sweep["reps"])
    if not sweep["metrics"]:
        raise ConfigError(f"sweep.metrics: is empty; name what to compare, such as [{metrics.NAMES[0]}]")
    for name in sweep["metrics"]:
        one_of("sweep.metrics", name, metrics.NAMES)
    if sweep["name"] is not None and not re.fullmatch(r"\w[\w.-]*", sweep["name"]):
        raise ConfigError(f"sweep.name={sweep['name']!r}: names a folder; use letters, digits, '_', '-' and '.'")
    if not settings["store"]["root"]:
        raise ConfigError("store.root: is empty; give a folder or a URI")
    if "://" not in settings["store"]["root"] and any(settings["store"]["options"].values()):
        raise ConfigError("store.options: are for an object store; store.root is a path on this machine")


def limits(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check the limits of a cell; sizes become integers. Raises ConfigError."""
    seconds, memory = given["seconds"], given["memory"]
    if seconds is not None and not 0 < seconds < float("inf"):
        raise ConfigError(f"limits.seconds={seconds}: must be above 0 seconds, or null for no limit")
    if memory is not None:
        memory = at_least("limits.memory", byte_count("limits.memory", memory), 1 << 20)
    if (steps := given["steps_per_operation"]) is not None:
        at_least("limits.steps_per_operation", steps, 1)
    return {"seconds": seconds, "memory": memory, "steps_per_operation": steps}


def _check_reps(reps: Mapping[str, Any]) -> None:
    at_least("sweep.reps.max", reps["max"], 1)
    target, select = reps["target"], reps["select"]
    if not target and not select:
        return
    if target and select:
        raise ConfigError("sweep.reps: has both target and select; choose one")
    if reps["min"] < LEAST_PILOT:
        raise ConfigError(
            f"sweep.reps.min={reps['min']}: a pilot needs {LEAST_PILOT} replicas, or intervals are too narrow"
        )
    if reps["max"] < reps["min"]:
        raise ConfigError(f"sweep.reps.max={reps['max']}: must be at least sweep.reps.min={reps['min']}")
    at_least("sweep.reps.looks", reps["looks"], 2)
    at_least("sweep.reps.ahead", reps["ahead"], 0)
    for key, least in (("replicas", 1), ("seconds", 0)):
        if reps["budget"][key] is not None and not reps["budget"][key] >= least:
            raise ConfigError(f"sweep.reps.budget.{key}={reps['budget'][key]}: must be at least {least}")
    for name, value in target.items():
        one_of("sweep.reps.target", name, metrics.NAMES)
        _check_width(f"sweep.reps.target.{name}", value)
    if select:
        if select.keys() != {"metric", "delta"}:
            raise ConfigError(f"sweep.reps.select: needs metric and delta, not {', '.join(select) or 'nothing'}")
        one_of("sweep.reps.select.metric", select["metric"], [m.name for m in metrics.METRICS if m.better])
        _check_width("sweep.reps.select.delta", select["delta"], relative=False)


def _check_width(key: str, value: Any, *, relative: bool = True) -> None:
    text = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value) if relative and isinstance(value, str) else None
    number = float(text[1]) if text else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
        raise ConfigError(f"{key}={value}: must be a number above 0" + (', or such as "2%"' if relative else ""))


def _design(design: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": design["name"]}


MACHINE_KEYS = ("arch", "cpus", "threads", "domains", "ram_bytes", "kva_bytes", "min_free_bytes", "tunables", "from")
"""Keys of a machine. Hydra is not asked: no field of a dataclass can be called `from`."""


def _machine(machine: Mapping[str, Any]) -> dict[str, Any]:
    for key in machine.keys() - MACHINE_KEYS:
        raise ConfigError(f"machine.{key}: no such key{close(key, MACHINE_KEYS)}; there are {', '.join(MACHINE_KEYS)}")
    if machine.get("from") is not None:
        machine = {**machine, **machine_of(machine["from"])}
    cpus = within("machine.cpus", machine["cpus"], 1, MAX_CPUS)
    sizes = {key: byte_count(f"machine.{key}", machine[key]) for key in ("ram_bytes", "kva_bytes")}
    for key, size in sizes.items():
        if size < PAGE or size % PAGE:
            raise ConfigError(f"machine.{key}={machine[key]}: must be a multiple of the page, {PAGE} bytes, and not 0")
    domains = at_least("machine.domains", machine["domains"], 1)
    if domains > cpus:
        raise ConfigError(f"machine.domains={domains}: there are only {cpus} CPUs (machine.cpus)")
    threads = at_least("machine.threads", machine["threads"], 1)
    one_of("machine.arch", arch := machine.get("arch", ARCHITECTURES[0]), ARCHITECTURES)
    given = tunables.in_normal_form(machine.get("tunables") or {})
    least = byte_count("machine.min_free_bytes", machine.get("min_free_bytes", 0))
    at_least("machine.min_free_bytes", least, 0)
    # What is as ever is no part of a cell's name.
    return (
        ({} if arch == ARCHITECTURES[0] else {"arch": arch})
        | {"cpus": cpus, "threads": threads, "domains": domains}
        | sizes
        | ({"tunables": given} if given else {})
        | ({"min_free_bytes": least} if least else {})
    )


def _interrupts(interrupts: Mapping[str, Any]) -> dict[str, Any]:
    one_of("interrupts.model", interrupts["model"], MODELS)
    one_of("interrupts.big_wait", interrupts["big_wait"], ("spin", "queue"))
    one_of("interrupts.dispatch", interrupts["dispatch"], ("borrow", "preempt", "switch"))
    for key, value in (("big_wait", "queue"), ("dispatch", "preempt"), ("dispatch", "switch")):
        if interrupts["model"] == "spl" and interrupts[key] == value:
            raise ConfigError(f"interrupts.{key}={value}: needs threads for interrupts, but interrupts.model=spl")
    one_of("interrupts.would_sleep", interrupts["would_sleep"], ("block", "panic"))
    one_of("interrupts.on_deadlock", interrupts["on_deadlock"], ("stop", "continue"))
    at_least("interrupts.slice_ns", interrupts["slice_ns"], 0)
    at_least("interrupts.depth", interrupts["depth"], 1)
    at_least("interrupts.queue", interrupts["queue"], 1)
    if interrupts["rate_hz"] is not None and not 0 < interrupts["rate_hz"] <= MOST_HZ:
        given = interrupts["rate_hz"]
        raise ConfigError(f"interrupts.rate_hz={given}: must be above 0 and at most 1e9, or null for the sources' own")
    found = sources.of_kernel(interrupts["sources"], interrupts.get("modes", {}))
    sources.check(found)
    if interrupts["clock_allocates"] and not found.get("clock"):
        raise ConfigError("interrupts.clock_allocates=true: there is no source called clock")
    # What is as ever is no part of a cell's name.
    left = {"modes"} | (set() if interrupts.get("passive_messages") else {"passive_messages"})
    return {**{key: value for key, value in interrupts.items() if key not in left}, "sources": found}


def _cost(cost: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in cost.items():
        if key.endswith("_ns") and not 0 <= value < 1e12:
            raise ConfigError(f"cost.{key}={value}: must be 0 to 1e12 ns")
    for key, between in cost.get("ranges", {}).items():
        one_of("cost.ranges", key, [name for name in cost if name.endswith("_ns")])
        if not (isinstance(between, Sequence) and len(between) == 2 and 0 <= between[0] <= between[1]):
            raise ConfigError(f"cost.ranges.{key}={between}: must be two numbers, the least and the most")
    if cost["name"] == "none":
        return {"name": "none"}
    at_least("cost.socket_cpus", cost["socket_cpus"], 1)
    return {key: value for key, value in cost.items() if key != "ranges"}


def _memory(memory: Mapping[str, Any]) -> dict[str, Any]:
    if not memory["limited"]:
        return {"limited": False}
    for key in ("user_ratio", "cache_ratio"):
        if not 0 <= memory[key] <= 1:
            raise ConfigError(f"memory.{key}={memory[key]}: is a share, 0 to 1")
    if memory["user_ratio"] + memory["cache_ratio"] > 1:
        raise ConfigError("memory.user_ratio and memory.cache_ratio are together more than 1")
    for key, low in (("cluster", 1), ("scan_ns", 0), ("io_ns", 0)):
        at_least(f"memory.{key}", memory[key], low)
    if not memory["fault_hz"] >= 0:
        raise ConfigError(f"memory.fault_hz={memory['fault_hz']}: must be at least 0")
    return dict(memory)


def _workload(workload: Mapping[str, Any]) -> dict[str, Any]:
    workload = sizes("workload", workload)
    check(workload)
    if workload["source"] == "trace":
        from kmemexp.workload import recorded  # noqa: PLC0415 (only a trace needs it)

        return recorded.node(workload)
    return dict(workload)


MOVING: dict[str, Any] = {"movable": [], "move_s": 0.0, "moves": 0}
"""What a policy that moves nothing does not say: its cells have the keys that they had without."""


def _policy(policy: Mapping[str, Any]) -> dict[str, Any]:
    policy = {**MOVING, **policy}
    floor = at_least("policy.floor_bytes", byte_count("policy.floor_bytes", policy["floor_bytes"]), 0)
    for key in ("trim_s", "watch_s", "move_s"):
        if not 0 <= policy[key] < 1e9:
            raise ConfigError(f"policy.{key}={policy[key]}: must be 0 to 1e9 seconds")
    if (floor > 0) != (policy["watch_s"] > 0):
        raise ConfigError("policy.watch_s and policy.floor_bytes: a floor is watched, a watch needs a floor: set both")
    at_least("policy.moves", policy["moves"], 0)
    if len({policy["move_s"] > 0, policy["moves"] > 0, bool(policy["movable"])}) > 1:
        raise ConfigError("policy.movable, policy.move_s and policy.moves: what moves, how often and how many: set all")
    known = (*parts("allocators"), *parts("arenas"))
    for name in policy["parts"]:
        one_of("policy.parts", name, known)
    whole = {**policy, "floor_bytes": floor}
    return whole if policy["moves"] else {key: value for key, value in whole.items() if key not in MOVING}


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {key: within(f"sample.{key}", sample[key], low, high) for key, (low, high) in SAMPLES.items()}


def _seed(seed: int) -> int:
    return within("seed", seed, 0, MOST_SEED)


CHECKS: dict[str, Callable[[Any], Any]] = {
    "cost": _cost, "design": _design, "interrupts": _interrupts, "maps": maps_node, "memory": _memory,
    "objects": objects_node, "machine": _machine, "workload": _workload, "sample": _sample, "seed": _seed,
    "policy": _policy, "roles": roles.node, "stability": stability.node,
}  # fmt: skip
"""One for each of cell.NODES."""
