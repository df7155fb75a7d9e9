"""The table of a prediction: each cache's slabs, what its figures rest on, and how far off the whole is."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from kmemexp.errors import TraceError
from kmemexp.predict.methods import COUNTS, LAW, MAP, PLAIN, Method, Predicted, summary

METHODS = {method.name: method for method in (LAW, COUNTS, MAP)}
FEW = 0.05  # share of births, below which guesses do not matter
QUIET = 0.01  # share of the footprint; where less changes, an error says nothing
LARGE_GUESS = 0.05
SEEN, IMPUTED, COUNTED, UNTOLD = "seen", "imputed", "counts used", "not told"
SAYS = ("births", "deaths_seen", "unmatched_frees")


def chosen(found: Predicted, name: str) -> Method:
    """Return a method by its name. Raises TraceError where the recording lacks what it needs."""
    method = METHODS[name]
    if method not in found.slabs:
        raise TraceError(f"--by {name}: there is no map of slab pages from before (PREFIX.before.kpf)")
    return method


def frame(found: Predicted, method: Method) -> pd.DataFrame:
    """One row for each cache of the snapshots, the largest deviation in pages first.

    Columns: cache, order, slabs_before; real, and by method, slabs more or fewer at the end; off_pages of `method`;
    births, deaths_seen, deaths_imputed, unmatched_frees, births_added; grade (see `grade`).
    """
    seen = [found.lives.get(name, {}) for name in found.names]
    known = {key: np.array([row.get(key, 0) for row in seen]) for key in (*SAYS, "deaths_proven", "deaths_by_law")}
    added = np.array([row.get("births_added", 0) for row in seen])
    by_counts = method is COUNTS
    likely = found.deaths_by_counts if by_counts else known["deaths_by_law"]
    table = pd.DataFrame(
        {"cache": found.names, "order": found.order, "slabs_before": found.before, "real": found.after - found.before}
        | {each.name: slabs - found.before for each, slabs in found.slabs.items()}
        | {"off_pages": (found.slabs[method] - found.after) << found.order}
        | {name: known[name] for name in SAYS[:2]}
        | {"deaths_imputed": known["deaths_proven"] + likely, "unmatched_frees": known["unmatched_frees"]}
        | {"births_added": added + found.births_by_counts * by_counts}
    )
    table["grade"] = [grade(row) for row in table.to_dict("records")]
    order = np.lexsort((table["cache"], -table["off_pages"].abs()))
    return table.iloc[order].reset_index(drop=True)


def grade(row: dict[Any, Any]) -> str:
    """What a cache's figure rests on: what was seen, deaths that are a guess, births by counts, or nothing at all."""
    if not row["births"] and not row["unmatched_frees"] and not row["deaths_seen"]:
        return UNTOLD if row["real"] else SEEN
    if row["deaths_imputed"] + row["births_added"] < FEW * max(row["births"], 1):
        return SEEN
    return COUNTED if row["births_added"] > row["deaths_imputed"] else IMPUTED


def show(found: Predicted, method: Method, title: str, console: Console) -> None:
    """Print the caches of which a slab comes or goes, and what the whole comes to."""
    rows = frame(found, method)
    moved = rows[(rows["real"].abs() + rows[method.name].abs()) >= 1]
    table = Table(title=title, title_justify="left")
    heads = ("cache", "slabs before", "real Δ", "predicted Δ", "dev pages", "births", "deaths seen / imputed",
             "unmatched", "births added", "grade")  # fmt: skip
    for head in heads:
        table.add_column(head, justify="left" if head in ("cache", "grade") else "right", overflow="fold")
    for row in moved.to_dict("records"):
        table.add_row(
            row["cache"], f"{row['slabs_before']:,}", f"{row['real']:+,}", f"{row[method.name]:+,}",
            f"{row['off_pages']:+,}", f"{row['births']:,}", f"{row['deaths_seen']:,} / {row['deaths_imputed']:,}",
            f"{row['unmatched_frees']:,}", f"{row['births_added']:,}", row["grade"],
        )  # fmt: skip
    console.print(table)
    for line in lines(found, method):
        console.print(line, highlight=False, soft_wrap=True)


def lines(found: Predicted, method: Method) -> list[str]:
    """Say in sentences what the whole comes to."""
    pages = 1 << found.order
    before, after = int((found.before * pages).sum()), int((found.after * pages).sum())
    mine = summary(found, method)
    told = [
        f"footprint before / after, real / after, predicted by {method.name}: {before:,}, {after:,}, "
        f"{mine['footprint_pages']:,} pages ({mine['footprint_error']:+.2%})",
        f"deviation of all caches, as a share of the change of {mine['change_pages']:,} pages:",
    ]
    for each in (LAW, COUNTS, MAP, PLAIN):
        if each in found.slabs:
            of, name = summary(found, each), f"{each.letter} {each.name:<7}"
            told.append(f"  {name}{of['ratio']:5.2f}  footprint {of['footprint_error']:+.2%}  ({each.uses})")
    best = min((summary(found, m)["ratio"] for m in (LAW, COUNTS, MAP) if m in found.slabs), default=0)
    if best >= summary(found, PLAIN)["ratio"]:
        told.append("counting alone (N) is as good as any of them: the allocator's model earns nothing here")
    seen, reused, still = found.ends
    told.append(
        f"lives: {seen:,} end with a free, {reused:,} with another birth at their address, {still:,} are open; of "
        f"{found.guessed_share:.1%} of the births the death is a guess"
    )
    told += found.around
    if found.guessed_share > LARGE_GUESS:
        told.append("more than 5 % of the deaths are a guess: believe what law and counts both say")
    if mine["change_pages"] < QUIET * before:
        told.append("too quiet to judge: less than 1 % of the footprint changed")
    return told


def write(found: Predicted, method: Method, out: Path) -> None:
    """Write the table of all caches, as Parquet or CSV by the file's name. Raises TraceError."""
    rows = frame(found, method)
    try:
        if out.suffix == ".csv":
            rows.to_csv(out, index=False)
        else:
            rows.to_parquet(out, index=False)
    except OSError as error:
        raise TraceError(f"{out}: cannot be written: {error}") from None
