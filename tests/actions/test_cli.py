"""The command line: the commands that a Hydra user expects, exit codes, mistakes, and silence on disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import call

import kmemexp
from kmemexp import cli
from kmemexp.sweep import execute
from kmemexp.sweep.execute import Outcome

ROOT = Path(kmemexp.__file__).parents[1]
PATHS = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize(
    ("words", "sizes"),
    [
        (["+sweep=smoke"], [2]),
        (["-m", "+sweep=smoke"], [2]),
        (["+sweep=smoke", "--multirun"], [2]),
        (["+sweep=smoke", "design=dragonfly_2003oct"], [1]),
        (["+sweep=smoke", "design=dragonfly_2003oct,freebsd4", "machine.cpus=range(1,9)"], [16]),
        (["+sweep=smoke", "design=glob(freebsd4*,exclude=freebsd4)"], [1]),
        (["+sweep=smoke,smoke"], [2, 2]),
        (["+sweep=smoke", "workload=filetree", "workload.copies=1"], [2]),
        (["design=freebsd4"], [1]),
        (["design=freebsd4,dragonfly_2003oct", "seed=range(5)"], [10]),
        (["maps=split,unified"], [2]),
        (["cluster.address=auto", "cluster.num_cpus=2", "design=freebsd4"], [1]),
        (["cluster.address=ray://127.0.0.1:10001"], [1]),
        (["cluster=serial"], [1]),
        (["store.root=s3://bucket/run1"], [1]),
        (["+sweep=smoke", "sweep.reps.max=16", "seed=7"], [2]),
        (["hydra.mode=RUN", "+sweep=smoke"], [2]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_commands(words, sizes, runs, here, monkeypatch):
    assert call(monkeypatch, *words) == 0
    assert [len(plan.cells) for plan in runs] == sizes
    assert runs.reported == tuple(plan.name for plan in runs)
    assert list(here.iterdir()) == []  # no outputs/, no logs


def test_user_folder(runs, here, monkeypatch):
    folder = here / "my"
    (folder / "sweep").mkdir(parents=True)
    (folder / "sweep" / "mine.yaml").write_text("axes: {seed: 'range(3)'}\n")
    assert call(monkeypatch, "--config-dir", str(folder), "+sweep=mine") == 0
    assert call(monkeypatch, f"hydra.searchpath=['file://{folder}']", "+sweep=mine") == 0
    assert [(plan.name, len(plan.cells)) for plan in runs] == [("mine", 3)] * 2


def test_settings_reach_the_plan(runs, monkeypatch):
    call(monkeypatch, "+sweep=smoke", "cluster=serial", "sweep.reps.max=5", "retry_failed=true", "max_failures=3",
         "store.root=/somewhere")  # fmt: skip
    (plan,) = runs
    assert (plan.replicas, plan.retry_failed, plan.max_failures, plan.root) == (5, True, 3, "/somewhere/smoke")
    assert plan.cluster["runner"] == "serial"


@pytest.mark.parametrize(
    ("outcome", "code"),
    [((2, 0, False), 0), ((1, 1, False), 2), ((1, 0, True), 130), ((1, 1, True), 130)],
)
def test_exit_codes(outcome, code, runs, monkeypatch):
    done, failed, interrupted = outcome
    outcome = runs.outcome = Outcome(done, failed, 0, interrupted, 1.0, "", 2 * interrupted)
    assert call(monkeypatch, "design=freebsd4") == code
    assert bool(runs.reported) is not outcome.interrupted


def test_flags_set_what_they_stand_for(runs, monkeypatch):
    assert call(monkeypatch, "+sweep=smoke", "--verbose") == 0
    assert call(monkeypatch, "+sweep=smoke", "--quiet") == 0
    assert [(p.tables, p.output, p.progress) for p in runs] == [("all", "text", True), ("answer", "quiet", False)]


def test_a_second_ctrl_c_ends_with_130(runs, monkeypatch):
    def interrupt(plan, *, progress=None, elsewhere=()):
        raise KeyboardInterrupt

    monkeypatch.setattr(execute, "execute", interrupt)
    assert call(monkeypatch, "design=freebsd4") == 130


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["machine.cpus=0"], "machine.cpus=0"),
        (["machine.ncpu=1"], "machine.ncpu"),
        (["design=freebsd4,dragonfly_2003oct", "machine.ncpu=1"], "machine.ncpu"),
        (["machine.ncpu=1,2"], "machine.ncpu"),
        (["desing=freebsd4"], "desing: unknown key (did you mean design?)"),
        (["cpus=4"], "cpus: unknown key (did you mean machine.cpus?)"),
        (["results=elsewhere"], "did you mean store.root?"),
        (["sweep.rep.max=3"], "sweep.rep: unknown key (did you mean reps?)"),
        (["design.objects.zone=slub"], "did you mean objects?"),
        (["workload.coppies=2"], "workload.coppies: unknown key (did you mean copies?)"),
        (["+sweep=smoke", "~kva"], "kva"),
        (["+sweep=nothing"], "fragmentation"),
        (["design=freebsd9"], "dragonfly_2003oct"),
        (["machine.kva_bytes=1MiB"], "machine.kva_bytes"),
        (["hydra.job.name=a,b"], "hydra.job.name"),
        (["--config-dir", "/nowhere"], "/nowhere"),
        (["design=3"], "Config group"),
        (["seed=range(3"], "range(3"),
        (["--run", "+sweep=smoke"], "--run: a sweep is always a multirun"),
        (["-x"], "-x: unknown option"),
        (["action=report"], "no results"),
        (["action=compact"], "no results"),
        (["action=export"], "no results"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_message(words, names, runs, here, monkeypatch, capsys):
    assert call(monkeypatch, *words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("error: ") == 1
    assert names in err
    assert "Traceback" not in err
    assert runs == []
    assert list(here.iterdir()) == []


def test_full_error_on_request(runs, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match=r"machine\.cpus=0"):
        cli.main(["machine.cpus=0"])


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("kmemexp objects.params.", {"objects.params.buckets.", "objects.params.zalloc.", "objects.params.mbuf."}),
        ("kmemexp design=illumos objects.params.i", {"objects.params.illumos_kmem."}),
        ("kmemexp design=illumos objects.params.illumos_kmem.max", {"objects.params.illumos_kmem.max_cached="}),
        ("kmemexp design=dragonfly_2003oct,mail2003 objects.params.dfly_slab.release_threshold=",
         {"objects.params.dfly_slab.release_threshold=2"}),
        ("kmemexp maps.params.vm", {"maps.params.vm_map."}),
        ("kmemexp machine.cp", {"machine.cpus="}),
        ("kmemexp +sweep=frag", {"+sweep=fragmentation"}),
    ],
)  # fmt: skip
def test_the_tab_key_offers_keys_and_parameters_of_the_parts_chosen(line, offered, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", line)
    assert call(monkeypatch, "-sc", "query=bash") == 0
    assert set(capsys.readouterr().out.split()) == offered


def test_completion_is_refused_for_a_shell_that_there_is_not(monkeypatch, capsys):
    assert call(monkeypatch, "-sc", "install=ksh") == 1
    assert "No completion plugin for 'ksh'" in capsys.readouterr().err


# The real process.


def shell(*words, cwd, **env):
    environment = os.environ | PATHS | env
    return subprocess.run(
        [sys.executable, "-m", "kmemexp", *words],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_plan_in_a_process_of_its_own(tmp_path):
    run = shell("+sweep=smoke", "action=plan", "machine.cpus=1,2", cwd=tmp_path, COLUMNS="200")
    assert (run.returncode, run.stderr) == (0, "")
    assert "first 4 of 4 cells" in run.stdout
    assert str(tmp_path / "results" / "smoke") in run.stdout.replace("\n", "")
    assert list(tmp_path.iterdir()) == []


def test_mistake_in_a_process_of_its_own(tmp_path):
    run = shell("machine.cpus=0", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("error: machine.cpus=0")


def test_help_teaches(tmp_path):
    run = shell("--help", cwd=tmp_path)
    assert run.returncode == 0
    for word in (
        "+sweep=fragmentation",
        "action=plan",
        "dragonfly_2003aug25",
        "machine: ",
        "130",
        "--config-dir",
        "zip",
    ):
        assert word in run.stdout
    assert "$APP" not in run.stdout


@pytest.mark.parametrize(
    ("words", "shows"),
    [
        (["--cfg", "job", "-p", "sweep", "+sweep=smoke"], "reps:"),
        (["--cfg", "job", "-p", "machine", "+sweep=designs", "machine=amd64_4g"], "kva_bytes: 128TiB"),
        (["--cfg", "job", "design=freebsd4,dragonfly_2003oct"], "# varies: design=freebsd4,dragonfly_2003oct"),
        (["--info", "defaults-tree"], "override"),
        (["--info", "searchpath"], "Search path"),
        (["--version"], f"kmemexp {kmemexp.__version__}"),
    ],
)
def test_stock_flags(words, shows, tmp_path):
    run = shell(*words, cwd=tmp_path)
    assert run.returncode == 0
    assert shows in run.stdout or "design: freebsd4" in run.stdout


@pytest.mark.parametrize("words", ["action=metrics", "+sweep=smoke action=plan", "--cfg job"])
def test_a_reader_that_leaves_early_is_no_error(words, tmp_path):
    line = f"{sys.executable} -m kmemexp {words} | head -n 1"
    run = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=os.environ | PATHS, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout
    assert "\x1b" not in run.stdout


def test_planning_imports_nothing_that_takes_long(tmp_path):
    code = (
        "import sys; from kmemexp.cli import main; assert main(['+sweep=smoke', 'action=plan']) == 0;"
        "found = {'ray', 'numba', 'scipy', 'pandas', 'pyarrow'} & set(sys.modules); assert not found, found"
    )
    environment = os.environ | PATHS
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_what_a_configuration_says_is_not_obeyed_by_the_terminal(here, monkeypatch, capsys):
    folder = here / "my"
    (folder / "sweep").mkdir(parents=True)
    (folder / "workload").mkdir()
    sweep = folder / "sweep" / "evil.yaml"
    sweep.write_text('description: "a\\e[31mb [bold]c"\naxes: {design: [freebsd4]}\n')
    assert call(monkeypatch, "--config-dir", str(folder), "+sweep=evil", "action=plan") == 0
    shown = capsys.readouterr().out
    assert "\x1b[31m" not in shown
    assert "a\\x1b[31mb [bold]c" in shown
    assert call(monkeypatch, "--config-dir", str(folder), "design=\x1b[31m", "action=plan") == 1
    assert "\x1b" not in capsys.readouterr().err
    (folder / "workload" / "evil.yaml").write_text('defaults: [filetree]\nname: "x\\e]0;y\\a"\n')
    assert call(monkeypatch, "--config-dir", str(folder), "workload=evil", "action=plan") == 1
    assert "control character" in capsys.readouterr().err


def test_yaml_tags_are_refused_with_the_line(here, monkeypatch, capsys):
    (here / "my" / "sweep").mkdir(parents=True)
    mark = here / "executed"
    (here / "my" / "sweep" / "evil.yaml").write_text(
        f"description: x\naxes: !!python/object/apply:pathlib.Path.touch [{mark}]\n"
    )
    assert call(monkeypatch, "--config-dir", str(here / "my"), "+sweep=evil", "action=plan") == 1
    said = capsys.readouterr().err
    assert "line 2" in said
    assert "Tags" in said
    assert not mark.exists()
