"""What the site needs besides Sphinx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from site_parts import mathml
from site_parts.formulas import with_equations
from site_parts.neuron_pages import write_pages


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (mathml.inline, None), (mathml.display, None))
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / "made"))
    app.connect("autodoc-process-docstring", _equations, priority=400)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _equations(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    if what == "class" and name.startswith(("flexsn.neurons", "flexsn.surrogate")):
        lines[:] = with_equations("\n".join(lines)).split("\n")
