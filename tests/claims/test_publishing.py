"""What is published of an experiment is of one report."""

from pathlib import Path

from kmemexp.claims import writing


def test_publishing_takes_away_what_was_published_of_that_experiment_before(tmp_path: Path) -> None:
    report, to = tmp_path / "c9", tmp_path / "pictures"
    report.mkdir()
    for name in ("verdicts.csv", "verdicts.md", "rates.md", "rates.svg"):
        (report / name).write_text(name)
    writing.publish(report, to)
    (to / "c8_verdicts.md").write_text("another one's")
    (report / "verdicts.md").write_text("long " * writing.LARGE_TABLE)
    (report / "rates.svg").unlink()
    writing.publish(report, to)
    assert sorted(path.name for path in to.iterdir()) == ["c8_verdicts.md", "c9_rates.md", "c9_verdicts.csv"]
