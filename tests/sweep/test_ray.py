"""Ray: the same rows as in this process, whatever happens to workers, nodes and the driver."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import sweep_fakes

from kmemexp.errors import InputError
from kmemexp.planning.plan import Plan
from kmemexp.store.schema import FAILED, SCHEMAS
from kmemexp.store.store import Store
from kmemexp.sweep.execute import execute
from kmemexp.sweep.runners import Runner

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
WORKER_PATH = os.pathsep.join([str(TESTS.parent), str(TESTS)])


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray of two CPUs, for all tests of this file that do not need one of their own."""
    from kmemexp.sweep.runners import ray_runner

    ray = ray_runner.ray
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False,
        logging_level="ERROR", runtime_env={"env_vars": {"PYTHONPATH": WORKER_PATH}},
    )  # fmt: skip
    yield
    ray.shutdown()


def make_plan(root: Path, configs: list[dict], **cluster) -> Plan:
    return sweep_fakes.make_plan(root, configs, replicas=3, cluster={"runner": "ray"} | cluster)


def tables(root: Path) -> dict:
    return {table: Store(str(root)).read(table) for table in SCHEMAS}


def same(one: dict, two: dict) -> bool:
    return all(one[table].equals(two[table]) for table in SCHEMAS)


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


@pytest.mark.parametrize("cpus", [1, 2])
def test_ray_gives_the_rows_that_this_process_gives(tmp_path: Path, local_ray: None, cpus: int) -> None:
    configs = [{}] * 6 + [{"fail": [1]}] + [{}]
    execute(make_plan(tmp_path / "serial", configs, runner="serial"), progress=False)
    outcome = execute(make_plan(tmp_path / "ray", configs, num_cpus=cpus), progress=False)
    assert outcome[:4] == (23, 1, 0, False)
    assert same(tables(tmp_path / "ray"), tables(tmp_path / "serial"))


def test_a_worker_that_dies_once_costs_no_row_and_ray_is_not_heard(
    tmp_path: Path, local_ray: None, capfd: pytest.CaptureFixture
) -> None:
    from kmemexp.sweep.runners import ray_log

    configs = [{}] * 5 + [{"kill_once": str(tmp_path / "killed")}]
    with ray_log.logged(str(tmp_path / "r")):  # which a Ray of its own has around it
        outcome = execute(make_plan(tmp_path / "r", configs), progress=False)
        wait_for((tmp_path / "r" / ray_log.NAME).exists)
    assert "A worker died" in (tmp_path / "r" / ray_log.NAME).read_text()
    assert capfd.readouterr() == ("", "")
    assert outcome[:4] == (18, 0, 0, False)
    assert (tmp_path / "killed").exists()
    assert len(pd.read_parquet(tmp_path / "r")) == 18


def test_the_lane_that_kills_every_worker_is_a_failed_row(tmp_path: Path, local_ray: None) -> None:
    outcome = execute(make_plan(tmp_path, [{}, {"poison": [2]}], batch_s=100.0), progress=False)
    assert outcome[:4] == (5, 1, 0, False)
    df = pd.read_parquet(tmp_path)
    (row,) = df[df.status == FAILED].to_dict("records")
    assert (int(row["cell_key"], 16), row["replica"]) == (1, 2)
    assert row["error"].startswith("WorkerCrashedError: the worker died")


@pytest.mark.parametrize("hows", [["vanish", "exit", "interrupt"],
                                  ["wild write", "hog", "loop in Python", "loop in a kernel"]])  # fmt: skip
def test_whatever_a_cell_does_it_is_a_failed_row_and_the_others_go_on(
    tmp_path: Path, local_ray: None, hows: list[str]
) -> None:
    configs = [{}, {}, *({"poison": [1], "how": how} for how in hows), {}]
    plan = make_plan(tmp_path / "ray", configs)
    plan.limits = {"seconds": 1.5, "memory": 300 << 20}
    assert execute(plan, progress=False)[:4] == (3 * len(configs) - len(hows), len(hows), 0, False)
    df = pd.read_parquet(tmp_path / "ray")
    failed = df[df.status == FAILED].sort_values("cell_key")
    assert [(int(key, 16), replica) for key, replica in zip(failed.cell_key, failed.replica, strict=True)] == [
        (2 + i, 1) for i in range(len(hows))
    ]
    wanted = {
        "vanish": "WorkerCrashedError", "exit": "SystemExit: 3", "interrupt": "KeyboardInterrupt: in a cell",
        "wild write": "WorkerCrashedError", "hog": "LimitError: it took more than limits.memory=300MiB",
        "loop in Python": "LimitError: it took more than limits.seconds=1.5 s",
        "loop in a kernel": "LimitError: it took more than limits.seconds=1.5 s",
    }  # fmt: skip
    for error, how in zip(failed.error, hows, strict=True):
        assert error.startswith(wanted[how])
    execute(make_plan(tmp_path / "serial", [c if "how" not in c else c | {"poison": []} for c in configs],
                      runner="serial"), progress=False)  # fmt: skip
    healthy = Store(str(tmp_path / "serial")).read("series").to_pandas()
    gone = set(zip(failed.cell_key, failed.replica, strict=True))
    healthy = healthy[[(k, r) not in gone for k, r in zip(healthy.cell_key, healthy.replica, strict=True)]]
    assert Store(str(tmp_path / "ray")).read("series").to_pandas().equals(healthy.reset_index(drop=True))


def test_what_a_worker_raises_outside_a_cell_ends_the_run(tmp_path: Path, local_ray: None) -> None:
    plan = make_plan(tmp_path, [{}])
    plan.simulate = "sweep_fakes:no_such_function"
    with pytest.raises(AttributeError, match="no_such_function"):
        execute(plan, progress=False)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_explained(
    tmp_path: Path, address: str, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kmemexp.sweep.runners import ray_runner

    monkeypatch.setattr(ray_runner.ray, "is_initialized", lambda: False)
    with pytest.raises(InputError, match=rf"no Ray cluster at cluster.address={address}.*ray start --head"):
        execute(make_plan(tmp_path, [{}], address=address), progress=False)


def test_a_ray_that_does_not_start_is_explained_whatever_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is too busy it raises Exception itself."""
    from kmemexp.sweep.runners import ray_runner

    def late(**_: object) -> None:
        raise Exception("The current node timed out during startup. This could happen")

    monkeypatch.setattr(ray_runner.ray, "init", late)
    monkeypatch.setattr(ray_runner.ray, "shutdown", lambda: None)
    with pytest.raises(InputError, match=r"Ray does not start on this machine: The current node timed out.*serial"):
        ray_runner._connect("local", 1, {})


def test_the_runner_has_the_methods_of_the_protocol() -> None:
    from kmemexp.sweep.runners import ray_runner

    assert {name for name in vars(Runner) if not name.startswith("_")} <= set(dir(ray_runner.Runner))


def test_nothing_heavy_is_imported_and_ray_is_told_its_settings_first() -> None:
    code = """
import os, sys
import kmemexp.sweep.worker
print(sorted({"pandas", "scipy", "hydra", "rich", "ray"} & set(sys.modules)))
import kmemexp.sweep.execute
print("ray" in sys.modules)
import kmemexp.sweep.runners.ray_runner
print(os.environ["RAY_USAGE_STATS_ENABLED"])
"""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    shown = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["[]", "False", "0"]


# With a Ray of their own, in a process of their own.

SCRIPT = """
import json, sys
from sweep_fakes import make_plan
from kmemexp.sweep.execute import execute
given = json.loads(sys.argv[1])
def run(root):
    print(json.dumps(execute(make_plan(root, given["configs"], replicas=3, cluster=given["cluster"]))))
run(given["root"])
"""
TWICE = SCRIPT + 'run(given["root"] + "-next")'
"""A second sweep of the same process starts a second Ray."""


def start(root: Path, configs: list[dict], script: str = SCRIPT, **cluster) -> subprocess.Popen:
    """A driver, in a home where no Ray has left its token yet."""
    given = {"configs": configs, "root": str(root), "cluster": {"runner": "ray"} | cluster}
    environ = os.environ | {"PYTHONPATH": WORKER_PATH, "KMEMEXP_TEST_MARK": str(root), "HOME": str(root.parent)}
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        environ.pop(name, None)
    return subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(given)],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> tuple[str, str]:
    """Output and errors; a process that does not end is killed."""
    try:
        return process.communicate(timeout=120)
    finally:
        process.kill()


def marked(root: Path) -> list[str]:
    """Processes that are descended from the one started for this folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"KMEMEXP_TEST_MARK={root}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "comm").read_text().strip())
        except OSError:  # gone, or not ours
            continue
    return found


def test_ctrl_c_in_the_terminal_drains_and_leaves_no_process(tmp_path: Path) -> None:
    """SIGINT reaches the whole process group, as from a terminal; workers must go on with what they do."""
    gate, root = tmp_path / "gate", tmp_path / "r"
    gate.mkdir()
    configs = [{"gate": str(gate)}] * 12
    driver = start(root, configs, address="local", num_cpus=2, window=2, batch_s=0.6)
    wait_for(lambda: list(gate.iterdir()) or driver.poll() is not None)
    os.killpg(driver.pid, signal.SIGINT)
    assert any("stopping when" in line for line in iter(driver.stderr.readline, ""))
    (gate / "go").touch()
    out, err = finish(driver)
    done, failed, skipped, interrupted, *_ = json.loads(out)
    assert (failed, skipped, interrupted) == (0, 0, True), err
    assert 0 < done < 36
    assert len(pd.read_parquet(root)) == done
    assert "To go on from there" in err
    wait_for(lambda: not marked(root))
    execute(make_plan(root, configs, runner="serial"), progress=False)
    execute(make_plan(tmp_path / "whole", configs, runner="serial"), progress=False)
    assert same(tables(root), tables(tmp_path / "whole"))


def listening(root: Path) -> dict[str, list[str]]:
    """Addresses, in hexadecimal, on which processes descended from the one for this folder listen; by process."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                sockets[f"socket:[{fields[9]}]"] = fields[1].partition(":")[0]
    found: dict[str, list[str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"KMEMEXP_TEST_MARK={root}".encode() not in (folder / "environ").read_bytes():
                continue
            links = [str(fd.readlink()) for fd in (folder / "fd").iterdir()]
            name = f"{(folder / 'comm').read_text().strip()} {folder.name}"
        except OSError:
            continue
        found[name] = [sockets[link] for link in links if link in sockets]
    return found


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def ours_alone(root: Path) -> None:
    """Check that the Ray of a driver listens on loopback only, and asks for a token."""
    found = listening(root)
    assert sum(map(bool, found.values())) >= 3, found
    assert {address for addresses in found.values() for address in addresses} <= LOOPBACK, found
    raylet = next(name.split()[-1] for name in found if name.startswith("raylet"))
    environ = Path("/proc", raylet, "environ").read_bytes()
    assert b"RAY_AUTH_MODE=token" in environ
    assert len(environ.partition(b"RAY_AUTH_TOKEN=")[2].partition(b"\0")[0]) == 64


def test_a_scheduler_drains_a_run_on_a_ray_of_our_own_and_nothing_is_left(tmp_path: Path) -> None:
    """SIGHUP here; SIGTERM goes the same way and is sent to a run in one process (test_execute.py).

    The same process runs another sweep, whose Ray lets it in as well.
    """
    gate, root = tmp_path / "gate", tmp_path / "r"
    gate.mkdir()
    driver = start(root, [{"gate": str(gate)}] * 12, TWICE, address="local", num_cpus=2, window=2, batch_s=0.6)
    wait_for(lambda: list(gate.iterdir()) or driver.poll() is not None)
    ours_alone(root)
    driver.send_signal(signal.SIGHUP)
    assert any("stopping when" in line for line in iter(driver.stderr.readline, ""))
    (gate / "go").touch()
    out, err = finish(driver)
    (done, failed, skipped, interrupted, _, _, by), following = map(json.loads, out.splitlines())
    assert (failed, skipped, interrupted, by) == (0, 0, True, signal.SIGHUP), err
    assert 0 < done < 36
    assert following[:4] == [36, 0, 0, False], err
    assert not any(word in err for word in ("***", "stack", "Traceback")), err
    wait_for(lambda: not marked(root))
    assert not list((root / "_writers").iterdir())
    assert not list(Path(tempfile.gettempdir(), f"kray-{os.getuid()}").glob(f"{driver.pid}-*"))


NODES = """
import json, sys, threading, pathlib
from ray.cluster_utils import Cluster
from sweep_fakes import make_plan
from kmemexp.sweep.execute import execute
given = json.loads(sys.argv[1])
gate, nodes = pathlib.Path(given["configs"][0]["gate"]), given["configs"][0]["nodes"]
small = {"num_cpus": 1, "object_store_memory": 80 << 20}
cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
last = [cluster.add_node(**small) for _ in range(nodes - 1)][-1]

def lose_a_node():
    while not len(list(gate.iterdir())) >= nodes:  # a lane in work on each node
        threading.Event().wait(0.05)
    cluster.remove_node(last, allow_graceful=False)
    (gate / "go").touch()

thread = threading.Thread(target=lose_a_node)
thread.start()
given["cluster"]["address"] = cluster.address
plan = make_plan(given["root"], given["configs"], replicas=3, cluster=given["cluster"])
print(json.dumps(execute(plan)))
thread.join()
cluster.shutdown()
"""


@pytest.mark.parametrize("nodes", [2, 3])
def test_a_cluster_survives_the_loss_of_a_node(nodes: int, tmp_path: Path) -> None:
    gate, root = tmp_path / "gate", tmp_path / "r"
    gate.mkdir()
    configs = [{"gate": str(gate), "nodes": nodes}] * 8
    driver = start(root, configs, NODES, batch_s=0.6)
    out, err = finish(driver)
    assert driver.returncode == 0, err
    assert json.loads(out.splitlines()[-1])[:4] == [24, 0, 0, False], err
    execute(make_plan(tmp_path / "whole", configs, runner="serial"), progress=False)
    assert same(tables(root), tables(tmp_path / "whole"))
    wait_for(lambda: not marked(root))
