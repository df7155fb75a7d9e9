"""What claims came to, question by question, and the places of a page that show it."""

import pandas as pd
import pytest

from kmemexp.claims import story, writing
from kmemexp.claims.judging import Report, Verdict, over
from kmemexp.claims.protocol import Stage


def verdicts(*rows: Verdict) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(Verdict._fields))
    return frame.assign(stage="confirmed", protocol="0123456789ab")


def room(word: str, condition: str, effect: float, **more: object) -> Verdict:
    return Verdict("C4", word, f"{condition}, room", "", effect, effect - 1, effect + 1, "MiB", question="more room",
                   condition=condition, **more)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["holds", "holds", "observed"], "holds"),
        (["holds", "fails"], "holds in part"),
        (["holds in part", "inconclusive"], "holds in part"),
        (["fails", "inconclusive", "equivalent"], "fails"),
        (["equivalent", "inconclusive"], "inconclusive"),
        (["observed"], "observed"),
    ],
)
def test_verdicts_under_several_conditions_make_one(words, word):
    assert over(words) == word


def test_a_question_has_one_row_with_its_conditions_effects_and_what_it_could_not_see():
    table = story.told(verdicts(
        room("holds", "filetree", 10.0), room("inconclusive", "pgbench", -2.0, seen=4.5),
        room("holds", "server_days", 3.0, note="fragile, half costs: fails"),
    ))  # fmt: skip
    (row,) = table.to_dict("records")
    assert row == {
        "question": "more room", "verdict": "holds in part (1 of 3 fragile)",
        "conditions": "holds: filetree · server_days; inconclusive: pgbench",
        "effect (95 %)": "-2.0 ± 1.0 MiB to +10.0 ± 1.0 MiB", "could have seen": "4.5 MiB",
    }  # fmt: skip


def test_many_conditions_are_counted_and_shares_are_told_as_such():
    names = [f"a condition with a long name, number {i}" for i in range(9)]
    rows = [Verdict("C1", "inconclusive", name, "", 0.05, 0.01, 0.2, "share of replicas", question="deadlocks",
                    condition=name, seen=0.31 if i else float("nan"), seen_unit="share of replicas")
            for i, name in enumerate(names)]  # fmt: skip
    (row,) = story.told(verdicts(*rows)).to_dict("records")
    assert row["conditions"] == "9 conditions"
    assert row["effect (95 %)"] == "5% (1.0% to 20.0%) of replicas"
    assert row["could have seen"] == "31% of replicas; nothing under 1"


def test_what_was_published_is_read_back_into_the_places_of_a_page(tmp_path):
    report = Report("So.", [room("holds", "filetree", 10.0), Verdict("C4", "observed", "a figure", "7")])
    stage = Stage("0123456789ab", "confirmed", "Protocol 0123456789ab.")
    writing.write(tmp_path / "c4", "C4: more room.", report, stage)
    writing.publish(tmp_path / "c4", tmp_path / "pictures")
    found = story.read(tmp_path / "pictures", ["c4", "c5"])
    texts = story.blocks(["c4", "c5"], {}, found)
    page = "# A page\n\n<!-- figures: glance -->\nlast year\n\n<!-- figures: c4 -->\n\n"
    new = story.renewed(page, texts)
    assert "| C4 | - | 1 holds | 0123456789ab |" in new
    assert "| more room | holds | filetree | +10.0 ± 1.0 MiB | - |" in new
    assert "| a figure: - | observed | - | - | - |" in new
    assert "last year" not in new
    assert story.renewed("<!-- figures: c5 -->\n\n", texts).count("Not confirmed yet") == 1
    assert story.renewed(new, texts) == new
    with pytest.raises(KeyError):
        story.renewed("<!-- figures: c9 -->\n\n", texts)
