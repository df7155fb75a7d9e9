"""C6: more pro-active action in the VM reduces map fragmentation further.

Question: which policies reduce the fragmentation of a map that is unified already, what do they cost, and which of them
is worth having?

Method: the sweep `proactive` lays each policy of conf/policy/ on the designs to which it means something and compares
it with none on the same operations: a week of compressed days without a clock for fragmentation, and a day with a
clock for CPU time per operation, lock waits and latency. Two questions, each with its verdict. Is the map less
fragmented: external fragmentation of kernel_map or the share of its free bytes in holes below 1 MiB is smaller, and the
other one not larger by the margin of half a point. Are more superpages free: their mean number, beside the compaction
bound, which is what moving all that is allocated to one end would keep; where that lies less than 5 % above the
baseline there is nothing to win, and no verdict. All policies and designs, and the winner on other loads, are one Holm
family: that is what choosing among so many costs, and it is said by how much larger a difference has to be to be seen.
`hole_list` is the control: it changes what a search costs and where map entries lie, but no placement. The winner is
chosen by a rule fixed beforehand: on `mail2003_bare`, of the policies that keep more superpages, that refuse no more
requests in the mean, and take at most 5 % more CPU time, the one that keeps most. `design=proactive` is what was
composed so on other seeds (docs/superpages.md); because what is chosen has been lucky too, the sweep
`proactive_elsewhere` tries it on other loads.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd

from kmemexp import compare
from kmemexp.claims.judging import Report, Verdict, cpus_text, over, spread, together, unseen
from kmemexp.claims.protocol import Protocol
from kmemexp.metrics import Margin
from kmemexp.report import bounds, charts, families, stats
from kmemexp.report.families import one_family
from kmemexp.report.results import Results

CLAIM = "C6"
SWEEPS = ("proactive", "proactive_elsewhere")
FULL = {"proactive": ["sweep.reps.max=16"], "proactive_elsewhere": ["sweep.reps.max=24", "machine.cpus=1,2,4,8,16"]}
EXTERNAL, SMALL = "kernel_map_external_frag_mean_ratio", "kva_unusable_1m_mean_ratio"
RUN = "kernel_map_largest_run_min_bytes"
SUPERPAGES, REFUSED, OBJECT = "map_superpages_mean_count", "alloc_failures_count", "total_frag_mean_ratio"
MOVES, HELD = "moves_count", "held_peak_bytes"
GIVES = (EXTERNAL, SMALL, RUN, SUPERPAGES, REFUSED, OBJECT, HELD, MOVES)
LOCKS, P99 = "lock_wait_ratio", "alloc_main_p99_ns"
COSTS = (LOCKS, P99)
BASE, CHOSEN, NONE = "mail2003_bare", "proactive", "none"
COMPOSED = "soft_zones, slabs_by_need and drain"  # the policies that conf/design/proactive.yaml has
KEYS = ["design", "policy"]
FIGURES = ("mean", "diff", "diff_low", "diff_high", "verdict", "not_worse", "detectable", "error", "pairs", "test",
           "bound", "room", "gap_closed")  # fmt: skip
LEVEL = 0.05
DEAREST = 5.0  # per cent more CPU time that a winner may take
PROTOCOL = Protocol(
    judged=(EXTERNAL, SMALL, SUPERPAGES),
    family="one family: three measures of all policies on all designs, and of design=proactive on other loads",
    margins=dict.fromkeys((EXTERNAL, SMALL), Margin(5e-3)),  # half a point: what is less does not matter
    replicas={"proactive": 6, "proactive_elsewhere": 6},
    confirm={
        "proactive": ("workload=mail_days",),
        "proactive_elsewhere": ("workload=trace", "workload.path={recording}"),
    },
)
MIB = 1 << 20


def analyse(results: Mapping[str, Results]) -> Report:
    """Judge each policy on each design, find the winner, and try it on other loads."""
    metrics = results["proactive"].metrics
    metrics = metrics[metrics["design"].astype(str) != CHOSEN]
    clock = metrics["cost"].astype(str) != "none"
    gives, other = one_family([_compared(metrics[~clock]), _compared_elsewhere(results["proactive_elsewhere"].metrics)],
                              PROTOCOL.judged)  # fmt: skip
    table = _gives(gives).merge(_costs(metrics[clock]), on=["design", "policy"], how="left")
    winner = _winner(table)
    tried = table[table["policy"] != NONE].to_dict("records")
    less, more = ([judge(row) for row in tried] for judge in (_verdict, _superpages))
    family = int(gives["family"].max())
    verdicts = [*less, *more, _winning(table, winner), _paid(table, winner, family), *_elsewhere(other)]
    summary = (
        f"Policies that reduce map fragmentation on at least one design: {_named(less, 'holds')}; that increase it on "
        f"at least one: {_named(less, 'fails')}. More superpages stay free on at least one design with: "
        f"{_named(more, 'holds')}; fewer with: {_named(more, 'fails')}. The winner by the rule is "
        f"{winner or 'none of them'}; the choice was paid for with a family of {family} comparisons."
    )
    drawn = {f"pareto_{design}": _pareto(rows) for design, rows in table.groupby("design") if len(rows) > 2}
    return Report(summary, verdicts, {"policies": _shown(table)}, drawn | {"superpages": _kept(table)})


def _named(verdicts: Iterable[Verdict], word: str) -> str:
    return ", ".join(sorted({v.condition for v in verdicts if v.verdict == word})) or "none"


def _plain(metrics: pd.DataFrame) -> pd.DataFrame:
    """Without the axes that say only whether there is a clock."""
    return metrics.drop(columns=["cost", "duration_s"]).astype({"design": str, "policy": str})


def _compared(metrics: pd.DataFrame) -> pd.DataFrame:
    return compare(_plain(metrics), {"policy": NONE}, list(GIVES), margins=PROTOCOL.margins)


def _compared_elsewhere(metrics: pd.DataFrame) -> pd.DataFrame:
    found = [EXTERNAL, SMALL, SUPERPAGES, REFUSED]
    return compare(metrics.astype({"design": str}), {"design": BASE}, found, margins=PROTOCOL.margins)


def _gives(found: pd.DataFrame) -> pd.DataFrame:
    """One row per design and policy: means, paired differences from none and `compare`'s verdicts."""
    keys = [*KEYS, "metric"]
    wide = found.astype(dict.fromkeys([*keys, "verdict"], str)).set_index(keys)[list(FIGURES)].unstack()  # noqa: PD010
    wide.columns = [f"{metric}.{value}" for value, metric in wide.columns]
    return wide.reset_index().astype({"design": str, "policy": str})


def _costs(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row per design and policy: CPU time per operation against none in per cent, lock waits and latency."""
    metrics = _plain(metrics)
    spent = metrics["main_ratio"] * metrics["simulated_ns"] * metrics["cpus"]
    columns = ["design", "policy", "replica", *COSTS]
    metrics = metrics[columns].assign(cpu_ns=spent / metrics["operations_count"])
    rows = []
    for design, group in metrics.groupby("design"):
        lanes = {name: group.pivot_table(index="policy", columns="replica", values=name) for name in ("cpu_ns", *COSTS)}
        for policy in lanes["cpu_ns"].index:
            row = {"design": design, "policy": policy, "cpu_ns": float(lanes["cpu_ns"].loc[policy].mean())}
            for name, table in lanes.items():
                pair = stats.paired_difference(table.loc[policy].to_numpy(), table.loc[NONE].to_numpy())
                row |= {f"{name}.ratio": float(pair.ratio), f"{name}.low": float(pair.ratio_low),
                        f"{name}.high": float(pair.ratio_high)}  # fmt: skip
            rows.append(row)
    return pd.DataFrame(rows)


def _word(row: Mapping) -> str:
    return together(*(pd.Series({k: row[f"{n}.{k}"] for k in ("verdict", "not_worse")}) for n in (EXTERNAL, SMALL)))


def _verdict(row: Mapping) -> Verdict:
    def points(name: str) -> str:
        return spread(*(row[f"{name}.{key}"] for key in ("diff", "diff_low", "diff_high")), "points", 0.01)

    more = (row["cpu_ns.ratio"] - 1) * 100
    half = (row["cpu_ns.high"] - row["cpu_ns.low"]) / 2 * 100
    evidence = (
        f"external {points(EXTERNAL)}, free KVA in holes below 1 MiB {points(SMALL)}, superpages kept "
        f"{spread(row[f'{SUPERPAGES}.diff'], row[f'{SUPERPAGES}.diff_low'], row[f'{SUPERPAGES}.diff_high'])}, objects "
        f"{points(OBJECT)}; CPU time {spread(more, more - half, more + half, '%')}, 99 % of allocations within "
        f"x{row[f'{P99}.ratio']:.2f}"
    )
    if moves := row[f"{MOVES}.mean"]:
        evidence += f", {moves:,.0f} objects moved"
    if row[f"{REFUSED}.diff"]:
        evidence += f", requests refused {row[f'{REFUSED}.diff']:+,.0f}"
    return Verdict(
        CLAIM, _word(row), f"{row['policy']} on {row['design']}", evidence,
        row[f"{EXTERNAL}.diff"] * 100, row[f"{EXTERNAL}.diff_low"] * 100, row[f"{EXTERNAL}.diff_high"] * 100,
        "points", question=f"a policy on {row['design']}, external fragmentation", condition=row["policy"],
        seen=max(row[f"{name}.detectable"] * 100 for name in (EXTERNAL, SMALL)),
    )  # fmt: skip


def _of(row: Mapping, name: str) -> pd.Series:
    """What `compare` says of one metric."""
    return pd.Series({key: row[f"{name}.{key}"] for key in FIGURES})


def _superpages(row: Mapping) -> Verdict:
    """Judge a policy by the superpages that stay free, unless the bound says that there is nothing to win."""
    found = _of(row, SUPERPAGES)
    return Verdict(
        CLAIM, _kept_word(found), f"{row['policy']} on {row['design']}: superpages", _beside_bound(found),
        found["diff"], found["diff_low"], found["diff_high"], "superpages",
        question=f"a policy on {row['design']}, superpages (4 MiB) that stay free", condition=row["policy"],
        **unseen(found),
    )  # fmt: skip


def _kept_word(row: pd.Series) -> str:
    return "observed" if bounds.no_room(row.to_frame().T)[0] else together(row)


def _beside_bound(row: pd.Series) -> str:
    """The difference in superpages, and how much of what compaction could win that is."""
    text = f"superpages free {spread(row['diff'], row['diff_low'], row['diff_high'])}, to {row['mean']:.1f}"
    text += f"; by compaction {row['bound']:.1f}"
    if bounds.no_room(row.to_frame().T)[0]:
        return f"{text}: nothing to win, not judged"
    return f"{text}, so {row['gap_closed']:.0%} of the gap is closed"


def _winner(table: pd.DataFrame) -> str:
    """Apply the rule of the docstring; "" where no policy passes."""
    rows = table[(table["design"] == BASE) & (table["policy"] != NONE)]
    good = [
        _kept_word(_of(row, SUPERPAGES)) == "holds"
        and row[f"{REFUSED}.diff"] <= 0
        and row["cpu_ns.ratio"] <= 1 + DEAREST / 100
        for row in rows.to_dict("records")
    ]
    passed = rows[np.array(good, bool)]
    return str(passed.sort_values(f"{SUPERPAGES}.mean")["policy"].iloc[-1]) if len(passed) else ""


def _winning(table: pd.DataFrame, winner: str) -> Verdict:
    if not winner:
        return Verdict(CLAIM, "observed", f"winner on {BASE}", "no policy passes the rule", question="the winner")
    row = table[(table["design"] == BASE) & (table["policy"] == winner)].iloc[0]
    return Verdict(
        CLAIM, "observed", f"winner on {BASE}: {winner}",
        f"{_beside_bound(_of(row, SUPERPAGES))}; external fragmentation {row[f'{EXTERNAL}.mean']:.1%} against "
        f"{row[f'{EXTERNAL}.mean'] - row[f'{EXTERNAL}.diff']:.1%} with no policy, CPU time "
        f"{(row['cpu_ns.ratio'] - 1) * 100:+.1f} %; design={CHOSEN} is {BASE} with "
        f"{'this policy' if winner == COMPOSED else COMPOSED}",
        *(row[f"{SUPERPAGES}.{key}"] for key in ("diff", "diff_low", "diff_high")), "superpages",
        question="the winner, superpages that stay free", condition=winner,
    )  # fmt: skip


def _paid(table: pd.DataFrame, winner: str, family: int) -> Verdict:
    """Say what choosing among so many policies costs: a difference must be so much larger to be seen."""
    of_base = table[(table["design"] == BASE) & (table["policy"] != NONE)]
    rows = of_base[of_base["policy"] == winner].iloc[0] if winner else of_base.iloc[0]
    one, many = (
        float(families.least(rows[f"{SUPERPAGES}.pairs"], rows[f"{SUPERPAGES}.error"], level))
        for level in (LEVEL, LEVEL / family)
    )
    tried = int((table["policy"] != NONE).sum())
    return Verdict(
        CLAIM, "observed", f"what choosing cost: {rows['policy']} on {BASE}",
        f"{tried} policies and designs, {family} comparisons in one family: a difference in free superpages is seen "
        f"with a chance of 80 % from {many:.2f} on; were it the only comparison, from {one:.2f}",
        many / one, unit="times",
        question="what choosing cost: the least difference that is seen, against a lone comparison",
    )  # fmt: skip


def _elsewhere(found: pd.DataFrame) -> Iterator[Verdict]:
    """Compare design=proactive with mail2003_bare on other loads, one verdict for each and its sizes of machine."""
    for workload, rows in found[found["design"].astype(str) == CHOSEN].groupby("workload", observed=True):
        texts, words, figures, kept = [], [], [], []
        for (cpus, kva), group in rows.groupby(["cpus", "kva_bytes"]):
            by = group.set_index("metric")
            if by.index.has_duplicates:
                raise LookupError("the sweep proactive_elsewhere has other axes than design, workload, CPUs and KVA")
            words.append(together(by.loc[EXTERNAL], by.loc[SMALL]))
            diff = [float(by.loc[EXTERNAL, key]) * 100 for key in ("diff", "diff_low", "diff_high")]
            figures.append(diff)
            kept.append((f"{cpus_text(cpus)}, {kva / MIB:.0f} MiB", by.loc[SUPERPAGES]))
            small = [float(by.loc[SMALL, key]) * 100 for key in ("diff", "diff_low", "diff_high")]
            texts.append(
                f"{cpus_text(cpus)}, {kva / MIB:.0f} MiB: external {spread(*diff)}, below 1 MiB {spread(*small)}, "
                f"refused {by.loc[REFUSED, 'diff']:+,.0f} ({words[-1]})"
            )
        largest = max(figures, key=lambda figure: abs(figure[0]))
        measured = rows[rows["metric"].isin([EXTERNAL, SMALL]) & (rows["verdict"] == "inconclusive")]
        seen = 100 * float(measured["detectable"].max())
        yield Verdict(
            CLAIM, over(words),
            f"design={CHOSEN} against {BASE}; {workload}", f"points, paired: {'; '.join(texts)}", *largest, "points",
            question=f"design={CHOSEN} against {BASE} on other loads, external fragmentation", condition=str(workload),
            seen=seen,
        )  # fmt: skip
        yield _kept_elsewhere(kept, str(workload))


def _kept_elsewhere(found: list[tuple[str, pd.Series]], workload: str) -> Verdict:
    """Compare the superpages that stay free on another load, over its sizes of machine."""
    _, largest = max(found, key=lambda of: abs(of[1]["diff"]))
    open_ones = [row["detectable"] for _, row in found if row["verdict"] == "inconclusive"]
    return Verdict(
        CLAIM, over(_kept_word(row) for _, row in found), f"design={CHOSEN} against {BASE}; {workload}: superpages",
        "; ".join(f"{where}: {_beside_bound(row)} ({_kept_word(row)})" for where, row in found),
        *(float(largest[key]) for key in ("diff", "diff_low", "diff_high")), "superpages",
        question=f"design={CHOSEN} against {BASE} on other loads, superpages (4 MiB) that stay free",
        condition=workload, seen=max(open_ones, default=np.nan),
    )  # fmt: skip


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({
        "design": table["design"], "policy": table["policy"],
        "external %": (table[f"{EXTERNAL}.mean"] * 100).round(1),
        "below 1 MiB %": (table[f"{SMALL}.mean"] * 100).round(1),
        "largest run MiB": (table[f"{RUN}.mean"] / MIB).round(1),
        "superpages": table[f"{SUPERPAGES}.mean"].round(1),
        "by compaction": table[f"{SUPERPAGES}.bound"].round(1),
        "gap closed %": (table[f"{SUPERPAGES}.gap_closed"] * 100).round(0),
        "refused": table[f"{REFUSED}.mean"].round(0),
        "objects %": (table[f"{OBJECT}.mean"] * 100).round(1),
        "held MiB": (table[f"{HELD}.mean"] / MIB).round(1),
        "moves": table[f"{MOVES}.mean"].round(0),
        "CPU %": ((table["cpu_ns.ratio"] - 1) * 100).round(1),
        "lock wait x": table[f"{LOCKS}.ratio"].round(2),
        "alloc p99 x": table[f"{P99}.ratio"].round(2),
    })  # fmt: skip


def _pareto(rows: pd.DataFrame) -> object:
    points = pd.DataFrame({
        "policy": rows["policy"], "cpu": (rows["cpu_ns.ratio"] - 1) * 100, "kept": rows[f"{SUPERPAGES}.mean"],
        charts.BOUND: rows[f"{SUPERPAGES}.bound"],
    })  # fmt: skip
    # Names on top of each other cannot be read: what lies within half a per cent and half a superpage shares a dot.
    places = [(points["cpu"] * 2).round(), (points["kept"] * 2).round()]
    merged = points.groupby(places).agg({"policy": _names, "cpu": "mean", "kept": "mean", charts.BOUND: "mean"})
    return charts.tradeoff(
        merged.reset_index(drop=True), label="policy", less_y=False,
        x=charts.Axis("cpu", "CPU time per operation, % more than with no policy"),
        y=charts.Axis("kept", "superpages (4 MiB) that stay free; tick: by compaction"),
        title=str(rows["design"].iloc[0]),
    )  # fmt: skip


def _names(policies: pd.Series) -> str:
    names = list(policies)
    return " · ".join(names) if len(names) < 4 else f"{NONE if NONE in names else names[0]} and {len(names) - 1} others"


def _kept(table: pd.DataFrame) -> object:
    rows = table[table["policy"] != NONE]
    points = pd.DataFrame({
        "policy": rows["policy"], "design": rows["design"], "kept": rows[f"{SUPERPAGES}.diff"],
        "low": rows[f"{SUPERPAGES}.diff_low"], "high": rows[f"{SUPERPAGES}.diff_high"],
        charts.BOUND: rows[f"{SUPERPAGES}.bound"] - rows[f"{SUPERPAGES}.mean"] + rows[f"{SUPERPAGES}.diff"],
    })  # fmt: skip
    return charts.intervals(
        points, y="policy", x=charts.Axis("kept", "free superpages (4 MiB) more than with none; tick: by compaction"),
        colour="design", zero=True,
    )  # fmt: skip
