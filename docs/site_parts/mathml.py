"""Equations as MathML: every browser shows it, no script and no other site is needed."""

from __future__ import annotations

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)


def mathml(tex: str, as_block: bool, where: nodes.Element) -> str:
    """LaTeX as MathML; what cannot be said is a warning, and so an error of the build."""
    try:
        made = str(tex2mathml(tex, as_block=as_block)).replace("<mo>'</mo>", "<mtext>′</mtext>")
        return made.replace("<math ", '<math displaystyle="true" ') if "<mfrac>" in made else made
    except MathError as error:
        logger.warning("%s in %r", error, tex, location=where)
        return ""


def inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(mathml(node.astext(), False, node))
    raise nodes.SkipNode


def display(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="equation">{mathml(node.astext(), True, node)}</div>')
    raise nodes.SkipNode
