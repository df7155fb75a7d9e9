"""What the claims came to, question by question: short tables for experiments/README.md, from the verdicts themselves.

A page has places for them, between `<!-- figures: NAME -->` and the next empty line; `renewed` fills these, so that
what the page shows is what was published. `docs/make_claims.py` does it.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from kmemexp.claims.judging import VERDICTS, over, spread
from kmemexp.claims.writing import markdown
from kmemexp.report.layout import decimals_for, number

PLACE = re.compile(r"(?<=<!-- figures: )(\w+) -->(?:\n[^\n]+)*")
NAMED = 90  # characters of the names of conditions; where there are more, they are counted
GLANCE = "glance"
MISSING = "Not confirmed yet by the rule as it stands.\n"
UNSIGNED = ("deadlocks", "locks", "per million", "times", "µs at most")  # units of what is no difference
FIGURES = ("effect", "low", "high", "seen")


def read(folder: Path, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Verdicts that were published in a folder, by experiment; those without any are left out."""
    paths = {name: folder / f"{name}_verdicts.csv" for name in names}
    return {name: _texts(pd.read_csv(path)) for name, path in paths.items() if path.exists()}


def _texts(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Empty texts where the file has gaps."""
    texts = [name for name in verdicts.columns if name not in FIGURES]
    return verdicts.assign(**{name: verdicts[name].astype(object).where(verdicts[name].notna(), "") for name in texts})


def blocks(
    names: Iterable[str], explored: Mapping[str, pd.DataFrame], confirmed: Mapping[str, pd.DataFrame]
) -> dict[str, str]:
    """Text of each place: by experiment the table of its confirmation, and GLANCE with a row for each confirmed one."""
    rows = [
        {
            "claim": str(verdicts["claim"].iloc[0]),
            "explored": tally(explored[name]) if name in explored else "-",
            "confirmed": tally(verdicts),
            "rule": str(verdicts["protocol"].iloc[0]),
        }
        for name, verdicts in confirmed.items()
    ]
    found = {name: markdown(told(confirmed[name])) if name in confirmed else MISSING for name in names}
    return found | {GLANCE: markdown(pd.DataFrame(rows))}


def renewed(page: str, texts: Mapping[str, str]) -> str:
    """The page with its places filled. KeyError for a place that has no text."""
    return PLACE.sub(lambda found: f"{found[1]} -->\n{texts[found[1]].strip()}", page)


def tally(verdicts: pd.DataFrame) -> str:
    """How many of each verdict, observations apart: "5 holds, 1 inconclusive"."""
    words = verdicts["verdict"].astype(str)
    counts = [f"{(words == word).sum()} {word}" for word in VERDICTS if word != "observed" and (words == word).any()]
    return ", ".join(counts) or "observed only"


def told(verdicts: pd.DataFrame) -> pd.DataFrame:
    """One row per question: the verdict over its conditions, which these are, the effect, what could have been seen.

    What was only observed comes last, in one row.
    """
    questions = verdicts["question"].where(verdicts["question"] != "", verdicts["where"])
    rows: list[dict[str, str]] = []
    seen: list[str] = []
    for question, of in verdicts.groupby(questions, sort=False):
        if (of["verdict"] == "observed").all():
            seen.append(f"{question}: {_effects(of)}")
            continue
        fragile = int((of["note"] != "").sum())
        rows.append({
            "question": question,
            "verdict": over(of["verdict"]) + (f" ({fragile} of {len(of)} fragile)" if fragile else ""),
            "conditions": _conditions(of),
            "effect (95 %)": _effects(of),
            "could have seen": _seen(of),
        })  # fmt: skip
    if seen:
        rows.append({"question": "; ".join(seen), "verdict": "observed"})
    return pd.DataFrame(rows, columns=["question", "verdict", "conditions", "effect (95 %)", "could have seen"]).fillna(
        "-"
    )


def _conditions(of: pd.DataFrame) -> str:
    """Which conditions have which verdict; where their names are longer than NAMED, how many."""
    texts = []
    for word in VERDICTS:
        rows = of[of["verdict"] == word]
        names = " · ".join(rows["condition"])
        if len(rows) and (len(of) > 1 or names):
            label = "" if len(rows) == len(of) else f"{word}: "
            named = (rows["condition"] != "").all() and (len(rows) == 1 or len(names) <= NAMED)
            texts.append(label + (names if named else f"{len(rows)} conditions"))
    return "; ".join(texts) or "one"


def _effects(of: pd.DataFrame) -> str:
    """The effect, or the least and the greatest, each with its interval, by unit; "-" where none was given.

    Of what was judged, where anything was.
    """
    texts = []
    judged = of[of["verdict"] != "observed"]
    of = judged if judged["effect"].notna().any() else of
    for _, rows in of[of["effect"].notna()].groupby("unit", sort=False):
        ordered = rows.sort_values("effect", kind="stable")
        ends = [ordered.iloc[0], ordered.iloc[-1]]
        texts.append(" to ".join(dict.fromkeys(_figure(row) for row in ends)))
    return "; ".join(texts) or "-"


def _figure(row: pd.Series) -> str:
    value, low, high, unit = (row[name] for name in ("effect", "low", "high", "unit"))
    if unit.startswith("share"):
        bounds = f" ({low:.1%} to {high:.1%})" if math.isfinite(low) else ""
        return f"{value:.0%}{bounds} {unit.removeprefix('share ')}"
    return spread(value, low, high, unit, sign=unit not in UNSIGNED)


def _seen(of: pd.DataFrame) -> str:
    """Of what is inconclusive, the greatest of the differences that could have been seen, by unit."""
    rows = of[of["verdict"] == "inconclusive"]
    units = rows["seen_unit"].where(rows["seen_unit"] != "", rows["unit"])
    texts = []
    for unit, seen in rows["seen"].groupby(units, sort=False):
        if seen.isna().all():
            continue
        least = float(seen.max())
        share = unit.startswith("share")
        texts.append(f"{least:.0%} {unit.removeprefix('share ')}" if share
                     else f"{number(least, decimals_for([least], [least]))} {unit}".strip())  # fmt: skip
    blind = int(rows["seen"].isna().sum())
    return "; ".join(texts + [f"nothing under {blind}"] * bool(blind)) or "-"
