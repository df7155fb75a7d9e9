"""The documentation is true: paths are there, links lead somewhere, the drawing shows the imports."""

import importlib.util
import pkgutil
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import kmemexp

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(p for p in ROOT.rglob("*.md") if not {".venv", "results", "build"} & set(p.relative_to(ROOT).parts))
SOURCES = sorted(
    path
    for folder in ("kmemexp", "hydra_plugins", "experiments", "benchmarks", "docs", "conf")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".yaml"}
)
TOP = ("kmemexp", "conf", "docs", "experiments", "benchmarks", "tests", "hydra_plugins", ".github", ".ci")
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(map(re.escape, TOP))})/[\w./*-]*[\w/*]")
LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def missing(text: str) -> list[str]:
    """Paths below the top folders that a text names and that are not there; `*` and NAME stand for any name."""
    named = {re.sub("NAME|DESIGN", "*", found.rstrip(".")) for found in PATH.findall(text)}
    return sorted(path for path in named if not any(ROOT.glob(path.rstrip("/"))))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_named_in_a_page_are_there(page: Path) -> None:
    found = missing(page.read_text())
    if page.parent != ROOT:  # a page may name the files beside it
        found = [path for path in found if not (page.parent / path).exists()]
    assert found == []


def test_paths_named_in_the_sources_are_there() -> None:
    found = {name(path): missing(path.read_text()) for path in SOURCES}
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    found = [one or other for one, other in LINK.findall(CODE.sub("", page.read_text()))]
    wrong = []
    for link in found:
        target, _, anchor = link.partition("#")
        if re.match(r"\w+:", target):
            continue
        path = (page.parent / target) if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            wrong.append(link)
    assert wrong == []


def anchors(page: Path) -> set[str]:
    """Anchors that a forge gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def test_files_named_in_the_story_are_in_their_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    story = text.partition("## The story of one cell")[2].partition("\n## ")[0]
    steps = re.findall(r"^\d+\. (.*(?:\n   .*)*)", story, re.MULTILINE)
    assert len(steps) == sum(bool(box.step) for box in drawing().BOXES.values())
    for step in steps:
        rooms = [ROOT / path for path in PATH.findall(step)]
        for file in re.findall(r"`([\w/]+\.py|\w+/)`", step):
            assert (ROOT / file).exists() or any((room / file).exists() for room in rooms), (file, step)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name)
def test_names_of_the_package_resolve(page: Path) -> None:
    for dotted in set(re.findall(r"(?<![\w/.-])kmemexp(?:\.[A-Za-z_]\w*)+", page.read_text())):
        assert pkgutil.resolve_name(dotted) is not None


def test_ten_questions_have_paths() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (.+\?) \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) >= 10
    assert all(PATH.search(answer) for _, answer in rows)


def test_the_table_of_rooms_is_whole() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    here = ROOT / "kmemexp"
    loose = {f"kmemexp/{path.name}" for path in here.glob("*.py") if path.name != "__init__.py"}
    rooms = {f"kmemexp/{path.name}/" for path in here.iterdir() if (path / "__init__.py").exists()}
    rooms -= {"kmemexp/data/", "kmemexp/sim/"}
    rooms |= {f"kmemexp/sim/{name}/" for name in ("engine", "allocators", "arenas")}
    assert {path for path in loose | rooms if f"`{path}`" not in text} == set()


def test_the_table_of_the_engine_is_whole() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = text.partition("## The machine with a clock")[2].partition("\n## ")[0]
    files = {path.name for path in (ROOT / "kmemexp" / "sim" / "engine").glob("*.py")} - {"__init__.py"}
    assert {file for file in files if f"`{file}`" not in section} == set()


def drawing() -> ModuleType:
    """docs/draw_rooms.py as a module."""
    spec = importlib.util.spec_from_file_location("draw_rooms", ROOT / "docs" / "draw_rooms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_rooms_are_drawn_as_the_imports_are() -> None:
    module = drawing()
    assert module.TARGET.read_text() == module.svg(), "python docs/draw_rooms.py draws it anew"


# The public face.


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changes = re.findall(r"^## \[(.+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert kmemexp.__version__ == project["version"] == str(citation["version"]) == changes[1]
    assert changes[0] == "Unreleased"
    assert citation["license"] == project["license"]


@pytest.mark.parametrize("file", [*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml"], ids=name)
def test_files_for_the_forge_are_yaml(file: Path) -> None:
    assert yaml.safe_load(file.read_text())


def test_issue_forms_are_whole() -> None:
    for file in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")):
        form = yaml.safe_load(file.read_text())
        if file.name == "config.yml":
            continue
        assert {"name", "description", "body"} <= form.keys()
        ids = [field["id"] for field in form["body"]]
        assert len(ids) == len(set(ids))
        assert all(field["attributes"]["label"] for field in form["body"])
