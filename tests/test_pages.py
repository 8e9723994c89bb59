"""The README and the pages of docs/: their code runs, prints and draws what they show, and their tables are current."""

from __future__ import annotations

import re
import runpy
import socket
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from flexsn import FallbackWarning, FlexSN
from flexsn.neurons import parallel

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

ROOT = Path(__file__).parent.parent
DOCS, README = ROOT / "docs", ROOT / "README.md"
MADE = runpy.run_path(str(DOCS / "make_pictures.py"))
COMING_FROM = sorted(DOCS.glob("coming-from-*.md"))
CALL = re.compile(r"`([^`]+\))`")
of_each_library = pytest.mark.parametrize("page", COMING_FROM, ids=lambda page: page.stem)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own_as_one_process_of_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in given.items():  # as torchrun does
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # Inductor has its own tests


def names_on(page: Path) -> dict[str, Any]:
    """What the code of a page that ran has defined."""
    return vars(sys.modules[MADE["name_of"](page)])


@pytest.mark.parametrize("page", MADE["pages"](), ids=lambda page: page.stem)
def test_a_page_runs_and_prints_and_draws_what_it_shows(
    page: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        for shown in MADE["run"](page):
            printed = capsys.readouterr().out
            assert shown is None or printed == shown
    drawn = {path.name for path in tmp_path.glob("*.svg")}
    assert drawn <= {Path(image).name for image in re.findall(r"!\[[^]]*\]\((.+?)\)", page.read_text())}
    assert all((MADE["IMAGES"] / name).exists() for name in drawn), "run: python docs/make_pictures.py"
    if page == README:
        y = names_on(page)["y"]
        assert y.shape == (32, 8, 128) and set(y.unique().tolist()) == {0.0, 1.0}


def test_the_readmes_links_lead_somewhere() -> None:
    links = set(re.findall(r"\]\(([^)]+)\)", README.read_text()))
    assert len(links) > 15 and not [link for link in links if not (ROOT / link).exists()]


def test_the_readme_lists_every_neuron_and_backend() -> None:
    table = README.read_text().partition("| | `flexsn.neurons` |\n")[2].partition("\n\n")[0]
    neurons = runpy.run_path(str(DOCS / "make_neurons.py"))["classes"]()
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted([*(n.__name__ for n in neurons), *parallel.__all__])
    backends = re.findall(r"^\| `(\w+)` \|", README.read_text(), flags=re.MULTILINE)
    assert set(FlexSN(lambda x, v: (x, v)).supported_backends) <= set(backends)
    for backend in backends:
        FlexSN(lambda x, v: (x, v), backend=backend)


def lines(page: Path, column: int) -> list[str]:
    """The code in a column of a page's table of lines there and here; what is the same here is there's."""
    table = page.read_text().partition("| there | here |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()]
    cells = [there + here if here.startswith("the same") else here for there, here in rows]
    return [code for cell in (cells if column else [there for there, _ in rows]) for code in CALL.findall(cell)]


@of_each_library
def test_the_lines_here_run(page: Path) -> None:
    list(MADE["run"](page))
    here = lines(page, 1)
    assert len(here) >= 4
    for line in here:
        exec(line, names_on(page))


@of_each_library
def test_the_gains_are_those_of_the_table(page: Path) -> None:
    library, said = page.stem.rpartition("-")[2], " ".join(page.read_text().split())
    rows = (DOCS / "peers.md").read_text().splitlines()
    row = next(row for row in rows if row.lower().startswith(f"| {library} | ") and row.count("|") == 6)
    gains = re.findall(r"[\d.]+", row.split("|", 4)[4])
    assert (library == "rnnbuilder" or len(gains) == 2) and all(f" {gain} times" in said for gain in gains)
