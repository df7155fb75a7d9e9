"""The configuration: its schema for Hydra's ConfigStore, where its files are, and what makes a value impossible.

Each check takes one node of a cell as a plain dict and returns it in normal form (sizes as integers, nothing in it
that does not change the simulation); ConfigError names the key, the value and what would do.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from kmemexp import metrics, sources
from kmemexp.cell import NODES
from kmemexp.design_check import maps_node, objects_node, parts
from kmemexp.errors import ConfigError
from kmemexp.sim import sizing
from kmemexp.values import at_least, byte_count, close, one_of, sizes
from kmemexp.workload import stability
from kmemexp.workload.check import check

PAGE = 4096
MAX_CPUS = 32767  # a stream keeps CPU numbers as int16
MODELS = ("spl", "ithread")
RUNNERS = ("ray", "serial")
ON_ERROR = ("skip", "stop")
COMPOSE_ERRORS = (HydraException, OmegaConfBaseException, ValueError)
"""What Hydra raises where overrides do not compose: a ValueError for a group's option that is a number."""
HYDRA_NOISE = ("object_type=", "reference_type=")
DEFAULT_METRICS = (
    "map_external_frag_mean_ratio",
    "map_largest_run_min_bytes",
    "malloc_headroom_min_bytes",
    "alloc_failures_count",
    "total_frag_mean_ratio",
    "held_peak_bytes",
)


@dataclass
class Design:
    """A complete kernel memory system; its file in conf/design/ selects the parts."""

    name: str = MISSING
    title: str = ""
    about: str = ""  # what it is, in a sentence or two


@dataclass
class Maps:
    """How KVA is divided, who places in it, and where map entries come from."""

    layout: str = MISSING
    arena: str = MISSING
    entries: str = MISSING
    image_bytes: Any = 8 << 20  # the kernel's own text, data and boot-time tables
    lock: str = "sleep"  # of a map: lockmgr; FreeBSD 5 and later have an adaptive mutex
    submaps: list[str] = field(default_factory=lambda: list(sizing.SUBMAPS))  # besides kmem_map
    reserves: list[str] = field(default_factory=lambda: list(sizing.RESERVES))  # KVA set aside at boot
    reclaim: bool = False  # without a clock: a map without room makes the allocators give back what they can spare
    params: dict[str, Any] = field(default_factory=dict)  # by arena


@dataclass
class Objects:
    """Which allocator serves malloc(9), zones and mbufs, and what differs from their defaults."""

    malloc: str = MISSING
    zone: str = MISSING
    mbuf: str = MISSING
    kinds: dict[str, str] = field(default_factory=dict)  # allocators of single kinds, by the kind's name
    params: dict[str, Any] = field(default_factory=dict)
    locks: dict[str, str] = field(default_factory=dict)  # by allocator, instead of its own


@dataclass
class Interrupts:
    """What interrupts do to whatever they interrupt, and which there are (conf/interrupts/)."""

    model: str = MISSING  # spl | ithread
    nested: bool = True  # an interrupt thread may preempt another one
    big_lock: bool = False
    would_sleep: str = "block"  # block | panic: what becomes of a sleep where it is forbidden
    # stop: the lane ends; continue: the request that closed the circle is refused (one closed by a hand-over stays)
    on_deadlock: str = "stop"
    rate_hz: float | None = None  # of the fastest source that scales; the others in proportion
    clock_allocates: bool = False  # claim C3: the clock's fast interrupt allocates a little
    depth: int = 32  # interrupts that wait for their handler before they are lost
    queue: int = 64  # objects that a program's queue holds; one more is freed at once
    sources: dict[str, Any] = field(default_factory=dict)


@dataclass
class Cost:
    """What operations cost (conf/cost/); `none`: the driver without a clock."""

    name: str = MISSING
    socket_cpus: int = 1
    alloc_ns: float = 0
    free_ns: float = 0
    item_ns: float = 0
    spl_ns: float = 0
    critical_ns: float = 0
    lock_ns: float = 0
    move_near_ns: float = 0
    move_far_ns: float = 0
    switch_ns: float = 0
    interrupt_ns: float = 0
    ipi_send_ns: float = 0
    ipi_ns: float = 0
    ipi_cpu_ns: float = 0
    map_ns: float = 0
    walk_ns: float = 0
    page_ns: float = 0
    shootdown_ns: float = 0
    shootdown_cpu_ns: float = 0
    shootdown_page_ns: float = 0


@dataclass
class Memory:
    """Physical memory (conf/memory/)."""

    limited: bool = False
    user_ratio: float = 0.9
    cache_ratio: float = 0.02
    fault_hz: float = 0.0
    cluster: int = 16
    scan_ns: int = 20000
    io_ns: int = 8_000_000
    sleep_locked: bool = False


@dataclass
class Policy:
    """Pro-active action (conf/policy/): what the driver does of itself. What parts do is in objects.params and maps."""

    name: str = "none"
    parts: list[str] = field(default_factory=list)  # a design needs one of these for the policy to mean anything
    trim_s: float = 0.0  # the allocators give back what they can spare every so many seconds; 0: never
    watch_s: float = 0.0  # how often somebody looks at kernel_map's largest run; 0: never
    floor_bytes: Any = 0  # the largest run below which the allocators then give back what they can spare


@dataclass
class Stability:
    """Type stability (conf/stability/): who reads an object after it was freed, and what protects the reader."""

    protection: str = "none"
    kind: str = ""  # the kind of the workload that is watched and protected; none: nothing is
    grace_s: float = 0.02  # length of a grace period
    hold_ratio: float = 1.0  # multiplies every reader's hold_s
    oversample: int = 1  # sets of references that are drawn; one is the kernel's own, the others only look
    readers: dict[str, Any] = field(default_factory=dict)  # by kind


@dataclass
class Machine:
    """What the design runs on."""

    cpus: int = MISSING
    threads: int = 4  # mainline threads per CPU
    domains: int = 1  # NUMA domains; the CPUs are shared out evenly
    ram_bytes: Any = MISSING
    kva_bytes: Any = MISSING


@dataclass
class Sample:
    """What is recorded while a replica runs."""

    points: int = 96
    snapshots: int = 8
    bins: int = 256


@dataclass
class Reps:
    """How many replicas a cell gets."""

    max: int = 1


@dataclass
class Sweep:
    """A set of cells: see conf/sweep/ for examples and kmemexp/sweep/axes.py for the meaning."""

    name: str | None = None
    description: str = ""
    axes: dict[str, Any] = field(default_factory=dict)
    zip: list[Any] = field(default_factory=list)
    when: dict[str, Any] = field(default_factory=dict)
    exclude: list[str] = field(default_factory=list)
    baseline: dict[str, Any] = field(default_factory=dict)
    reps: Reps = field(default_factory=Reps)
    metrics: list[str] = field(default_factory=lambda: list(DEFAULT_METRICS))


@dataclass
class Experiment:
    """What `+experiment=…` asks for (conf/experiment/)."""

    names: list[str] = field(default_factory=list)  # files in experiments/; * and ? stand for any letters
    size: str = "default"  # default | full: the overrides of that name in the experiment
    publish: str | None = None  # folder that gets a copy of the charts and tables


@dataclass
class Cluster:
    """Where the simulation runs."""

    runner: str = "ray"
    address: str = "local"  # local | auto | ray://host:port
    num_cpus: int | None = None  # CPUs to use; null: all
    window: int | None = None  # batches in flight; null: chosen by the runner
    batch_s: float = 2.0  # work in one batch, seconds


@dataclass
class Store:
    """Where results go."""

    root: str = "results"


@dataclass
class Config:
    """The whole configuration."""

    design: Design = field(default_factory=Design)
    maps: Maps = field(default_factory=Maps)
    objects: Objects = field(default_factory=Objects)
    policy: Policy = field(default_factory=Policy)
    stability: Stability = field(default_factory=Stability)
    machine: Machine = field(default_factory=Machine)
    workload: dict[str, Any] = field(default_factory=dict)
    interrupts: Interrupts = field(default_factory=Interrupts)
    cost: Cost = field(default_factory=Cost)
    memory: Memory = field(default_factory=Memory)
    sample: Sample = field(default_factory=Sample)
    seed: int = 0
    sweep: Sweep = field(default_factory=Sweep)
    experiment: Experiment = field(default_factory=Experiment)
    cluster: Cluster = field(default_factory=Cluster)
    store: Store = field(default_factory=Store)
    action: str = "run"
    cell: str = ""  # action=explain: beginning of a cell's key
    replica: int | None = None  # action=explain: which replica; null: the first with a deadlock
    retry_failed: bool = False
    on_error: str = "skip"
    max_failures: int | None = None
    progress: bool = True


def register() -> None:
    """Make the schema known to Hydra as `base_config`."""
    schema = OmegaConf.structured(Config)
    # Hydra closes every dict. These stay open: any parameter of any allocator can be named without a `+`, and a key of
    # a workload too where the workload is an axis (the default one, of which Hydra knows, may lack it).
    sweep = schema.sweep
    for node in (
        schema.objects.params,
        schema.objects.kinds,
        schema.maps.params,
        schema.objects.locks,
        schema.workload,
        schema.interrupts.sources,
        schema.stability.readers,
        sweep.axes,
        sweep.when,
        sweep.baseline,
    ):
        OmegaConf.set_struct(node, False)
    ConfigStore.instance().store(name="base_config", node=schema, provider="kmemexp")


def conf_dir() -> Path:
    """Folder of the configuration files: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError(f"there is no config.yaml in {package / 'conf'} nor in {package.parent / 'conf'}")


def explanation(error: Exception) -> str:
    """Put what Hydra says, and what OmegaConf said to it, into one message."""
    cause = error.__cause__
    texts = [str(error), *([str(cause)] if isinstance(cause, OmegaConfBaseException) else [])]
    return "\n".join(line for text in texts for line in text.splitlines() if not line.lstrip().startswith(HYDRA_NOISE))


def type_checked(key: str, values: Sequence[Any]) -> list:
    """Check values of one key against the schema: sizes and whole floats become integers. Raises ConfigError."""
    root = key.partition(".")[0]
    if root not in NODES:
        known = [f.name for f in fields(Config)]
        what = "says how to run, not what; it cannot be swept" if root in known else "unknown key"
        raise ConfigError(f"{key}: {what}{close(root, NODES)}; axes begin with {', '.join(NODES)}")
    whole = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    sized = [byte_count(key, v) if isinstance(v, str) and key.endswith("_bytes") else v for v in whole]
    if root == "workload":  # free in form; its own check comes when a cell is put together
        return sized
    schema = OmegaConf.structured(Config)
    sound: set[type] = set()  # no leaf of the schema takes one value of a type and refuses another; asking is slow
    checked = []
    for value in sized:
        typed = value if type(value) in sound else _typed(schema, key, value)
        if type(typed) is type(value):
            sound.add(type(value))
        checked.append(typed)
    return checked


def _typed(schema: DictConfig, key: str, value: Any) -> Any:
    try:
        OmegaConf.update(schema, key, value)
    except (ConfigKeyError, ConfigAttributeError) as error:
        parent = OmegaConf.select(schema, key.rpartition(".")[0])
        known = [str(k) for k in parent] if isinstance(parent, DictConfig) else []
        hint = f"{close(key.rpartition('.')[2], known)}; there are {', '.join(known)}" if known else ""
        raise ConfigError(f"{key}: unknown key{hint}") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}={value}: {str(error).splitlines()[0]}") from error
    if OmegaConf.is_config(OmegaConf.select(schema, key)):
        raise ConfigError(f"{key}: is a group of keys; sweep over one of them")
    return OmegaConf.select(schema, key)


def check_node(node: str, value: Any) -> Any:
    """Check one node of a cell and return its normal form. Raises ConfigError."""
    return CHECKS[node](value)


def check_run(settings: Mapping[str, Any], actions: Iterable[str]) -> None:
    """Check what belongs to the run and not to a cell: sweep, cluster, store, action. Raises ConfigError."""
    sweep, cluster = settings["sweep"], settings["cluster"]
    one_of("action", settings["action"], sorted(actions))
    one_of("on_error", settings["on_error"], ON_ERROR)
    one_of("cluster.runner", cluster["runner"], RUNNERS)
    if not re.fullmatch(r"local|auto|ray://.+|[\w.-]+:\d+", str(cluster["address"])):
        raise ConfigError(f"cluster.address={cluster['address']}: must be local, auto, host:port or ray://host:port")
    for key in ("num_cpus", "window"):
        if cluster[key] is not None:
            at_least(f"cluster.{key}", cluster[key], 1)
    if not cluster["batch_s"] > 0:
        raise ConfigError(f"cluster.batch_s={cluster['batch_s']}: must be above 0 seconds")
    if settings["max_failures"] is not None:
        at_least("max_failures", settings["max_failures"], 1)
    at_least("sweep.reps.max", sweep["reps"]["max"], 1)
    for name in sweep["metrics"]:
        one_of("sweep.metrics", name, metrics.NAMES)
    if sweep["name"] is not None and not re.fullmatch(r"\w[\w.-]*", sweep["name"]):
        raise ConfigError(f"sweep.name={sweep['name']!r}: names a folder; use letters, digits, '_', '-' and '.'")
    if not settings["store"]["root"]:
        raise ConfigError("store.root: is empty; give a folder or a URI")


def _design(design: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": design["name"]}


def _machine(machine: Mapping[str, Any]) -> dict[str, Any]:
    cpus = at_least("machine.cpus", machine["cpus"], 1)
    if cpus > MAX_CPUS:
        raise ConfigError(f"machine.cpus={cpus}: must be at most {MAX_CPUS}")
    sizes = {key: byte_count(f"machine.{key}", machine[key]) for key in ("ram_bytes", "kva_bytes")}
    for key, size in sizes.items():
        if size < PAGE or size % PAGE:
            raise ConfigError(f"machine.{key}={machine[key]}: must be a multiple of the page, {PAGE} bytes, and not 0")
    domains = at_least("machine.domains", machine["domains"], 1)
    if domains > cpus:
        raise ConfigError(f"machine.domains={domains}: there are only {cpus} CPUs (machine.cpus)")
    threads = at_least("machine.threads", machine["threads"], 1)
    return {"cpus": cpus, "threads": threads, "domains": domains} | sizes


def _interrupts(interrupts: Mapping[str, Any]) -> dict[str, Any]:
    one_of("interrupts.model", interrupts["model"], MODELS)
    one_of("interrupts.would_sleep", interrupts["would_sleep"], ("block", "panic"))
    one_of("interrupts.on_deadlock", interrupts["on_deadlock"], ("stop", "continue"))
    at_least("interrupts.depth", interrupts["depth"], 1)
    at_least("interrupts.queue", interrupts["queue"], 1)
    if interrupts["rate_hz"] is not None and not interrupts["rate_hz"] > 0:
        raise ConfigError(f"interrupts.rate_hz={interrupts['rate_hz']}: must be above 0, or null for the sources' own")
    sources.check(interrupts["sources"])
    if interrupts["clock_allocates"] and not interrupts["sources"].get("clock"):
        raise ConfigError("interrupts.clock_allocates=true: there is no source called clock")
    return {**interrupts}


def _cost(cost: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in cost.items():
        if key.endswith("_ns") and not 0 <= value < 1e12:
            raise ConfigError(f"cost.{key}={value}: must be 0 to 1e12 ns")
    if cost["name"] == "none":
        return {"name": "none"}
    at_least("cost.socket_cpus", cost["socket_cpus"], 1)
    return dict(cost)


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
        from kmemexp.workload.traces import library  # noqa: PLC0415 (only a trace needs it)

        # A cell is known by what its trace holds: another recording under the same name is another cell.
        name = workload["trace"]
        place = name if name in library.names() else str(library.path_of(name).resolve())
        workload = {**workload, "trace": place, "digest": library.digest(name)}
    return workload


def _policy(policy: Mapping[str, Any]) -> dict[str, Any]:
    floor = at_least("policy.floor_bytes", byte_count("policy.floor_bytes", policy["floor_bytes"]), 0)
    for key in ("trim_s", "watch_s"):
        if not 0 <= policy[key] < 1e9:
            raise ConfigError(f"policy.{key}={policy[key]}: must be 0 to 1e9 seconds")
    if (floor > 0) != (policy["watch_s"] > 0):
        raise ConfigError("policy.watch_s and policy.floor_bytes: a floor is watched, a watch needs a floor: set both")
    known = (*parts("allocators"), *parts("arenas"))
    for name in policy["parts"]:
        one_of("policy.parts", name, known)
    return {**policy, "floor_bytes": floor}


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    least = {"points": 1, "snapshots": 0, "bins": 1}
    return {key: at_least(f"sample.{key}", sample[key], low) for key, low in least.items()}


def _seed(seed: int) -> int:
    return at_least("seed", seed, 0)


CHECKS: dict[str, Callable[[Any], Any]] = {
    "cost": _cost, "design": _design, "interrupts": _interrupts, "maps": maps_node, "memory": _memory,
    "objects": objects_node, "machine": _machine, "workload": _workload, "sample": _sample, "seed": _seed,
    "policy": _policy, "stability": stability.node,
}  # fmt: skip
"""One for each of cell.NODES."""
