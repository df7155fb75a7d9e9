"""Pages of the site: the repository's own Markdown at its own paths, and the notebook as a page. A hook of MkDocs.

So a link from one page to another is the same on the site, on a forge and in an editor.
"""

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
SHOWN = (
    "*.md",
    "LICENSE",
    "CITATION.cff",
    "deploy/*",
    "docs/**/*.md",
    "docs/**/*.svg",
    "experiments/**/*.md",
    "experiments/pictures/**/*",
    "experiments/*.ipynb",
    "kmemexp/data/traces/README.md",
)
"""What the site holds: pages, and what they link to."""


UNSORTED = "Understanding"
"""Where pages of docs/ stand that the navigation does not name."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of docs/ that the navigation does not name."""
    named = json.dumps(config.nav)
    section = next(one[UNSORTED] for one in config.nav or [] if UNSORTED in one)
    section += [name for path in sorted((ROOT / "docs").glob("*.md")) if (name := f"docs/{path.name}") not in named]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the repository's pages in the place of those below docs/."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    for path in sorted({path for pattern in SHOWN for path in ROOT.glob(pattern) if path.is_file()}):
        name = path.relative_to(ROOT).as_posix()
        files.append(File(name, str(ROOT), config.site_dir, use_directory_urls=False))
        if path.suffix == ".ipynb":
            files.append(File.generated(config, name.replace(".ipynb", ".md"), content=page(path)))
    return files


def page(notebook: Path) -> str:
    """Give the cells of a notebook as Markdown: text as it is, code in fences."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    kinds = [cell["cell_type"] for cell in cells]
    parts = [f"```python\n{text}\n```" if kind == "code" else text for text, kind in zip(texts, kinds, strict=True)]
    return "\n\n".join([*parts, f"The notebook: [{notebook.name}]({notebook.name})."]) + "\n"
