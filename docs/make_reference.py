"""Writes docs/reference/: what the code itself says of its metrics, designs, loads and settings.

`python docs/make_reference.py` writes the pages anew; tests/test_reference.py holds them to the code.
"""

from pathlib import Path

from kmemexp.planning.plan import open_loader
from kmemexp.report import catalogue, reference
from kmemexp.report.reference import Entry

FOLDER = Path(__file__).resolve().parent / "reference"
BY = "Written by `python docs/make_reference.py`; `python -m kmemexp action={}` prints the same."


def pages() -> dict[str, str]:
    """Text of each page by its file's name."""
    with open_loader() as loader:
        tables = {
            "metrics": reference.metrics(),
            "workloads": reference.workloads(loader),
            "knobs": reference.knobs(loader),
        }
        designs = catalogue.table(loader).to_dict("records")
    made = {f"{name}.md": reference.page(name.capitalize(), BY.format(name), found) for name, found in tables.items()}
    parts: dict[str, Entry] = {}
    rows = []
    for row in designs:
        facts = {key: str(row[key]) for key in ("layout", "arena", "malloc", "zone", "mbuf", "interrupts")}
        rows.append(Entry(row["design"], facts, f"{row['title']}. {row['about']}"))
        for name, models in row["models"].items():
            parts[name] = Entry(name, {"left out": row["leaves_out"][name] or "its docstring does not say"}, models)
    made["designs.md"] = reference.page("Designs", BY.format("designs"), rows) + reference.page(
        "Parts", "The code that each allocator and arena models, and what it leaves out.", sorted(parts.values())
    ).replace("# Parts", "\n## Parts", 1)
    return made


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")
