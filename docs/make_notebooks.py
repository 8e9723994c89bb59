"""Two of the examples as notebooks, run: ``python docs/make_notebooks.py`` writes ``examples/*.ipynb``.

A cell begins with ``# %%``, one of text with ``# %% [markdown]``; editors that know notebooks show an example itself as
one.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

__all__ = ["NOTEBOOKS", "made", "run"]

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = [EXAMPLES / f"{name}.ipynb" for name in ("custom_neuron", "long_memory")]
_TEXT = " [markdown]\n"


def made(path: Path) -> nbformat.NotebookNode:
    """The notebook of the example beside ``path``; nothing has run."""
    cells = []
    for text in re.split(r"^# %%", path.with_suffix(".py").read_text(), flags=re.MULTILINE)[1:]:
        if text.startswith(_TEXT):
            lines = text.removeprefix(_TEXT).strip().splitlines()
            cells.append(
                nbformat.v4.new_markdown_cell("\n".join(line.removeprefix("#").removeprefix(" ") for line in lines))
            )
        else:
            code = text.strip().removeprefix('if __name__ == "__main__":\n')
            cells.append(nbformat.v4.new_code_cell(code if text.strip() == code else _dedent(code)))
    for number, cell in enumerate(cells):
        cell["id"] = str(number)  # else a new one each time
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def _dedent(code: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in code.splitlines())


def run(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run it, as Jupyter would; what cells print and draw is kept."""
    NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":  # progress bars
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    for path in NOTEBOOKS:
        nbformat.write(run(made(path)), path)
        print(path.relative_to(Path.cwd()))
