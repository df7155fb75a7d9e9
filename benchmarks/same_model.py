"""Say that edits of the simulator since a revision change no result, so that cells keep their keys.

python benchmarks/digest.py --against before.txt && python benchmarks/same_model.py REVISION [--dry]

`before.txt` holds the digests of that revision (`benchmarks/digest.py`). For each source that simulates cells and was
edited since, the digest that it has now is entered in kmemexp/parts/compat.json as standing for the one that it had.
New files, and edits that add an import or take one away, change which sources a cell reaches: they cannot be said to be
the same.
"""

import argparse
import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

from kmemexp import reach
from kmemexp.parts import finding, model

ROOT = Path(__file__).resolve().parents[1]


def before(module: str, revision: str) -> str | None:
    """Digest of a module's source at a revision; None where it was not there."""
    spec = reach.find(module)
    assert spec, module
    assert spec.origin, module
    path = Path(spec.origin).relative_to(ROOT).as_posix()
    shown = subprocess.run(
        ["git", "-C", str(ROOT), "show", f"{revision}:{path}"], capture_output=True, text=True, check=False
    )
    if shown.returncode:
        return None
    return hashlib.sha256(reach.stripped(shown.stdout, ast.parse(shown.stdout))).hexdigest()[:32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision")
    parser.add_argument("--dry", action="store_true", help="only tell what would be entered")
    args = parser.parse_args()
    reached = {
        name
        for arena in finding.parts("arenas")
        for timed in (False, True)
        for name in model.sources(finding.parts("allocators"), arena, timed=timed)
    }
    same = {name: dict(known) for name, known in model.compat().items()}
    for name in sorted(reached):
        old, new = before(name, args.revision), reach.meaning(name)
        if old is None:
            sys.exit(f"{name}: was not there at {args.revision}; a cell that reaches it is another one")
        if old != new and model.origin(new, same.get(name, {})) != model.origin(old, same.get(name, {})):
            same.setdefault(name, {})[new] = model.origin(old, same.get(name, {}))
            print(f"{name}: {new[:8]} stands for {old[:8]}")
    if not args.dry:
        model.COMPAT.write_text(json.dumps(same, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
