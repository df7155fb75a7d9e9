"""What all kernels of the simulated machine have in common: types, one order of parameters, one meaning of a prefix."""

import ast
import itertools
import re
from collections import defaultdict
from pathlib import Path

SIM = Path(__file__).resolve().parents[1] / "kmemexp" / "sim"
DECORATORS = {"kernel", "outlined", "template", "entry"}
ORDER = ("world", "state_a", "state_b", "state_c", "arena", "st", "m", "s", "objects", "counters", "reg", "i", "x")
"""The standing parameters, in this order before all others (docs/glossary.md says what they are)."""
LETTERS = {"m": "Memory", "c": "Cpu", "s": "Stream", "x": "Ctx", "l": "Lock"}
"""Letters of the machine with a clock, and what each is there."""
ADDED = {"WOULD_SLEEP", "ON_DEADLOCK"}
"""Words that are no prefix."""


def kernels() -> list[tuple[str, ast.FunctionDef]]:
    """All kernels, each with its module."""
    found = []
    for path in sorted(SIM.rglob("*.py")):
        module = ".".join(path.relative_to(SIM.parents[1]).with_suffix("").parts)
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                names = {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
                if names & DECORATORS or module == "kmemexp.sim.slots":
                    found.append((module, node))
    return found


def stands(name: str, module: str, names: list[str]) -> bool:
    """Whether a parameter is one of the standing ones: a letter may be something else outside the engine."""
    engine = ".engine." in module
    if name in ("m", "s", "x"):
        return engine
    if name == "i":
        return "reg" in names
    if name == "objects":
        return engine or "counters" in names
    return name in ORDER


def test_there_are_kernels() -> None:
    assert len(kernels()) > 500


def test_every_kernel_says_what_it_takes_and_gives() -> None:
    bare = [
        f"{module}.{node.name}"
        for module, node in kernels()
        if node.returns is None or any(a.annotation is None for a in node.args.args)
    ]
    assert not bare


def test_no_kernel_has_what_numbas_passes_are_left_out_for() -> None:
    """`jit.passes.FOREIGN`: closures, comprehensions, `with`, `raise`."""
    foreign = (
        ast.Lambda,
        ast.FunctionDef,
        ast.ListComp,
        ast.SetComp,
        ast.DictComp,
        ast.GeneratorExp,
        ast.With,
        ast.Raise,
    )
    has = [
        f"{module}.{node.name}"
        for module, node in kernels()
        if module != "kmemexp.sim.slots" and not any(getattr(d, "id", "") == "entry" for d in node.decorator_list)
        and any(isinstance(inner, foreign) for inner in ast.walk(node) if inner is not node)
        and not is_stub(node)
    ]  # fmt: skip
    assert not has


def is_stub(node: ast.FunctionDef) -> bool:
    """Whether a function only stands for another one."""
    return isinstance(node.body[-1], ast.Raise) and len(node.body) <= 2


def test_standing_parameters_come_first_and_in_one_order() -> None:
    wrong = []
    for module, node in kernels():
        names = [a.arg for a in node.args.args]
        standing = [n for n in names if stands(n, module, names)]
        first = [*sorted(standing, key=ORDER.index), *(n for n in names if n not in standing)]
        if names != first:
            wrong.append(f"{module}.{node.name}({', '.join(names)}): must be ({', '.join(first)})")
    assert not wrong


def test_a_letter_means_one_thing_in_the_engine() -> None:
    for module, node in kernels():
        if ".engine." in module and module != "kmemexp.sim.engine.heap":
            for arg in node.args.args:
                if arg.arg in LETTERS:
                    assert ast.unparse(arg.annotation) == LETTERS[arg.arg], f"{module}.{node.name}: {arg.arg}"


def test_a_prefix_of_constants_has_one_home() -> None:
    """But for what allocators have in common: S_ is a slab, K_ a cache, Z_ a zone, C_ a CPU's cache in each of them."""
    shared = {"S_", "K_", "Z_", "C_", "A_", "F_", "N_"}
    homes: dict[str, set[str]] = defaultdict(set)
    for path in sorted(SIM.rglob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            names = (n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))
            for prefix in (m[1] for name in names if (m := re.match(r"([A-Z]{1,2}_)[A-Z]", name))):
                homes[prefix].add(str(path.relative_to(SIM)))
    words = {"GO_", "IN_", "NO_", "ON_", "TO_", "BY_", "VM_", "PV_", "BT_", "DO_"}
    several = {p: sorted(where) for p, where in homes.items() if len(where) > 1 and p not in words | shared}
    assert not several
    assert not [w for p in shared for w in homes[p] if not w.startswith("allocators/")]


def test_no_file_begins_with_a_wall_of_imports() -> None:
    for path in sorted(SIM.rglob("*.py")):
        body = ast.parse(path.read_text("utf-8")).body
        lines = [n.end_lineno - n.lineno + 1 for n in body if isinstance(n, ast.Import | ast.ImportFrom)]
        assert sum(lines) <= 60, path


def test_no_two_tables_of_the_machine_overlap() -> None:
    """Globals and counters share the first places of the machine's memory."""
    from kmemexp.sim.engine.tables import glob, seen

    of = [
        {v for k, v in vars(t).items() if k.isupper() and k != "COLUMNS" and isinstance(v, int)} for t in (glob, seen)
    ]
    assert not of[0] & of[1]
    assert max(itertools.chain(*of)) < glob.COLUMNS
