"""The lines from which docs/coming-from-*.md lead run in the libraries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_pages import COMING_FROM, MADE, lines

ALSO = {
    "snntorch": """
from snntorch import utils
net = nn.Sequential(nn.Linear(16, 32), snn.Leaky(beta=0.9, init_hidden=True), nn.Linear(32, 10))
def slope(input_, grad_input, spikes):
    return grad_input / (1 + input_.abs()) ** 2
""",
    "rnnbuilder": "from rnnbuilder import snn",
}


@pytest.mark.parametrize("page", COMING_FROM, ids=lambda page: page.stem)
def test_the_lines_there_run(page: Path) -> None:
    library = page.stem.rpartition("-")[2]
    pytest.importorskip(library)
    namespace: dict[str, object] = {}
    for change in re.findall(r"^```diff\n.*?^```\n", page.read_text(), flags=re.MULTILINE | re.DOTALL):
        ((code, _),) = MADE["blocks"](change, gone="+")
        exec(code, namespace)
    exec(ALSO.get(library, ""), namespace)
    there = lines(page, 0)
    assert len(there) >= 4
    for line in there:
        exec(line, namespace)
