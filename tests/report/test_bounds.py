"""What a bound says of a comparison: how much of the distance is covered, and where nothing can be judged."""

import json

import pandas as pd
import pytest

from kmemexp.report import families
from kmemexp.report.comparison import compare
from kmemexp.report.notes import notes

KEPT, MOST = "map_superpages_mean_count", "map_superpages_bound_mean_count"


def rows(design, kept, most):
    return [
        {"design": design, "workload": "w", "replica": r, "status": "done", KEPT: a, MOST: b}
        for r, (a, b) in enumerate(zip(kept, most, strict=True))
    ]


def compared(*cells):
    table = compare(pd.DataFrame([row for cell in cells for row in rows(*cell)]), "ff", [KEPT])
    return table.set_index(table["design"].astype(str))


FIRST_FIT = ("ff", [6.0, 7.0, 6.5, 6.5, 6.0], [10.0, 11.0, 11.0, 10.0, 11.0])


def test_the_share_of_the_distance_to_ones_own_bound():
    """Means 6.4 and 8.4 of 10.6: 2.0 of 4.2 is covered, and the bound lies 66 % above the baseline."""
    found = compared(FIRST_FIT, ("other", [8.1, 8.9, 8.6, 8.4, 8.0], FIRST_FIT[2]))
    assert found.loc["other", ["bound", "gap_closed", "room"]].tolist() == pytest.approx([10.6, 2.0 / 4.2, 4.2 / 6.4])
    assert found.loc["other", "verdict"] == "better"
    assert found.loc["ff", "bound"] == pytest.approx(10.6)
    assert pd.isna(found.loc["ff", "gap_closed"])


def test_no_verdict_where_the_bound_leaves_no_room():
    near = [6.1, 7.1, 6.6, 6.6, 6.1]
    full = ("ff", FIRST_FIT[1], near)
    found = compared(full, ("other", near, near), ("loses", [5.0, 6.1, 5.4, 5.5, 5.0], near))
    assert found["verdict"].to_dict() == {"ff": "baseline", "other": "", "loses": ""}
    assert set(found["family"]) == {0}
    (again,) = families.one_family([found.reset_index(drop=True)])
    assert again["verdict"].tolist() == found["verdict"].tolist()


def foreseeing(arena):
    return json.dumps({"maps": {"arena": arena}, "workload": {"source": "synthetic"}})


def test_a_reference_that_knows_the_future_is_measured_and_never_judged_or_best():
    knows = ("clairvoyant", [9.1, 9.9, 9.6, 9.4, 9.0], FIRST_FIT[2])
    cells = [FIRST_FIT, knows, ("other", [8.1, 8.9, 8.6, 8.4, 8.0], FIRST_FIT[2])]
    frame = pd.DataFrame([row for cell in cells for row in rows(*cell)])
    arenas = {"clairvoyant": "foreseen", "ff": "vm_map", "other": "an_arena_that_is_gone"}
    table = compare(frame.assign(config=frame["design"].map(arenas).map(foreseeing)), "ff", [KEPT])
    found = table.set_index(table["design"].astype(str))
    assert found["role"].astype(str).to_dict() == {"ff": "baseline", "clairvoyant": "reference", "other": "compared"}
    assert found["verdict"].astype(str).to_dict() == {"ff": "baseline", "clairvoyant": "", "other": "better"}
    assert found.loc["clairvoyant", "gap_closed"] == pytest.approx(3.0 / 4.2)
    assert found.index[found["best"]].tolist() == ["other"]
    assert set(found["family"]) == {1}
    frame = frame.assign(cpus=1, ram_bytes=1, kva_bytes=1, panic="", deadlock="", cell_key="c", error="")
    (said,) = [line for line in notes(table, frame, ["design"], {"design": "ff"}, 0.95) if "the future" in line]
    assert said.startswith("clairvoyant: references")
    assert "71% to 71%" in said


def test_results_older_than_the_bound_are_judged_as_ever():
    cells = [FIRST_FIT, ("other", [8.1, 8.9, 8.6, 8.4, 8.0], FIRST_FIT[2])]
    frame = pd.DataFrame([row for cell in cells for row in rows(*cell)]).drop(columns=MOST)
    table = compare(frame, "ff", [KEPT])
    assert table["verdict"].tolist() == ["baseline", "better"]
    assert table["bound"].isna().all()


def test_the_notes_say_what_is_covered_and_what_is_not_judged():
    cells = [FIRST_FIT, ("other", [8.1, 8.9, 8.6, 8.4, 8.0], FIRST_FIT[2]), ("full", FIRST_FIT[1], FIRST_FIT[1])]
    frame = pd.DataFrame([row for cell in cells for row in rows(*cell)]).assign(
        cpus=1, ram_bytes=1, kva_bytes=1, panic="", deadlock="", cell_key="c", error=""
    )
    said = "\n".join(notes(compare(frame, "ff", [KEPT]), frame, ["design"], {"design": "ff"}, 0.95))
    assert "48% to 48% is covered" in said
    assert "no verdict in 1 of 2 comparisons" in said


def test_the_notes_say_whose_memory_is_a_lower_bound_without_a_clock():
    cells = [FIRST_FIT, ("other", [8.1, 8.9, 8.6, 8.4, 8.0], FIRST_FIT[2])]
    frame = pd.DataFrame([row for cell in cells for row in rows(*cell)]).assign(
        cpus=4, ram_bytes=1, kva_bytes=1, panic="", deadlock="", cell_key="c", error="", cost="none",
    )  # fmt: skip
    frame["config"] = frame["design"].map({"ff": '{"malloc": "buckets"}', "other": '{"malloc": "uma_today"}'})
    for changed, said in ((frame, True), (frame.assign(cost="zero"), False), (frame.assign(cpus=1), False)):
        lines = notes(compare(changed, "ff", [KEPT]), changed, ["design"], {"design": "ff"}, 0.95)
        assert any(line.startswith("Lower bound: other:") for line in lines) == said
