"""The README and the pages of docs/ run, block by block, print what they show, and draw the pictures they show."""

from __future__ import annotations

import re
import runpy
import socket
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch

from flexsn import FallbackWarning

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

ROOT = Path(__file__).parent.parent
MADE = runpy.run_path(str(ROOT / "docs" / "make_pictures.py"))


@pytest.fixture(autouse=True)
def as_one_of_one_process_started_by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("page", MADE["pages"](), ids=lambda page: page.stem)
def test_a_page_runs_and_prints_and_draws_what_it_shows(
    page: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, page.stem.replace("-", "_"), None)  # put back afterwards
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # Inductor has its own tests
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        for shown in MADE["run"](page):
            printed = capsys.readouterr().out
            assert shown is None or printed == shown
    drawn = {path.name for path in tmp_path.glob("*.svg")}
    assert drawn <= {Path(image).name for image in re.findall(r"!\[[^]]*\]\((.+?)\)", page.read_text())}
    assert all((MADE["IMAGES"] / name).exists() for name in drawn), "run: python docs/make_pictures.py"


COMING_FROM = sorted((ROOT / "docs").glob("coming-from-*.md"))


def lines(page: Path, column: int) -> list[str]:
    """The code in a column of a page's table of lines there and here."""
    table = page.read_text().partition("| there | here |\n|---|---|\n")[2].partition("\n\n")[0]
    return [code for row in table.splitlines() for code in re.findall(r"`([^`]+\))`", row.split(" | ")[column])]


@pytest.mark.parametrize("page", COMING_FROM, ids=lambda page: page.stem)
def test_the_lines_here_run(page: Path) -> None:
    list(MADE["run"](page))
    here = lines(page, 1)
    assert len(here) >= 4
    for line in here:
        exec(line, vars(sys.modules[page.stem.replace("-", "_")]))


@pytest.mark.parametrize("page", COMING_FROM, ids=lambda page: page.stem)
def test_the_gains_are_those_of_the_table(page: Path) -> None:
    library, said = page.stem.rpartition("-")[2], " ".join(page.read_text().split())
    rows = (ROOT / "docs" / "peers.md").read_text().splitlines()
    row = next(row for row in rows if row.lower().startswith(f"| {library} | ") and row.count("|") == 6)
    gains = re.findall(r"[\d.]+", row.split("|", 4)[4])
    assert (library == "rnnbuilder" or len(gains) == 2) and all(f" {gain} times" in said for gain in gains)
