"""Experiments: finding them, running their sweeps, verdicts on the terminal and on disk, what is said without them."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

import kmemexp
from kmemexp.sweep import execute
from kmemexp.sweep.execute import Outcome

sys.path.append(str(Path(__file__).parents[1] / "report"))
import report_fakes as fakes

from kmemexp import cli
from kmemexp.claims import finding, fragility, judging, protocol, request, writing
from kmemexp.config import files
from kmemexp.errors import ConfigError
from kmemexp.planning.plan import plan_from
from kmemexp.report import results

SMALL = '''"""C9: slabs hold less memory.

Question and method.
"""
import altair as alt
import pandas as pd
from kmemexp.claims.judging import Report, Verdict, change, pick
from kmemexp.claims.protocol import Protocol

CLAIM = "C9"
SWEEPS = ("smoke",)
PROTOCOL = Protocol(
    judged=("held_peak_bytes",), family="one comparison", replicas={"smoke": 3},
    confirm={"smoke": ["workload.scale=0.1"]},
)
DEFAULT = {"smoke": ["sweep.reps.max=3"]}
FULL = {"smoke": ["sweep.reps.max=9"]}

def analyse(results):
    table = results["smoke"].compare("freebsd4", metrics=["held_peak_bytes"], judged=PROTOCOL.judged)
    row = pick(table, "held_peak_bytes", design="dragonfly_2003oct")
    word = {"better": "holds", "worse": "fails"}.get(row["verdict"], "inconclusive")
    verdict = Verdict(CLAIM, word, "smoke | all", "held " + change(row, "MiB", 2**20), row["diff"])
    figures = table[["design", "mean"]]
    chart = alt.Chart(pd.DataFrame({"x": [1]})).mark_point().encode(x=alt.X("x", title="MiB"))
    return Report("It came out so.", [verdict], {"figures": figures}, {"dots": chart})
'''
PLAIN = SMALL.replace(', {"dots": chart})', ")")
BROKEN = SMALL.replace("C9:", "C8:").replace('design="dragonfly_2003oct"', 'design="dragonfly_slob"')


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty current directory, with experiments of its own beside it; smoke has one replica more than it needs."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "its_experiments"
    home.mkdir()
    (home / "small.py").write_text(SMALL)
    (home / "broken.py").write_text(BROKEN)
    (home / "_helper.py").write_text("")
    monkeypatch.setattr(finding, "folder", lambda: home)
    finding.load.cache_clear()
    yield tmp_path
    finding.load.cache_clear()


@pytest.fixture
def runs(here, monkeypatch) -> list:
    """Plans that were run, in place of running them: made-up results are written for them."""

    class Runs(list):
        failed: tuple = ()  # (cell number, replica)
        interrupted = False

    seen = Runs()

    def fake(plan, *, progress=None, elsewhere=()):
        seen.append(plan)
        if seen.interrupted:
            return Outcome(0, 0, 0, True, 0.1, plan.root, 2)
        cells = [{"design": name, "workload": "server2003", "workload.scale": 0.05} for name in plan.cells["design"]]
        table = fakes.metrics_table(cells, plan.replicas, seen.failed)
        keys = dict(zip((f"{n:032x}" for n in range(len(cells))), plan.cells["cell_key"], strict=True))
        column = [keys[key] for key in table["cell_key"].to_pylist()]
        fakes.write(Path(plan.root), table.set_column(0, table.schema.field(0), [column]))
        return Outcome(table.num_rows, len(seen.failed), 0, False, 0.1, plan.root)

    monkeypatch.setattr(execute, "execute", fake)
    return seen


def test_every_experiment_in_the_checkout_is_sound():
    options = set((files.conf_dir() / "experiment").glob("*.yaml"))
    assert {path.stem for path in options} >= {"all", "c1_deadlock", "c2_latency", "c3_fast", "c4_headroom", "c7_slab"}
    for name in finding.names():
        module = finding.load(name)
        assert finding.title(module).startswith(f"{module.CLAIM}:") or not module.CLAIM.startswith("C")
        for size in request.SIZES:
            assert finding.sweeps(module, size)


def test_unknown_names_are_one_message_that_lists_what_there_is(runs, capsys):
    assert cli.main(["+experiment=c4_hedroom"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "c4_headroom" in message
    assert cli.main(["+experiment=all", "experiment.size=huge"]) == 1
    assert "full" in capsys.readouterr().err
    assert cli.main(["experiment.size=full"]) == 1
    assert "+experiment=NAME is missing" in capsys.readouterr().err
    assert cli.main(["+experiment=all", "+sweep=smoke"]) == 1
    assert "without +sweep" in capsys.readouterr().err
    assert runs == []


def test_a_name_without_its_file_lists_the_files(here, capsys):
    assert cli.main(["+experiment=c4_headroom"]) == 1
    assert "small" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('"""No analysis."""\nCLAIM, SWEEPS = "C1", ("smoke",)\n', "analyse"),
        (SMALL.replace('DEFAULT = {"smoke"', 'DEFAULT = {"smok"'), "smok"),
    ],
)
def test_a_file_that_is_no_experiment_is_named(here, text, says, capsys):
    (here / "its_experiments" / "broken.py").write_text(text)
    assert cli.main(["+experiment=all", "action=plan"]) == 1
    message = capsys.readouterr().err
    assert "broken.py" in message
    assert says in message


@pytest.fixture
def only_small(here):
    (here / "its_experiments" / "broken.py").unlink()


def test_verdicts_tables_and_charts(runs, only_small, here, capsys):
    assert cli.main(["+experiment=all", "experiment.publish=pictures", "seed=5"]) == 0
    shown = capsys.readouterr().out
    for text in ("C9: slabs hold less memory.", "holds", "smoke | all", "MiB", "It came out so."):
        assert text in shown
    assert "baseline" not in shown
    assert [(plan.name, plan.replicas) for plan in runs] == [("smoke", 3)]
    home = here / "results" / "_experiments"
    names = {"verdicts.csv", "verdicts.md", "figures.csv", "figures.md", "dots.svg", "dots.png"}
    assert {path.name for path in (home / "small").iterdir()} == names
    row = pd.read_csv(home / "small" / "verdicts.csv").iloc[0]
    assert (row["claim"], row["verdict"]) == ("C9", "holds")
    assert row["effect"] < 0
    assert r"| C9 | holds | smoke \| all |" in (home / "verdicts.md").read_text()
    assert pd.read_csv(home / "verdicts.csv")["experiment"].tolist() == ["small"]
    assert {path.name for path in (here / "pictures").iterdir()} == {
        "small_verdicts.csv", "small_verdicts.md", "small_figures.md", "small_dots.svg",
    }  # fmt: skip
    assert "<text" in (here / "pictures" / "small_dots.svg").read_text()


def test_a_sweep_runs_once_for_all_experiments(runs, here):
    cli.main(["+experiment=all"])
    assert len(runs) == 1


def test_sizes(runs, only_small):
    assert cli.main(["+experiment=all", "experiment.size=full"]) == 0
    assert cli.main(["+experiment=all", "sweep.reps.max=4", "store.root=elsewhere"]) == 0
    assert [plan.replicas for plan in runs] == [9, 4]
    assert Path(runs[1].root).parent.name == "elsewhere"


def test_an_analysis_that_stumbles_is_a_message_and_the_others_go_on(runs, here, capsys):
    home = here / "results" / "_experiments"
    (home / "broken").mkdir(parents=True)
    (home / "broken" / "verdicts.csv").write_text("claim,verdict,where,evidence\nC8,holds,of old,-\n")
    assert cli.main(["+experiment=all"]) == 2
    out, err = capsys.readouterr()
    assert "experiment broken: no verdict: no row for held_peak_bytes with design=dragonfly_slob" in err
    assert "Traceback" not in err
    assert "C9: slabs" in out
    assert pd.read_csv(home / "verdicts.csv")["claim"].tolist() == ["C9"]


def test_failed_cells_are_said(runs, only_small, here, capsys):
    runs.failed = ((0, 1),)
    assert cli.main(["+experiment=all"]) == 2
    out, err = capsys.readouterr()
    assert "sweep smoke: has failed cells" in err
    assert "C9" in out
    (here / "its_experiments" / "broken.py").write_text(BROKEN)
    assert cli.main(["+experiment=all", "action=report"]) == 2
    assert "sweep smoke: 1 of 6 replicas failed, such as" in capsys.readouterr().err


def test_a_report_without_results_says_what_is_missing(only_small, here, capsys):
    assert cli.main(["+experiment=all", "action=report"]) == 2
    err = capsys.readouterr().err
    assert "experiment small: no verdict" in err
    assert "none of its 6 replicas" in err


@pytest.fixture
def plain(only_small, here):
    """The small experiment without its chart, which takes longest."""
    (here / "its_experiments" / "small.py").write_text(PLAIN)


def confirm(*more):
    return cli.main(["+experiment=all", "experiment.confirm=true", *more])


def test_a_claim_is_confirmed_once_on_a_seed_and_loads_of_its_own(runs, plain, here, capsys):
    assert confirm() == 0
    assert "confirmed on seed 1000: one comparison" in capsys.readouterr().out
    (plan,) = runs
    assert (plan.name, Path(plan.root).name) == ("smoke_confirmed", "smoke_confirmed")
    assert {json.loads(text)["seed"] for text in plan.columns["config"]} == {1000}
    assert '"scale":0.1' in plan.columns["config"][0]
    shelf = here / "results" / "_experiments" / "_confirmed"
    assert pd.read_csv(shelf / "small" / "verdicts.csv")["stage"].tolist() == ["confirmed"]
    assert confirm() == 0  # the same rule on the same seed: the same confirmation
    record = json.loads((here / "results" / "_experiments" / "_confirmations.json").read_text())
    assert len(record["small"]) == 1
    assert cli.main(["+experiment=all"]) == 0
    assert "Confirmed on" in capsys.readouterr().out


def test_a_rule_that_was_changed_says_so_and_needs_another_seed(runs, plain, here, capsys):
    assert confirm() == 0
    changed = PLAIN.replace('"worse": "fails"', '"worse": "holds in part"')
    (here / "its_experiments" / "small.py").write_text(changed)
    finding.load.cache_clear()
    assert confirm() == 1
    assert "the rule has changed" in capsys.readouterr().err
    assert cli.main(["+experiment=all"]) == 0
    assert "The rule was changed since it was confirmed" in " ".join(capsys.readouterr().out.split())
    verdicts = pd.read_csv(here / "results" / "_experiments" / "small" / "verdicts.csv")
    assert verdicts["stage"].tolist() == ["explored, rule changed since it was confirmed"]
    assert confirm("seed=1001") == 0


def test_a_comment_does_not_change_a_rule(here, plain):
    before = protocol.digest(finding.load("small"))
    (here / "its_experiments" / "small.py").write_text(PLAIN + "# a remark\n")
    finding.load.cache_clear()
    assert protocol.digest(finding.load("small")) == before


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["seed=10"], "seeds from 10 on are kept"),
        (["experiment.confirm=true", "seed=3"], "has been explored on"),
        (["experiment.confirm=true", "sweep.reps.max=2"], "is confirmed by 3 replicas, not 2"),
    ],
)
def test_stages_are_kept_apart(runs, plain, line, says, capsys):
    assert cli.main(["+experiment=all", *line]) == 1
    assert says in capsys.readouterr().err
    assert runs == []


def test_a_confirmation_on_another_recording_needs_one(runs, plain, here, capsys):
    text = PLAIN.replace('"workload.scale=0.1"', '"workload.path={recording}"')
    (here / "its_experiments" / "small.py").write_text(text)
    assert confirm() == 1
    assert "experiment.recording=PATH" in capsys.readouterr().err


def test_fewer_replicas_than_the_protocol_asks_for_are_said(runs, plain, capsys):
    assert cli.main(["+experiment=all", "sweep.reps.max=2"]) == 0
    assert "Fewer replicas than it asks for: smoke 2 of 3" in " ".join(capsys.readouterr().out.split())


def test_assumed_costs_are_read_from_their_file():
    costs = fragility.assumed("opteron2003")
    assert costs["switch_ns"] == 1500
    assert "lock_ns" not in costs
    with pytest.raises(ConfigError, match="marks no cost"):
        fragility.assumed("zero")


def test_costs_are_scaled_where_there_is_a_clock(runs, plain, capsys):
    assert cli.main(["+experiment=all", "experiment.costs=true"]) == 0
    assert len(runs) == 1  # without a clock there are no costs
    capsys.readouterr()
    assert cli.main(["+experiment=all", "experiment.costs=true", "cost=opteron2003", "store.root=timed"]) == 0
    assert "0 of 1 verdicts change if the assumed costs" in " ".join(capsys.readouterr().out.split())
    costs = {plan.name: json.loads(plan.columns["config"][0])["cost"]["switch_ns"] for plan in runs[1:]}
    assert costs == {"smoke": 1500, "smoke_half_costs": 750, "smoke_double_costs": 3000}


def test_each_cost_is_moved_by_itself(runs, plain, capsys):
    still = [f"cost.{key}=0" for key in fragility.ranges("opteron2003") if key not in ("lock_ns", "switch_ns")]
    line = ["cost=opteron2003", *still, "cost.lock_ns=40", "store.root=timed"]
    assert cli.main(["+experiment=all", "+sweep=sensitivity", *line]) == 0
    says = " ".join(capsys.readouterr().out.split())
    assert "0 of 1 verdicts change if one of 2 costs is halved or doubled" in says
    costs = {plan.name: json.loads(plan.columns["config"][0])["cost"] for plan in runs}
    own = costs["smoke"]
    moved = {name: {k: v for k, v in cost.items() if v != own[k]} for name, cost in costs.items()}
    assert moved == {
        "smoke": {}, "smoke_half_lock_ns": {"lock_ns": 20}, "smoke_double_lock_ns": {"lock_ns": 80},
        "smoke_half_switch_ns": {"switch_ns": 750}, "smoke_double_switch_ns": {"switch_ns": 3000},
    }  # fmt: skip


def test_what_moves_costs_says_what_it_needs(runs, plain, capsys):
    assert cli.main(["+sweep=sensitivity"]) == 1
    assert "name one by +experiment=NAME" in capsys.readouterr().err
    assert (files.conf_dir() / "sweep" / "sensitivity.yaml").exists()  # Hydra composes the command line before
    assert cli.main(["+experiment=all", "experiment.costs=some"]) == 1
    assert "there are false, true, assumed, each" in capsys.readouterr().err
    swept = ["+experiment=all", "experiment.costs=each", "cost=opteron2003", "cost.lock_ns=40,50"]
    assert cli.main(swept) == 1
    assert "cost.lock_ns is an axis of sweep smoke" in capsys.readouterr().err
    assert runs == []


def report(word: str) -> judging.Report:
    """A report of two verdicts, the first of which is `word`."""
    return judging.Report(
        "So.", [judging.Verdict("C9", word, "here", "-"), judging.Verdict("C9", "fails", "there", "-")]
    )


def test_a_verdict_that_assumed_costs_turn_is_fragile():
    scales = {fragility.Scale("", "half"): report("holds"), fragility.Scale("", "double"): report("inconclusive")}
    found = fragility.marked(report("holds"), scales)
    assert [v.note for v in found.verdicts] == ["fragile, double costs: inconclusive", ""]
    assert found.summary.endswith("1 of 2 verdicts change if the assumed costs are halved or doubled.")


def test_a_cost_that_turns_a_verdict_is_named_with_its_range(here):
    plan = plan_from(["cost=opteron2003"])[0]
    scales = {
        fragility.Scale("preempt_ns", "half"): report("fails"),
        fragility.Scale("preempt_ns", "double"): report("holds"),
        fragility.Scale("shootdown_cpu_ns", "half"): report("holds"),
        fragility.Scale("shootdown_cpu_ns", "double"): report("inconclusive"),
    }
    found = fragility.marked(report("holds"), scales, [plan])
    assert found.verdicts[0].note == "fragile, half preempt_ns: fails; double shootdown_cpu_ns: inconclusive"
    assert found.summary == (
        "So. 1 of 2 verdicts change if one of 2 costs is halved or doubled. What turns one: half preempt_ns (75 ns, "
        "within the range of 25 to 750), double shootdown_cpu_ns (2000 ns, outside the range of 700 to 1500)."
    )


def test_interrupted(runs, here, capsys):
    runs.interrupted = True
    assert cli.main(["+experiment=all"]) == 130
    assert capsys.readouterr().out == ""


def test_plan_shows_every_sweep(runs, here, capsys):
    assert cli.main(["+experiment=all", "action=plan"]) == 0
    assert "first 2 of 2 cells" in capsys.readouterr().out
    assert runs == []
    assert cli.main(["+experiment=all", "action=designs"]) == 1


def test_an_analysis_sees_only_what_its_plan_has(tmp_path):
    table = fakes.metrics_table(fakes.grid(), replicas=4)
    fakes.write(tmp_path / "made_up", table)
    plan = fakes.plan(tmp_path / "made_up", table)
    plan.cells, plan.replicas = plan.cells.head(2).assign(axes='{"machine.cpus":7}'), 3
    found = results.planned(plan)
    assert found.metrics.groupby("cell_key").size().tolist() == [3, 3]
    assert set(found.metrics["cpus"]) == {7}
    assert len(found.series) == 2 * 3 * 3
    assert len(found.snapshots) == 2 * 3
    assert found.run == {"runs": [{"sweep": "made_up"}]}


def test_reports_of_results_at_a_uri_are_local(here):
    assert writing.home("s3://bucket/run/smoke") == here / "results" / "_experiments"


def test_a_verdict_that_there_is_not_is_refused(runs, only_small, here, capsys):
    (here / "its_experiments" / "small.py").write_text(SMALL.replace('"better": "holds"', '"better": "proved"'))
    assert cli.main(["+experiment=all"]) == 2
    assert "'proved' is not one of" in capsys.readouterr().err


def test_on_a_real_sweep(only_small, here, capsys):
    line = ["+experiment=all", "cluster=serial", "progress=false", "workload.scale=0.01", "sweep.reps.max=2"]
    assert cli.main(line) == 0
    first = (here / "results" / "_experiments" / "verdicts.csv").read_text()
    assert cli.main(line) == 0
    assert (here / "results" / "_experiments" / "verdicts.csv").read_text() == first
    found = finding.load("small").analyse({"smoke": kmemexp.load("results/smoke")})
    assert found.verdicts[0].claim == "C9"
