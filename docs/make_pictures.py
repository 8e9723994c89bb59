"""Draws the pictures of the pages, docs/images/*.svg, by running the code that stands on them.

python docs/make_pictures.py            # all pages
python docs/make_pictures.py README.md  # these

The blocks of Python of a page are one program, which saves its pictures where it runs. Of a block that shows a change,
the new lines run. A block of text right behind one is what it prints.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
PRINTED_BY_THE_LIBRARY = {"how-it-works.md", "kernels.md"}  # forms and kernels, no programs
BLOCK = re.compile(r"^```(python|diff)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def blocks(text: str, gone: str = "-") -> Iterator[tuple[str, str | None]]:
    """Each block, on the lines where the page has it, and what it prints if the page says so.

    Args:
        text: of the page.
        gone: the lines of a change that are left out; ``"+"`` for the program as it was.
    """
    for found in BLOCK.finditer(text):
        kind, code, shown = found.groups()
        if kind == "diff":
            code = "".join("\n" if line[0] == gone else line[1:] or "\n" for line in code.splitlines(keepends=True))
        yield "\n" * text.count("\n", 0, found.start(2)) + code, shown


def pages() -> list[Path]:
    """The pages that have code."""
    found = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    return [page for page in found if page.name not in PRINTED_BY_THE_LIBRARY and any(blocks(page.read_text()))]


def name_of(page: Path) -> str:
    """The module that a page is while it runs; not that of a package of the same name, such as nir."""
    return f"page_{page.stem.replace('-', '_')}"


def run(page: Path) -> Iterator[str | None]:
    """Run a page, block by block, each time handing out what the block is said to print."""
    module = sys.modules[name] = ModuleType(name := name_of(page))  # what is pickled is found by name
    for code, shown in blocks(page.read_text()):
        exec(compile(code, str(page), "exec"), module.__dict__)
        yield shown


if __name__ == "__main__":
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "flexsn"  # the same picture is the same file
    os.environ["SOURCE_DATE_EPOCH"] = "0"
    IMAGES.mkdir(exist_ok=True)
    os.chdir(IMAGES)
    for page in [ROOT / name for name in sys.argv[1:]] or pages():
        if "savefig" in page.read_text():
            list(run(page))
