"""Draw docs/maps.svg, the picture in README: what the maps of the main sweep's designs look like over time.

Run `python -m kmemexp +sweep=fragmentation`, then `python docs/draw_maps.py`.
"""

import sys
from pathlib import Path

from kmemexp.planning.plan import plan_from
from kmemexp.report import tables
from kmemexp.report.html import strips
from kmemexp.store.store import with_results

TARGET = Path(__file__).resolve().parent / "maps.svg"
CELLS = ["workload=filetree", "machine.cpus=8", "interrupts.rate_hz=5000", "machine.kva_bytes=160MiB"]


def main(words: list[str]) -> None:
    """Draw what the results hold of the cells that are shown."""
    (plan,) = plan_from(["+sweep=fragmentation", *CELLS, *words])
    made = tables.make(plan, with_results(plan.root))
    if made is None:
        raise SystemExit("these cells are not in the results: run the sweep first")
    svg = strips.draw(made)[0].svg
    TARGET.write_text(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
