"""Writes the figures of experiments/README.md: what each claim came to, from the verdicts in experiments/pictures/.

`python docs/make_claims.py` after `+experiment=all experiment.publish=experiments/pictures`, explored and confirmed;
tests/experiments/test_story.py holds the page to the verdicts.
"""

from pathlib import Path

from kmemexp.claims import finding, story

FOLDER = finding.folder()
PAGE = FOLDER / "README.md"
PICTURES = FOLDER / "pictures"


def page() -> str:
    """Text of the page, its places filled from what was published."""
    names = finding.names()
    explored, confirmed = (story.read(folder, names) for folder in (PICTURES, PICTURES / "confirmed"))
    return story.renewed(PAGE.read_text("utf-8"), story.blocks(names, explored, confirmed))


if __name__ == "__main__":
    Path(PAGE).write_text(page(), "utf-8")
