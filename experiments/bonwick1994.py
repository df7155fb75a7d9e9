"""B94: after a spike a slab allocator fragments memory least, power-of-two and buddy allocators three times as much.

Question: does the simulator reproduce the table of Bonwick, "The Slab Allocator", USENIX Summer 1994, section 5.2? It
gives total fragmentation (wasted / consumed) of four kernel allocators after boot, a spike of 256 processes with
sockets, find, and kenbus, one after the other on one machine.

Method: the sweep `bonwick1994`, one run through all steps, looked at when each ends (the spike: when its processes are
gone). Total fragmentation is 1 - requested live bytes / bytes held. The load is synthetic: sizes and numbers of
objects are assumptions, so the order of the allocators and the ratios are judged, not the figures; these stand beside
the published ones with their deviation in points. All differences are paired, at 95 %; those of the published
allocators at all steps, on all loads, are one Holm family. A ratio or a likeness is judged by its interval.

Three loads, because the published text leaves two things open that matter. `bonwick1994_ragged` was the first: objects
of the spike's processes end each by itself, a few of them late. `bonwick1994` lets them end nearly together, as the
paper's processes do; it was made after the first had been run. `bonwick1994_sar` is the same on a kernel that holds as
much after boot as an example in Sun's documentation. It was made third, since by the paper's own figures (0.80 / 0.57)
the spike made the power-of-two heap grow by 40 %, and in the other two it grows by 150 %; its sizes were not changed
once it had been run. The bounds of "about three" were set when the first load's ratio after kenbus, 2.7, was known.
`fast_fits_release` is the sequential fit if it gave whole pages back, of which nothing is published; it is not judged.
"""

import json
from collections.abc import Mapping

import pandas as pd

from kmemexp import compare
from kmemexp.claims.judging import Report, Verdict, pick, spread, unseen
from kmemexp.claims.protocol import Protocol
from kmemexp.report import charts
from kmemexp.report.families import one_family
from kmemexp.report.results import Results

CLAIM = "B94"
SWEEPS = ("bonwick1994",)
FULL = {"bonwick1994": ["sweep.reps.max=32"]}

SLAB, SEQUENTIAL, BUCKETS, BUDDY = "slab1994", "fast_fits", "buckets", "lazy_buddy"
RELEASING = "fast_fits_release"
STEPS = ("boot", "spike", "find", "kenbus")
PHASE_OF = {"boot": "boot", "spike": "calm", "find": "find", "kenbus": "kenbus"}  # at whose end a step is looked at
PUBLISHED = {  # percent, by step
    SLAB: (11, 13, 14, 14),
    SEQUENTIAL: (7, 19, 19, 27),
    BUCKETS: (20, 43, 43, 45),
    BUDDY: (23, 45, 45, 46),
}
TITLES = {
    SLAB: "slab (SunOS 5.4)", SEQUENTIAL: "sequential fit (SunOS 4.1.3)", BUCKETS: "power of two (4.4BSD)",
    BUDDY: "lazy buddy (SVr4)", RELEASING: "sequential fit, giving pages back",
}  # fmt: skip
ALIKE = 5.0  # points by which two allocators may differ and still be called alike; published: at most 3
ABOUT_THREE = (2.5, 4.0)  # ratios that round to three, or to the published 3.3 and 3.5
FRAG = "total_frag_ratio"
PROTOCOL = Protocol(
    judged=(FRAG,),
    family="one family: the published allocators against each other at all steps, on all loads",
    replicas={"bonwick1994": 8},
)


def analyse(results: Mapping[str, Results]) -> Report:
    """Put what was simulated beside what was published, and judge order and ratios."""
    found = results["bonwick1994"]
    at = at_steps(found.metrics, found.series)
    table = _table(at)
    pairs = _pairs(at)
    verdicts = []
    for workload in dict.fromkeys(table["workload"]):
        verdicts += [_order(pairs, workload), *_ratios(pairs, workload), _boot_only(pairs, workload)]
        verdicts += [_releasing(at, workload), _level(table, workload)]
    judged = [v for v in verdicts if v.verdict != "observed"]
    held = sum(v.verdict == "holds" for v in judged)
    worst = table.dropna(subset="deviation").groupby("workload", sort=False)["deviation"].agg(lambda d: d.abs().max())
    far = ", ".join(f"{points:.0f} points with {name}" for name, points in worst.items())
    summary = (
        f"Of {len(judged)} statements on order and ratios {held} hold. The figures deviate by at most {far}; they "
        "depend on what the kernel held before the spike, which is not published, and on how the spike ends."
    )
    return Report(summary, verdicts, {"fragmentation": table}, {"fragmentation": _chart(table)})


def at_steps(metrics: pd.DataFrame, series: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of `metrics` as they were at the end of each step: total_frag_ratio is that of the last sample before it.

    Raises LookupError for a workload without the phases of these steps.
    """
    ends = {key: _ends(json.loads(config)["workload"]) for key, config in
            metrics.drop_duplicates("cell_key").set_index("cell_key")["config"].items()}  # fmt: skip
    found = {}
    for step in STEPS:
        end = series["cell_key"].map({key: times[PHASE_OF[step]] for key, times in ends.items()})
        rows = series[series["time_ns"] <= end].sort_values("time_ns").groupby(["cell_key", "replica"]).last()
        frag = (1 - rows["requested_bytes"] / rows["held_bytes"]).rename(FRAG)
        found[step] = metrics.drop(columns=FRAG).merge(frag.reset_index(), on=["cell_key", "replica"], how="left")
    return found


def _ends(workload: Mapping) -> dict[str, float]:
    """End of each phase, ns."""
    phases = pd.DataFrame(list(workload["phases"]))
    ends = dict(zip(phases["name"], phases["seconds"].cumsum() * 1e9, strict=True))
    if missing := sorted(set(PHASE_OF.values()) - set(ends)):
        raise LookupError(f"workload {workload['name']}: has no phase {', '.join(missing)}")
    return ends


def _compared(metrics: pd.DataFrame, baseline: str) -> pd.DataFrame:
    return compare(metrics, {"objects": baseline}, [FRAG])


def _pairs(at: Mapping[str, pd.DataFrame]) -> dict[tuple[str, str], pd.DataFrame]:
    """All comparisons that are judged, by step and baseline, as one family."""
    wanted = [*((step, SLAB) for step in STEPS), ("spike", SEQUENTIAL), ("spike", BUCKETS)]
    tables = []
    for step, base in wanted:
        metrics = at[step][at[step]["objects"].astype(str).isin(PUBLISHED)]
        tables.append(_compared(metrics, base))
    return dict(zip(wanted, one_family(tables, PROTOCOL.judged), strict=True))


def _table(at: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per load, allocator and step, in percent; the deviation in points."""
    tables = []
    for step, metrics in at.items():
        rows = _compared(metrics, SLAB).assign(step=step, allocator=lambda t: t["objects"].astype(str))
        rows["published"] = [_published(name, step) for name in rows["allocator"]]
        for name in ("mean", "low", "high"):
            rows[name] *= 100
        tables.append(rows.assign(deviation=rows["mean"] - rows["published"]))
    columns = ["workload", "allocator", "step", "n", "published", "mean", "low", "high", "deviation"]
    table = pd.concat(tables, ignore_index=True)[columns].astype({"workload": str})
    place = table["allocator"].map({name: i for i, name in enumerate(TITLES)})
    return table.assign(place=place).sort_values(["workload", "place"], kind="stable").drop(columns="place")


def _published(allocator: str, step: str) -> float:
    """Percent, or NaN for what was not measured."""
    return float(PUBLISHED[allocator][STEPS.index(step)]) if allocator in PUBLISHED else float("nan")


def _order(pairs: Mapping[tuple[str, str], pd.DataFrame], workload: str) -> Verdict:
    """Judge: slab < sequential < power of two, about equal to buddy, after the spike."""
    pair = {
        (a, b): pick(pairs["spike", b], FRAG, objects=a, workload=workload)
        for a, b in ((SEQUENTIAL, SLAB), (BUCKETS, SEQUENTIAL), (BUDDY, SEQUENTIAL), (BUDDY, BUCKETS), (BUCKETS, SLAB),
                     (BUDDY, SLAB))
    }  # fmt: skip
    worse = {names: row["verdict"] == "worse" for names, row in pair.items()}
    alike = all(abs(pair[BUDDY, BUCKETS][bound]) * 100 <= ALIKE for bound in ("diff_low", "diff_high"))
    between = worse[SEQUENTIAL, SLAB] and worse[BUCKETS, SEQUENTIAL] and worse[BUDDY, SEQUENTIAL]
    word = "holds" if between and alike else "fails"
    if word == "fails" and worse[BUCKETS, SLAB] and worse[BUDDY, SLAB]:
        word = "holds in part"
    main = pair[BUCKETS, SLAB]
    steps = ", ".join(
        f"{TITLES[a]} over {TITLES[b]} {_points(pair[a, b])}"
        for a, b in ((SEQUENTIAL, SLAB), (BUCKETS, SEQUENTIAL), (BUDDY, BUCKETS))
    )
    return Verdict(
        CLAIM, word, f"{workload}, after the spike: slab < sequential < power of two, about equal to buddy", steps,
        main["diff"] * 100, main["diff_low"] * 100, main["diff_high"] * 100, "points",
        question="after the spike slab < sequential < power of two, as buddy; power of two over slab",
        condition=workload, **unseen(main, 0.01),
    )  # fmt: skip


def _points(row: pd.Series) -> str:
    return spread(row["diff"], row["diff_low"], row["diff_high"], "points", 0.01)


def _ratios(pairs: Mapping[tuple[str, str], pd.DataFrame], workload: str) -> list[Verdict]:
    """Judge: power of two and buddy fragment about three times as much as slab, after the spike."""
    found = []
    for name in (BUCKETS, BUDDY):
        row = pick(pairs["spike", SLAB], FRAG, objects=name, workload=workload)
        low, high = ABOUT_THREE
        if low <= row["ratio_low"] and row["ratio_high"] <= high:
            word = "holds"
        elif row["ratio_low"] <= high and low <= row["ratio_high"]:
            word = "inconclusive"
        else:
            word = "holds in part" if row["verdict"] == "worse" else "fails"
        printed = _published(name, "spike") / _published(SLAB, "spike")
        found.append(Verdict(
            CLAIM, word, f"{workload}, after the spike: {TITLES[name]} about three times slab",
            f"{row['ratio']:.2f} times ({row['ratio_low']:.2f} to {row['ratio_high']:.2f}), published {printed:.2f}",
            row["ratio"], row["ratio_low"], row["ratio_high"], "times", condition=f"{workload}, {TITLES[name]}",
            question="after the spike power of two and buddy have about three times the fragmentation of slab",
        ))  # fmt: skip
    return found


def _boot_only(pairs: Mapping[tuple[str, str], pd.DataFrame], workload: str) -> Verdict:
    """Judge: sequential fit fragments less than slab at boot, and more ever after."""
    rows = {step: pick(pairs[step, SLAB], FRAG, objects=SEQUENTIAL, workload=workload) for step in STEPS}
    first = rows["boot"]["verdict"] == "better"
    later = [rows[step]["verdict"] == "worse" for step in STEPS[1:]]
    word = "holds" if first and all(later) else "holds in part" if first or all(later) else "fails"
    boot = rows["boot"]
    return Verdict(
        CLAIM, word, f"{workload}: sequential fit beats slab at boot only",
        "sequential over slab: " + ", ".join(f"{step} {_points(row)}" for step, row in rows.items()),
        boot["diff"] * 100, boot["diff_low"] * 100, boot["diff_high"] * 100, "points", condition=workload,
        question="sequential fit beats slab at boot only; at boot",
    )  # fmt: skip


def _releasing(at: Mapping[str, pd.DataFrame], workload: str) -> Verdict:
    """Say what the place of sequential fit owes to the assumption that it keeps its pages."""
    rows = {step: pick(_compared(m, SLAB), FRAG, objects=RELEASING, workload=workload) for step, m in at.items()}
    after = rows["spike"]
    return Verdict(
        CLAIM, "observed", f"{workload}: if sequential fit gave whole pages back (not published whether it did)",
        "it over slab: " + ", ".join(f"{step} {_points(row)}" for step, row in rows.items()),
        after["diff"] * 100, after["diff_low"] * 100, after["diff_high"] * 100, "points", condition=workload,
        question="if sequential fit gave pages back: over slab, after the spike",
    )  # fmt: skip


def _level(table: pd.DataFrame, workload: str) -> Verdict:
    """Say how far the figures are from the published ones."""
    rows = table[(table["workload"] == workload) & table["published"].notna()]
    each = ", ".join(
        f"{TITLES[name]} " + " ".join(f"{d:+.0f}" for d in rows.loc[rows["allocator"] == name, "deviation"])
        for name in PUBLISHED
        if name in set(rows["allocator"])
    )
    return Verdict(
        CLAIM, "observed", f"{workload}: deviation from the published figures after {', '.join(STEPS)}",
        f"points: {each}", rows["deviation"].abs().mean(), unit="points",
        question="deviation from the published figures, mean of the absolute values", condition=workload,
    )  # fmt: skip


def _chart(table: pd.DataFrame) -> object:
    known = table[table["published"].notna()]
    paper = known.drop_duplicates(["allocator", "step"]).assign(workload="published")
    paper = paper.assign(mean=paper["published"], low=paper["published"], high=paper["published"])
    rows = pd.concat([paper, table]).assign(name=lambda t: t["allocator"].map(TITLES).fillna(t["allocator"]))
    return charts.intervals(
        rows, y="step", x=charts.Axis("mean", "total fragmentation, % (95 % interval)"), colour="workload", facet="name"
    )  # fmt: skip
