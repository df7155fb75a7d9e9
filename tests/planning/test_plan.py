"""Plans: from overrides to the table of cells."""

import itertools
import json
import re
from importlib import resources
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kmemexp.config import files
from kmemexp.config.cell import canonical, cell_key
from kmemexp.errors import ConfigError, InputError, TraceError
from kmemexp.planning.plan import plan_from
from kmemexp.workload.build import build

DESIGNS = ["freebsd4", "freebsd4_unified", "dragonfly_2003aug25", "dragonfly_2003oct"]


def one(*overrides, **more):
    (plan,) = plan_from(overrides, **more)
    return plan


def axis_rows(plan):
    return [json.loads(text) for text in plan.cells["axes"]]


def configs(plan):
    return [json.loads(text) for text in plan.cells["config"]]


@pytest.fixture
def my_conf(tmp_path) -> Path:
    """A user's folder of configuration files; `write(name, text)` adds one."""
    folder = tmp_path / "my conf"
    folder.mkdir()
    return folder


def write(folder: Path, name: str, text: str) -> None:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


HELD = "+sweep.reps.target.held_peak_bytes=2%"


def test_one_cell():
    plan = one()
    assert (plan.name, len(plan.cells), plan.replicas, plan.excluded) == ("adhoc", 1, 1, 0)
    (cell,) = configs(plan)
    assert cell["design"] == {"name": "freebsd4"}
    assert cell["machine"] == {"cpus": 2, "threads": 4, "domains": 1, "ram_bytes": 128 << 20, "kva_bytes": 256 << 20}
    assert plan.cells["axes"].tolist() == ["{}"]
    assert plan.root == str(Path("results/adhoc").absolute())
    assert plan.baseline == {}


@pytest.mark.parametrize(
    ("design", "layout", "malloc", "entries"),
    [
        ("freebsd4", "split", "buckets", "kmapentzone"),
        ("freebsd4_unified", "unified", "buckets", "kmapentzone"),
        ("dragonfly_2003aug25", "unified", "buckets", "kmapentzone"),
        ("dragonfly_2003oct", "unified", "dfly_slab", "reservation"),
    ],
)
def test_a_design_selects_its_parts(design, layout, malloc, entries):
    (cell,) = configs(one(f"design={design}"))
    assert (cell["maps"]["layout"], cell["objects"]["malloc"], cell["maps"]["entries"]) == (layout, malloc, entries)


def test_parts_can_be_swept_alone():
    plan = one("design=dragonfly_2003oct", "maps=split,unified", "objects=slab,buckets_zones")
    assert axis_rows(plan) == [
        {"design": "dragonfly_2003oct", "maps": m, "objects": o}
        for m in ("split", "unified")
        for o in ("slab", "buckets_zones")
    ]  # fmt: skip
    assert [c["maps"]["layout"] for c in configs(plan)] == ["split"] * 2 + ["unified"] * 2


def test_columns():
    cells = one("design=freebsd4,dragonfly_2003oct", "machine.cpus=1,4", "machine.kva_bytes=512MiB").cells
    assert cells.columns.tolist() == [
        "cell_key", "config", "axes", "design", "workload", "cpus", "ram_bytes", "kva_bytes", "stream_key", "est_ops",
        "timed",
    ]  # fmt: skip
    assert cells["design"].tolist() == ["freebsd4"] * 2 + ["dragonfly_2003oct"] * 2
    assert cells["cpus"].tolist() == [1, 4, 1, 4]
    assert set(cells["kva_bytes"]) == {512 << 20}
    assert (cells["est_ops"] > 0).all()


def test_cells_on_the_machine_with_a_clock_are_told():
    plan = one("cost=none,opteron2003", "seed=0,1")
    assert plan.cells["timed"].tolist() == [False, False, True, True]
    assert [c["cost"]["name"] != "none" for c in configs(plan)] == plan.cells["timed"].tolist()


def test_rows_and_axes_by_cell_key():
    plan = one("design=freebsd4,dragonfly_2003oct", "sweep.reps.max=2")
    keys = plan.cells["cell_key"].tolist()
    assert plan.rows == [(keys[0], 0), (keys[0], 1), (keys[1], 0), (keys[1], 1)]
    assert plan.axes == {keys[0]: '{"design":"freebsd4"}', keys[1]: '{"design":"dragonfly_2003oct"}'}


def test_replicas_begin_with_the_pilot_where_more_are_chosen_later():
    plan = one("design=freebsd4,dragonfly_2003oct", "sweep.reps.max=40", HELD)
    assert (plan.lanes, len(plan.rows), plan.replicas) == (20, 20, 40)
    first, second = plan.columns["cell_key"]
    plan.counts = {first: 12, second: 40}
    assert plan.lanes == len(plan.rows) == 52
    assert plan.count_of(first) == 12


def test_config_is_canonical_and_gives_the_key():
    cells = one("design=freebsd4,dragonfly_2003oct", "workload=server2003,filetree", "seed=range(3)").cells
    for key, text in zip(cells["cell_key"], cells["config"], strict=True):
        assert canonical(json.loads(text)) == text
        assert cell_key(json.loads(text)) == key


def test_streams_are_shared_by_designs_and_machines_of_as_many_cpus():
    plan = one("design=freebsd4,dragonfly_2003oct", "machine.cpus=1,2", "machine.kva_bytes=256MiB,512MiB", "seed=0,1")
    cells = plan.cells
    by_stream = cells.groupby(cells["stream_key"])
    assert len(by_stream) == 4
    assert all(len(set(group["cpus"])) == 1 and len(group) == 4 for _, group in by_stream)


def test_key_knows_nothing_of_how_the_sweep_runs():
    plain = one("+sweep=smoke").cells["cell_key"].tolist()
    other = one(
        "+sweep=smoke", "cluster=serial", "store.root=/elsewhere", "retry_failed=true", "sweep.reps.max=9",
        "on_error=stop",
        "sweep.name=other", "sweep.metrics=[panics_count]", "progress=false",
    )  # fmt: skip
    assert other.cells["cell_key"].tolist() == plain
    assert (other.name, other.root, other.replicas, other.max_failures) == ("other", "/elsewhere/other", 9, 1)
    assert one("+sweep=smoke", "seed=1").cells["cell_key"].tolist() != plain


def test_sizes_and_whole_floats_are_one_value():
    assert len(one("machine.kva_bytes=256MiB,268435456,262144k").cells) == 1
    assert one("machine.kva_bytes=256MiB,268435456").collapsed == 1
    assert len(one("seed=1e3,1000").cells) == 1


# Sweep files and the command line.


def test_sweep_file():
    plan = one("+sweep=fragmentation", "size=full")
    assert plan.name == "fragmentation"
    assert {"freebsd4", "dragonfly_2003aug25", "dragonfly_2003oct"} < set(plan.cells["design"])
    assert set(plan.cells["workload"]) == {"filetree", "server_days"}
    assert plan.cells["kva_bytes"].nunique() == 3
    assert plan.baseline == {"design": "freebsd4"}


def test_the_main_sweep_has_every_axis_of_its_question_and_every_load_in_every_cell():
    plan = one("+sweep=fragmentation")
    assert plan.name == "fragmentation"
    axes = axis_rows(plan)
    for key in ("design", "workload", "machine.cpus", "interrupts.rate_hz", "machine.kva_bytes"):
        assert len({row[key] for row in axes}) > 1, key
    assert {c["workload"]["source"] for c in configs(plan)} == {"trace", "synthetic"}
    assert len(plan.cells) == 4 * 2 * 2 * 2 * 2


def test_sizes_of_a_sweep():
    assert one("+sweep=fragmentation", "size=default").columns == one("+sweep=fragmentation").columns
    assert one("+sweep=full/fragmentation").columns == one("+sweep=fragmentation", "size=full").columns
    for words, said in (
        (["+sweep=smoke", "size=full"], "smoke has one size only; in two there are fragmentation"),
        (["size=full"], "size=full: is the size of a sweep"),
        (["+sweep=fragmentation", "size=huge"], "size=huge: unknown; there are default, full"),
        (["+sweep=fragmentation", "size=default,full"], "size: says how to run"),
        (["output=xml"], "output=xml: unknown; there are text, json, quiet"),
        (["tables=some"], "tables=some: unknown"),
    ):
        with pytest.raises(ConfigError, match=said):
            plan_from(words)


def test_pin_an_axis_of_the_file():
    plan = one("+sweep=fragmentation", "design=dragonfly_2003oct")
    assert set(plan.cells["design"]) == {"dragonfly_2003oct"}
    assert axis_rows(plan)[0]["design"] == "dragonfly_2003oct"  # what is fixed stays an axis, of one value
    assert plan.baseline == {}


def test_replace_axes_of_the_file():
    plan = one("+sweep=fragmentation", "design=dragonfly_2003oct,freebsd4_unified", "machine.cpus=range(1,9)")
    assert set(plan.cells["design"]) == {"dragonfly_2003oct", "freebsd4_unified"}
    assert sorted(set(plan.cells["cpus"])) == list(range(1, 9))
    assert plan.baseline == {"design": "dragonfly_2003oct"}


def test_glob_over_options():
    plan = one("+sweep=smoke", "design=glob(freebsd4*,exclude=*unified)")
    assert set(plan.cells["design"]) == {"freebsd4"}


def test_several_sweeps():
    plans = plan_from(["+sweep=smoke,fragmentation", "machine.cpus=3", "workload=filetree"])
    assert [plan.name for plan in plans] == ["smoke", "fragmentation"]
    assert all(set(plan.cells["cpus"]) == {3} for plan in plans)
    assert len(plan_from(["+sweep=glob(s*)", "workload=filetree", "design=freebsd4"])) >= 2


def test_other_overrides_hold_for_every_cell():
    plan = one("+sweep=fragmentation", "workload=filetree", "workload.copies=3")
    assert {c["workload"]["copies"] for c in configs(plan)} == {3}


def test_override_of_a_key_that_the_default_workload_lacks():
    plan = one("workload=server2003,berkeley1988", "workload.duration_s=30")
    assert {c["workload"]["duration_s"] for c in configs(plan)} == {30}


def test_sweep_settings_from_the_command_line():
    plan = one("+sweep=smoke", "sweep.reps.max=16", "seed=7", "sweep.axes.machine.cpus=[1,2]")
    assert plan.replicas == 16
    assert {c["seed"] for c in configs(plan)} == {7}
    assert set(plan.cells["cpus"]) == {1, 2}


def test_user_folder(my_conf):
    write(my_conf, "sweep/mine", "# @package _global_\nsweep: {axes: {design: 'freebsd4,my_design'}}\n")
    write(my_conf, "design/my_design", "name: my_design\ntitle: Mine\n")
    plan = one("+sweep=mine", config_dir=str(my_conf))
    assert plan.name == "mine"
    assert plan.cells["design"].tolist() == ["freebsd4", "my_design"]
    again = one("+sweep=mine", f"hydra.searchpath=['file://{my_conf}']")
    assert again.cells["cell_key"].tolist() == plan.cells["cell_key"].tolist()
    found = one("+sweep=mine", f"hydra.searchpath=['file://{my_conf}']", "design=glob(my_*)")
    assert found.cells["design"].tolist() == ["my_design"]


def test_a_file_of_the_users_folder_takes_the_place_of_a_shipped_one_of_its_name(my_conf):
    shipped = (files.conf_dir() / "machine" / "i386_64m.yaml").read_text("utf-8")
    write(my_conf, "machine/i386_64m", re.sub(r"ram_bytes: \S+", "ram_bytes: 77MiB", shipped))
    config = json.loads(one("machine=i386_64m", config_dir=str(my_conf)).cells["config"].iloc[0])
    assert config["machine"]["ram_bytes"] == 77 << 20


def test_user_folder_that_is_not_there():
    with pytest.raises(ConfigError, match="no folder /nowhere"):
        one(config_dir="/nowhere")


FILE = """# @package _global_
machine: {{ram_bytes: 64MiB}}
sweep:
  axes:
    design: [freebsd4, dragonfly_2003oct]
    machine.cpus: [1, 2, 4]
{more}"""


def mine(my_conf, more, *overrides):
    write(my_conf, "sweep/mine", FILE.format(more=more))
    return one("+sweep=mine", *overrides, config_dir=str(my_conf))


def test_when_collapses_the_others(my_conf):
    plan = mine(my_conf, "  when: {machine.cpus: \"design == 'dragonfly_2003oct'\"}\n", "machine.cpus=1,2,4")
    assert axis_rows(plan) == [
        {"design": "freebsd4"},
        *({"design": "dragonfly_2003oct", "machine.cpus": n} for n in (1, 2, 4)),
    ]
    assert plan.cells["cpus"].tolist() == [2, 1, 2, 4]  # the machine's own number, where the axis does not exist
    assert plan.collapsed == 2


def test_exclude_looks_at_any_key(my_conf):
    rules = ["maps.layout == 'split' and machine.cpus > 1", "machine.ram_bytes == '1GiB'"]
    plan = mine(my_conf, f"  exclude: {json.dumps(rules)}\n")
    assert [(r["design"], r["machine.cpus"]) for r in axis_rows(plan)] == [
        ("freebsd4", 1), ("dragonfly_2003oct", 1), ("dragonfly_2003oct", 2), ("dragonfly_2003oct", 4)
    ]  # fmt: skip
    assert plan.excluded == 2


def test_exclude_looks_at_parts_that_a_design_chooses(my_conf):
    plan = mine(my_conf, "  exclude: [\"objects == 'slab_zones'\"]\n")
    assert set(plan.cells["design"]) == {"freebsd4"}


def test_excluded_combinations_need_not_be_possible(my_conf):
    more = "    workload: [filetree, server2003]\n    workload.copies: [1, 2]\n  when: {{workload.copies: {0}}}\n"
    plan = mine(my_conf, more.format("\"workload == 'filetree'\""))
    assert len(plan.cells) == 6 * 3
    with pytest.raises(InputError, match=r"workload.copies.*\n.*workload=server2003"):
        mine(my_conf, more.format('"true"'))


def test_excluded_combinations_need_not_compose(my_conf):
    write(my_conf, "design/broken", "# @package _global_\ndefaults: [{override /maps: nowhere}]\n")
    more = "  when: {machine.cpus: \"workload == 'filetree'\"}\n  exclude: [\"design == 'broken'\"]\n"
    plan = mine(my_conf, more, "design=freebsd4,broken")
    assert set(plan.cells["design"]) == {"freebsd4"}
    assert plan.excluded == 3


def test_cells_can_be_chosen_from_the_data_frame():
    plan = one("design=freebsd4,illumos", "machine.cpus=1,2")
    plan.cells = plan.cells[plan.cells["design"] == "illumos"]
    assert plan.columns["design"] == ["illumos", "illumos"]
    assert (plan.lanes, len(plan.rows), len(plan.axes)) == (2, 2, 2)
    assert [len(column) for column in plan.columns.values()] == [2] * len(plan.columns)


def test_zip(my_conf):
    plan = mine(my_conf, "  zip: [{machine.ram_bytes: [64MiB, 128MiB], machine.kva_bytes: [512MiB, 1GiB]}]\n")
    sizes = set(zip(plan.cells["ram_bytes"], plan.cells["kva_bytes"], strict=True))
    assert sizes == {(64 << 20, 512 << 20), (128 << 20, 1 << 30)}
    assert len(plan.cells) == 12


def test_zip_of_groups_and_values(my_conf):
    plan = mine(
        my_conf, "  zip: [{workload: [filetree, pgbench], seed: [1, 2]}]\n", "design=freebsd4", "machine.cpus=1"
    )
    assert [(c["workload"]["name"], c["seed"]) for c in configs(plan)] == [("filetree", 1), ("pgbench", 2)]


def test_parameter_of_an_allocator_that_serves_nothing_is_no_axis():
    plan = one("design=freebsd4,mail2003_bare", "objects.params.dfly_slab.release_threshold=2,4")
    assert [c["objects"]["params"] for c in configs(plan)] == [
        {}, {"dfly_slab": {"release_threshold": 2}}, {"dfly_slab": {"release_threshold": 4}}
    ]  # fmt: skip
    assert axis_rows(plan)[0] == {"design": "freebsd4"}


def test_axis_inside_a_list():
    plan = one("workload=server2003", "workload.phases.0.seconds=1,2")
    assert [c["workload"]["phases"][0]["seconds"] for c in configs(plan)] == [1, 2]
    with pytest.raises(ConfigError, match="no such key"):
        one("workload=server2003", "workload.phases.99.seconds=1,2")


def test_references_are_resolved_in_each_cell(my_conf):
    write(my_conf, "machine/roomy", "cpus: 2\nram_bytes: 67108864\nkva_bytes: 536870912\n")
    write(my_conf, "workload/as_many", "defaults: [filetree]\ncopies: ${machine.cpus}\n")
    plan = one("workload=as_many,pgbench", "machine=roomy", "machine.cpus=1,3", config_dir=str(my_conf))
    assert [c["workload"]["copies"] for c in configs(plan)][:2] == [1, 3]


@settings(
    max_examples=8,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a plan takes too long for shrinking
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.sampled_from(DESIGNS), min_size=1, max_size=2, unique=True),
    st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from([256, 512, 1024]), min_size=1, max_size=3, unique=True),
    st.integers(0, 1), st.integers(1, 6),
)  # fmt: skip
def test_plan_equals_the_filtered_product(my_conf, designs, cpus, kva, excluded, limit):
    design = designs[excluded % len(designs)]
    rule = f"design == '{design}' and machine.cpus > {limit}"
    write(my_conf, "sweep/any", f'exclude: ["{rule}"]\naxes:\n  design: {designs}\n  machine.cpus: {cpus}\n')
    product = list(itertools.product(designs, cpus, kva))
    expected = [(d, n, k << 20) for d, n, k in product if not (d == design and n > limit)]
    overrides = ["+sweep=any", "machine.kva_bytes=" + ",".join(f"{k}MiB" for k in kva)]
    overrides[1:] = overrides[1:] if len(kva) > 1 else [overrides[1]]
    if not expected:
        with pytest.raises(ConfigError, match="every combination is excluded"):
            one(*overrides, config_dir=str(my_conf))
        return
    plan = one(*overrides, config_dir=str(my_conf))
    assert list(zip(plan.cells["design"], plan.cells["cpus"], plan.cells["kva_bytes"], strict=True)) == expected
    assert plan.excluded == len(product) - len(expected)


def test_large_plan_is_sound():
    plan = one("design=freebsd4,dragonfly_2003oct", "machine.cpus=range(1,11)", "seed=range(200)")
    assert len(plan.cells) == 4000
    assert plan.cells["cell_key"].is_unique
    rows = plan.cells.sample(20, random_state=1)
    for key, text, axes in zip(rows["cell_key"], rows["config"], rows["axes"], strict=True):
        cell, values = json.loads(text), json.loads(axes)
        assert cell_key(cell) == key
        assert (cell["design"]["name"], cell["seed"]) == (values["design"], values["seed"])
        assert cell["machine"]["cpus"] == values["machine.cpus"]


# Notebooks.


def test_hydra_in_use_elsewhere_is_left_as_it_was(tmp_path):
    (tmp_path / "other.yaml").write_text("a: 1\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert len(one("seed=1,2").cells) == 2
        assert compose("other").a == 1
    assert not GlobalHydra.instance().is_initialized()
    assert len(one("seed=1,2").cells) == 2


def test_after_a_mistake_the_next_plan_works():
    with pytest.raises(ConfigError):
        one("seed=x")
    assert len(one().cells) == 1


def test_store_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert one("store.root=here").root == str(tmp_path / "here" / "adhoc")
    assert one("store.root=s3://bucket/run1").root == "s3://bucket/run1/adhoc"
    assert files.conf_dir().is_dir()


MISTAKES = [
    (["nonsense=1"], "nonsense"),
    (["machine.ncpu=1"], "ncpu"),
    (["machine.cpus=abc"], "machine.cpus"),
    (["machine.cpus=0"], "machine.cpus=0"),
    (["machine.cpus=1,0"], "machine.cpus=0"),
    (["machine.cpus=40000"], "machine.cpus=40000"),
    (["machine.ram_bytes=0"], "machine.ram_bytes"),
    (["machine.ram_bytes=4097"], "multiple of the page"),
    (["machine.kva_bytes=lots"], "machine.kva_bytes=lots"),
    (["machine.kva_bytes=16MiB"], "machine.kva_bytes=16MiB.*kmem_map"),
    (["machine.kva_bytes=1GiB,16MiB"], "machine.kva_bytes=16MiB"),
    (["design=freebsd9"], "(?s)freebsd9.*freebsd4_unified"),
    (["design=freebsd4,freebsd9"], "freebsd9.*did you mean freebsd4.*dragonfly_2003oct"),
    (["+sweep=nothing"], "(?s)nothing.*fragmentation"),
    (["sweep=smoke"], r"\+sweep=smoke"),
    (["~maps"], "maps"),
    (["~kva"], "kva"),
    (["maps.layout=both"], "maps.layout=both.*split, unified"),
    (["maps.arena=vm_mop"], "maps.arena=vm_mop.*did you mean vm_map"),
    (["objects.malloc=bucket"], "objects.malloc=bucket.*did you mean buckets"),
    (["objects.params.bucket.x=1"], "objects.params=bucket"),
    (["design=dragonfly_2003oct", "objects.params.dfly_slab.slides=1"], "did you mean slide.*zone_bytes"),
    (["design=dragonfly_2003oct", "objects.params.dfly_slab.slide=-1"], "dfly_slab.slide=-1"),
    (["design=dragonfly_2003oct", "objects.params.dfly_slab.slide=x"], "slide"),
    (["workload.rate=1"], "workload.rate"),
    (["workload.copies=0"], "workload.copies"),
    (["workload.trace=nowhere.parquet"], "nowhere.parquet"),
    (["sample.points=0"], "sample.points=0"),
    (["seed=-1"], "seed=-1"),
    (["sweep.reps.max=0"], "sweep.reps.max=0"),
    ([HELD, "sweep.reps.max=5"], "sweep.reps.max=5: must be at least sweep.reps.min=10"),
    ([HELD, "sweep.reps.max=20", "sweep.reps.min=4"], "sweep.reps.min=4: a pilot needs 10"),
    (["sweep.reps.max=20", "+sweep.reps.target.held_peak=1%"], "held_peak"),
    (["sweep.reps.max=20", "+sweep.reps.target.held_peak_bytes=1k"], "held_peak_bytes=1k: must be a number above 0"),
    ([HELD, "sweep.reps.max=20", "sweep.reps.looks=1"], "sweep.reps.looks"),
    ([HELD, "sweep.reps.max=20", "sweep.reps.budget.seconds=-1"], "sweep.reps.budget.seconds=-1"),
    (["sweep.reps.max=20", "+sweep.reps.select={metric: held_peak_bytes}"], "needs metric and delta"),
    ([HELD, "sweep.reps.max=20", "+sweep.reps.select={metric: x, delta: 1}"], "both target and select"),
    (["sweep.metrics=[holes]"], "sweep.metrics=holes"),
    (["sweep.metrics=[panic_count]"], "did you mean panics_count"),
    (["sweep.baseline={design: freebsd9}"], "sweep.baseline.design=freebsd9"),
    (["sweep.exclude=['machine.cpu > 1']"], "machine.cpu: unknown key"),
    (["sweep.exclude=['true']"], "every combination is excluded"),
    (["sweep.name='a/b'"], "sweep.name"),
    (["action=dance"], "action=dance.*validate"),
    (["on_error=panic"], "on_error=panic.*skip, stop"),
    (["max_failures=0"], "max_failures=0"),
    (["cluster=slurm"], "(?s)slurm.*serial"),
    (["cluster.runner=slurm"], "cluster.runner=slurm.*ray, serial"),
    (["cluster.address=nowhere"], "cluster.address=nowhere"),
    (["cluster.num_cpus=0"], "cluster.num_cpus=0"),
    (["store.root=''"], "store.root"),
    (["hydra.verbose=true,false"], "hydra.verbose"),
    (["design=3"], "Config group"),
    (["seed=1", "=x"], "=x"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "message"), MISTAKES, ids=[overrides[-1] for overrides, _ in MISTAKES])
def test_mistake(overrides, message):
    with pytest.raises(InputError, match=message):
        plan_from(overrides)


def test_a_cell_is_known_by_what_its_trace_holds(tmp_path, monkeypatch):
    text = resources.files("kmemexp.data.traces") / "filetree.parquet"
    trace = tmp_path / "my.parquet"
    trace.write_bytes(text.read_bytes())
    monkeypatch.chdir(tmp_path)
    asked = ["workload=filetree", "workload.trace=my.parquet"]
    (before,) = plan_from(asked)
    planned = json.loads(before.cells["config"].iloc[0])["workload"]
    assert planned["trace"] == str(trace)
    assert plan_from(asked)[0].cells["cell_key"].tolist() == before.cells["cell_key"].tolist()
    trace.write_bytes((resources.files("kmemexp.data.traces") / "pgbench.parquet").read_bytes())
    (after,) = plan_from(asked)
    assert after.cells["cell_key"].tolist() != before.cells["cell_key"].tolist()
    with pytest.raises(TraceError, match=r"my\.parquet: has changed since the sweep was planned"):
        build(planned, cpus=2, seed=0, replicas=[0])


def test_what_the_command_line_fixes_stands_among_the_axes():
    plan = one(
        "design=freebsd4,dragonfly_2003oct", "cost=opteron2003", "machine.kva_bytes=192MiB", "seed=3", "store.root=x",
        "interrupts/sources=stress", "workload.window_s=1", "workload=pgbench", "sweep.reps.max=2",
    )  # fmt: skip
    fixed = {
        "cost": "opteron2003", "interrupts/sources": "stress", "machine.kva_bytes": 192 << 20, "seed": 3,
        "workload": "pgbench", "workload.window_s": 1,
    }  # fmt: skip
    assert axis_rows(plan) == [{"design": d} | fixed for d in ("freebsd4", "dragonfly_2003oct")]
    assert set(plan.fixed) == set(fixed)


def test_what_is_fixed_by_reference_has_the_value_that_a_cell_has():
    plan = one("machine.cpus=1,2", "workload=pgbench", "workload.copies=${machine.cpus}")
    assert [(row["machine.cpus"], row["workload.copies"]) for row in axis_rows(plan)] == [(1, 1), (2, 2)]


def test_a_pattern_stands_for_the_designs_that_the_machine_runs():
    plan = one("design=glob(illumos*)", "workload=pgbench")
    assert plan.columns["design"] == ["illumos"]
    assert [note for note in plan.notes if "without illumos_amd64" in note]
    with pytest.raises(ConfigError, match="runs on amd64 only"):
        one("design=illumos,illumos_amd64", "workload=pgbench")


def test_vectors_of_memory_cgroups_are_refused_where_a_recording_has_them():
    given = ["design=linux_6_18", "machine=amd64_4g", "objects.params.slub.memcg=1"]
    with pytest.raises(ConfigError, match=r"objects\.params\.slub\.memcg=1: .*leave it 0 with workload=filetree"):
        plan_from([*given, "workload=filetree"])
    plan_from([*given, "workload=fork_storm"])


def test_a_pattern_stands_for_all_where_the_sweep_names_the_machines(my_conf):
    write(my_conf, "sweep/two", "# @package _global_\nsweep: {axes: {machine: [amd64_4g, amd64_64g]}}\n")
    plan = one("+sweep=two", "design=glob([freebsd15,linux_6_18])", "workload=pgbench", config_dir=str(my_conf))
    assert set(plan.columns["design"]) == {"freebsd15", "linux_6_18"}
    assert plan.notes == []


def test_an_axis_that_a_restriction_leaves_in_no_cell_keeps_its_place():
    """At other rates than 1000/s no cell of this sweep has a clock that allocates."""
    plan = one("+sweep=deadlock", "machine.cpus=2", "interrupts.rate_hz=3000")
    assert {row["interrupts.clock_allocates"] for row in axis_rows(plan)} == {False}


def test_each_grid_without_a_sweep_file_has_a_folder_of_its_own():
    names = [
        one(*words).name
        for words in (
            ("design=freebsd4,dragonfly_2003oct", "machine.kva_bytes=192MiB"),
            ("machine.kva_bytes=201326592", "design=dragonfly_2003oct,freebsd4", "cluster=serial", "sweep.reps.max=3"),
            ("design=freebsd4,dragonfly_2003oct", "machine.kva_bytes=256MiB"),
            ("design=freebsd4,dragonfly_2003oct",),
        )
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert all(re.fullmatch("adhoc-[0-9a-f]{8}", name) for name in names)
    plan = one("design=freebsd4,dragonfly_2003oct", "store.root=here")
    assert Path(plan.pool) == Path("here/adhoc").absolute()
    assert one("design=freebsd4,dragonfly_2003oct", "sweep.name=mine").name == "mine"


def test_a_machine_of_the_command_line_is_a_whole_one():
    """What a sweep's file says of its own machine is not left over in it."""
    whole = {"arch": "amd64", "cpus": 4, "threads": 4, "domains": 1, "ram_bytes": 4 << 30, "kva_bytes": 128 << 40}
    given = ["+sweep=designs", "design=linux_6_18", "workload=pgbench"]
    assert [cell["machine"] for cell in configs(one(*given, "machine=amd64_4g"))] == [whole]
    (cell,) = configs(one(*given, "machine=amd64_4g", "machine.cpus=2"))
    assert cell["machine"] == whole | {"cpus": 2}
    both = configs(one(*given, "machine=amd64_4g,amd64_64g"))
    assert [cell["machine"]["ram_bytes"] for cell in both] == [4 << 30, 64 << 30]
    assert configs(one(*given))[0]["machine"]["ram_bytes"] == 128 << 20


def test_machines_among_the_axes_of_a_sweep_have_what_the_sweep_says(my_conf):
    text = "# @package _global_\nmachine: {cpus: 2}\nsweep: {axes: {machine: [amd64_4g, amd64_64g]}}\n"
    write(my_conf, "sweep/mine", text)
    plan = one("+sweep=mine", "design=linux_6_18", "workload=pgbench", config_dir=str(my_conf))
    assert [cell["machine"]["cpus"] for cell in configs(plan)] == [2, 2]


def test_designs_that_a_machine_is_too_large_for_are_refused_by_name():
    given = ["+sweep=designs", "machine=amd64_64g", "workload=pgbench"]
    with pytest.raises(ConfigError, match=r"8TiB at most.*\n\(refused: design=freebsd4, mail2003; 'design=glob"):
        one(*given, "design=freebsd4,linux_6_18,mail2003")
    with pytest.raises(ConfigError, match="8TiB at most") as told:
        one(*given, "design=freebsd4")
    assert "refused" not in str(told.value)
    plan = one(*given, "design=glob(*)")
    runs = {"dragonfly_2020", "dragonfly_2021", "freebsd15", "illumos_amd64"}
    assert set(plan.columns["design"]) == runs | {"linux_6_12", "linux_6_18", "linux_7_1", "linux_slub"}
    assert set(plan.columns["kva_bytes"]) == {128 << 40}
    assert any("without" in note and "freebsd4," in note and "8TiB at most" in note for note in plan.notes)
    plan = one("+sweep=designs", "machine=arm64_16g", "workload=pgbench", "design=glob(*)")
    assert set(plan.columns["design"]) == {"linux_6_12", "linux_6_18", "linux_7_1", "linux_slub"}
    with pytest.raises(ConfigError, match=r"direct_map .*\n\(refused: design=linux_6_18\)"):
        one("machine=i386_2g", "workload=pgbench", "design=freebsd4,linux_6_18")
    plan = one("+sweep=fragmentation", "design=glob(illumos*)", "workload=pgbench")
    assert set(plan.columns["design"]) == {"illumos"}
