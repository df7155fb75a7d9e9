"""The configuration's schema for Hydra: a dataclass for each node, with the type and the default of every key.

Values are checked against it in kmemexp/config/typed.py; what makes one impossible is in kmemexp/config/checks.py.
"""

from dataclasses import dataclass, field
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from kmemexp.config.tunables import Tunables
from kmemexp.sim import sizing

DEFAULT_METRICS = (
    "malloc_fits_1m_min_bytes",
    "kva_fits_1m_min_bytes",
    "kernel_map_external_frag_mean_ratio",
    "alloc_failures_count",
    "total_frag_mean_ratio",
    "held_peak_bytes",
)


@dataclass
class Design:
    """A complete kernel memory system; its file in conf/design/ selects the parts."""

    name: str = MISSING  # the name of its file
    title: str = ""  # in a few words
    about: str = ""  # what it is, in a sentence or two


@dataclass
class Maps:
    """How KVA is divided, who places in it, and where map entries come from."""

    layout: str = MISSING  # how KVA is divided, such as split (with kmem_map and mb_map) or unified
    arena: str = MISSING  # who places in a map: a file in kmemexp/sim/arenas/
    entries: str = MISSING  # where map entries come from
    kernel: str = sizing.USUAL  # whose rules compute sizes and limits (kmemexp/sim/sizing)
    image_bytes: Any = 8 << 20  # the kernel's own text, data and boot-time tables
    lock: str = "sleep"  # of a map: lockmgr; FreeBSD 5 and later have an adaptive mutex
    object_lock: str = "adaptive"  # of the object that a map's pages belong to (kernel_object), where a call takes it
    submaps: list[str] = field(default_factory=lambda: list(sizing.SUBMAPS))  # besides kmem_map
    reserves: list[str] = field(default_factory=lambda: list(sizing.RESERVES))  # KVA set aside at boot
    reclaim: bool = False  # without a clock: a map without room makes the allocators give back what they can spare
    areas: dict[str, Any] = field(default_factory=dict)  # by architecture: bytes of kernel_map in this layout
    params: dict[str, Any] = field(default_factory=dict)  # by arena


@dataclass
class Objects:
    """Which allocator serves malloc(9), zones and mbufs, and what differs from their defaults."""

    malloc: str = MISSING  # the allocator of malloc(9): a file in kmemexp/sim/allocators/
    zone: str = MISSING  # that of zones
    mbuf: str = MISSING  # that of network buffers
    kinds: dict[str, str] = field(default_factory=dict)  # allocators of single kinds, by the kind's name
    params: dict[str, Any] = field(default_factory=dict)  # by allocator: what differs from its own defaults
    locks: dict[str, str] = field(default_factory=dict)  # by allocator, instead of its own


@dataclass
class Interrupts:
    """What interrupts do to what they interrupt, and which there are (conf/interrupts/)."""

    model: str = MISSING  # spl | ithread
    nested: bool = True  # an interrupt thread may preempt another one
    big_lock: bool = False  # one lock for the whole kernel (mplock, Giant)
    big_wait: str = "spin"  # spin | queue: what becomes of who wants the big lock
    dispatch: str = "borrow"  # borrow | preempt | switch: how an interrupt thread gets the CPU
    # messages to other CPUs lie in their rings until the next tick, or until one is more than half full
    passive_messages: bool = False
    slice_ns: int = 0  # threads of one priority take turns after so long; 0: a thread runs until it leaves its CPU
    would_sleep: str = "block"  # block | panic: what becomes of a sleep where it is forbidden
    # stop: the lane ends; continue: the request that closed the circle is refused (one closed by a hand-over stays)
    on_deadlock: str = "stop"
    rate_hz: float | None = None  # of the fastest source that scales; the others in proportion
    clock_allocates: bool = False  # claim C3: the clock's fast interrupt allocates a little
    # of sources with mode=kernel, by name: what each was in a kernel
    modes: dict[str, str] = field(default_factory=lambda: {"clock": "fast", "statclock": "fast", "serial": "fast"})
    depth: int = 32  # interrupts that wait for their handler before they are lost
    queue: int = 64  # objects that a program's queue holds; one more is freed at once
    sources: dict[str, Any] = field(default_factory=dict)


@dataclass
class Cost:
    """What operations cost (conf/cost/); `none`: the driver without a clock."""

    name: str = MISSING
    socket_cpus: int = 1
    object_lines: bool = True  # an object's cache line that moves between CPUs costs move_near_ns or move_far_ns
    alloc_ns: float = 0
    free_ns: float = 0
    item_ns: float = 0
    spl_ns: float = 0
    critical_ns: float = 0
    lock_ns: float = 0
    move_near_ns: float = 0
    move_far_ns: float = 0
    switch_ns: float = 0
    preempt_ns: float = 0
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
    shootdown_answer_ns: float = 0
    # the least and the most that each cost may plausibly be, [least, most] in ns; changes nothing in a simulation
    ranges: dict[str, Any] = field(default_factory=dict)


@dataclass
class Memory:
    """Physical memory (conf/memory/)."""

    limited: bool = False  # pages can run out; a page daemon then frees some
    user_ratio: float = 0.9
    cache_ratio: float = 0.02
    fault_hz: float = 0.0
    cluster: int = 16
    scan_ns: int = 20000
    io_ns: int = 8_000_000
    sleep_locked: bool = False


@dataclass
class Policy:
    """Pro-active action (conf/policy/): what the driver does by itself; what parts do is in objects.params and maps."""

    name: str = "none"
    parts: list[str] = field(default_factory=list)  # a design needs one of these for the policy to mean anything
    trim_s: float = 0.0  # the allocators give back what they can spare every so many seconds; 0: never
    watch_s: float = 0.0  # how often kernel_map's largest run is looked at; 0: never
    floor_bytes: Any = 0  # the largest run below which the allocators then give back what they can spare
    movable: list[str] = field(default_factory=list)  # kinds whose ranges may move out of nearly empty superpages
    move_s: float = 0.0  # how often that is done; 0: never
    moves: int = 0  # ranges that are moved each time, at most


@dataclass
class Roles:
    """What the objects of a load are to a design (conf/roles/), by names of recorded caches and of synthetic kinds."""

    name: str = MISSING
    recorded: dict[str, Any] = field(default_factory=dict)
    synthetic: dict[str, Any] = field(default_factory=dict)


@dataclass
class Stability:
    """Type stability (conf/stability/): who reads an object after it was freed, and what protects the reader."""

    protection: str = "none"  # none | zone | percpu | grace | refcount
    kind: str = ""  # the kind of the workload that is watched and protected; none: nothing is
    grace_s: float = 0.02  # length of a grace period
    hold_ratio: float = 1.0  # multiplies every reader's hold_s
    oversample: int = 1  # sets of references that are drawn; one is the kernel's own, the others only look
    readers: dict[str, Any] = field(default_factory=dict)  # by kind


@dataclass
class Machine:
    """What the design runs on."""

    arch: str = "i386"  # i386 | amd64 | arm64: which of maps.areas is meant
    cpus: int = MISSING  # of the simulated machine
    threads: int = 4  # mainline threads per CPU
    domains: int = 1  # NUMA domains; the CPUs are shared out evenly
    ram_bytes: Any = MISSING  # physical memory
    kva_bytes: Any = MISSING  # kernel virtual address space
    min_free_bytes: Any = 0  # Linux' vm.min_free_kbytes; 0: by its rule
    # And `from`: a folder with copies of files of /proc, which say all of these (config/snapshot.py).
    tunables: Tunables = field(default_factory=Tunables)


@dataclass
class Sample:
    """What is recorded while a replica runs."""

    points: int = 96
    snapshots: int = 8
    bins: int = 256


@dataclass
class Budget:
    """Where replication ends although intervals are wider than asked for."""

    replicas: int | None = None  # of all cells together
    seconds: float | None = None  # since the run began; looked at between two looks


@dataclass
class Reps:
    """How many replicas a cell gets: `max`, or as many as `target` or `select` needs (report/replication.py)."""

    max: int = 1
    min: int = 10  # of the pilot, before anything is decided
    # Half-widths by metric: a number in the metric's unit (of a rare event a share of replicas), or "2%" of the mean;
    # of the difference from the baseline where there is one.
    target: dict[str, Any] = field(default_factory=dict)
    looks: int = 2  # planned looks at the results, the last one at the end; 2: a pilot, and the rest at once
    ahead: int = 0  # replicas beyond those that the scatter so far calls for; of select: in one step
    budget: Budget = field(default_factory=Budget)
    # {metric, delta}: until the best design is known, or one within delta of it (Kim and Nelson 2001)
    select: dict[str, Any] = field(default_factory=dict)


@dataclass
class Sweep:
    """A set of cells: see conf/sweep/ for examples and kmemexp/planning/axes.py for the meaning."""

    name: str | None = None
    description: str = ""
    axes: dict[str, Any] = field(default_factory=dict)
    zip: list[Any] = field(default_factory=list)
    when: dict[str, Any] = field(default_factory=dict)
    exclude: list[str] = field(default_factory=list)
    sample: dict[str, Any] = field(default_factory=dict)  # kmemexp/planning/sampling.py
    union: list[Any] = field(default_factory=list)  # further grids, each with axes, zip, when, exclude, sample
    baseline: dict[str, Any] = field(default_factory=dict)
    reps: Reps = field(default_factory=Reps)
    metrics: list[str] = field(default_factory=lambda: list(DEFAULT_METRICS))


@dataclass
class Experiment:
    """What `+experiment=…` asks for (conf/experiment/)."""

    names: list[str] = field(default_factory=list)  # files in experiments/; * and ? stand for any letters
    size: str = "default"  # default | full: the overrides of that name in the experiment
    publish: str | None = None  # folder that gets a copy of the charts and tables
    confirm: bool = False  # judge by the rule as it stands, once, on seeds and loads that were not explored on
    recording: str | None = None  # an imported trace: the other recording of a confirmation
    # judge again with costs halved, and doubled, and mark what changes: true or assumed: with all that are assumptions,
    # each: with each cost by itself, as +sweep=sensitivity does
    costs: Any = False


@dataclass
class Cluster:
    """Where the simulation runs."""

    runner: str = "ray"
    address: str = "local"  # local | auto | ray://host:port
    num_cpus: int | None = None  # CPUs to use; null: all
    window: int | None = None  # batches in flight; null: chosen by the runner
    batch_s: float = 2.0  # work in one batch, seconds
    grace_s: float = (
        25.0  # after SIGTERM or SIGHUP, what is in work may take so long; Slurm and Kubernetes kill after 30
    )


@dataclass
class Export:
    """What `action=export` writes into `_export` of the results folder."""

    to: str = "folder"  # folder: Parquet and CSV of each table | csv | sqlite | duckdb: one file


@dataclass
class Limits:
    """What simulating one replica of a cell may take; one that takes more is a failed row."""

    seconds: float | None = 3600.0  # of CPU time, and five times as much by the clock
    memory: Any = None  # bytes of memory, such as 4GiB
    steps_per_operation: int | None = 10_000_000  # of an allocator


@dataclass
class StoreOptions:
    """How an object store is reached. Credentials come from the environment, or from where these say."""

    endpoint: str | None = None  # http://host:9000 of a store that is not the cloud's own
    region: str | None = None
    http: bool = False  # allow http://
    profile: str | None = None  # of ~/.aws/credentials
    anonymous: bool = False  # ask without credentials
    metadata: bool = False  # ask the cloud's metadata service for credentials


@dataclass
class Store:
    """Where results go."""

    root: str = "results"
    options: StoreOptions = field(default_factory=StoreOptions)


@dataclass
class Validate:
    """What `action=validate` checks (kmemexp/validate/)."""

    level: str = "quick"  # quick | full: some cases, or all, at full length
    only: list[str] = field(default_factory=list)  # names of checks; none: all
    mutants: bool = False  # instead: try deliberate faults in a copy, and show which check catches which
    record: bool = False  # a fresh recording of this machine too (root and tracefs)


@dataclass
class Config:
    """The whole configuration."""

    design: Design = field(default_factory=Design)
    maps: Maps = field(default_factory=Maps)
    objects: Objects = field(default_factory=Objects)
    policy: Policy = field(default_factory=Policy)
    stability: Stability = field(default_factory=Stability)
    roles: Roles = field(default_factory=Roles)
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
    limits: Limits = field(default_factory=Limits)
    validate: Validate = field(default_factory=Validate)
    export: Export = field(default_factory=Export)
    size: str = "default"  # of the sweep: default | full
    output: str = "text"  # text | json | quiet
    tables: str = "answer"  # answer | all: what is shown at the end
    report: bool = True  # write _report.html
    action: str = "run"
    cell: str = ""  # action=explain: beginning of a cell's key
    replica: int | None = None  # action=explain: which replica; null: the first with a deadlock
    retry_failed: bool = False
    on_error: str = "skip"
    max_failures: int | None = None
    progress: bool = True


def register() -> None:
    """Make the schema known to Hydra as `base_config`, once: it takes a quarter of the time of a composition."""
    store = ConfigStore.instance()
    if "entry" not in _registered or store.repo.get("base_config.yaml") is not _registered["entry"]:
        store.store(name="base_config", node=_schema(), provider="kmemexp")
        _registered["entry"] = store.repo["base_config.yaml"]


_registered: dict[str, Any] = {}
"""What Hydra's store holds of it; who loads it from there gets a copy."""


def _schema() -> DictConfig:
    schema = OmegaConf.structured(Config)
    # Hydra closes every dict. These stay open: any parameter of any allocator can be named without a `+`, and a key of
    # a workload too where the workload is an axis (the default one, of which Hydra knows, may lack it).
    sweep = schema.sweep
    for node in (
        schema.objects.params,
        schema.objects.kinds,
        schema.maps.params,
        schema.maps.areas,
        schema.machine,
        schema.objects.locks,
        schema.workload,
        schema.interrupts.sources,
        schema.stability.readers,
        schema.roles.recorded,
        schema.roles.synthetic,
        sweep.axes,
        sweep.when,
        sweep.baseline,
        sweep.sample,
        sweep.reps.target,
        sweep.reps.select,
    ):
        OmegaConf.set_struct(node, False)
    return cast(DictConfig, schema)
