"""The site builds without a warning, and its notebook runs."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "experiments" / "tour.ipynb"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the site, built as strictly as can be."""
    pytest.importorskip("material", reason="pip install -e '.[docs]'")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder))
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    return folder


def test_a_link_leads_to_a_file_of_the_site(site: Path) -> None:
    """MkDocs itself looks at links of Markdown only; a page may have some in HTML, such as that of a picture."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    wrong = set()
    for page in pages:
        for link in re.findall(r'(?:href|src)="([^"#?]+)[#?"]', page.read_text("utf-8")):
            if not re.match(r"\w+:|//", link) and page.name != "404.html" and not (page.parent / link).exists():
                wrong.add((page.relative_to(site).as_posix(), link))
    assert wrong == set()


def test_the_site_asks_no_other_host_for_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert re.findall(r'<(?:script|img|link)[^>]* (?:src|href)="(?:https?:)?//[^"]*"', text) == []


def test_every_page_of_docs_is_in_the_site(site: Path) -> None:
    pages = [path.relative_to(ROOT).with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if not (site / page).exists()] == []
    assert (site / "experiments" / "tour.html").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="pip install -e '.[docs]'")
    nbclient = pytest.importorskip("nbclient", reason="pip install -e '.[docs]'")
    pytest.importorskip("ipykernel", reason="pip install -e '.[docs]'")
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    assert all(not cell.get("outputs") for cell in book.cells), "outputs are not kept: they would go stale"
    nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [out["data"] for cell in book.cells for out in cell.get("outputs", ()) if "data" in out]
    assert sum("vega" in json.dumps(data).lower() for data in shown) == 3, [list(data) for data in shown]
    assert sum("text/html" in data for data in shown) >= 4
    text = json.dumps(book.cells)
    assert "equivalent" in text or "worse" in text
    assert list(tmp_path.glob("results*")) == []
