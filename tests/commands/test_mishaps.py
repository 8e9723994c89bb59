"""What a command is asked for that is not there: a line that says so, and status 2."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flexsn import __main__ as command_line

MISHAPS = {
    "a neuron without a core": (["check", "PSN"], "PSN scans no core"),
    "a folder that is not there": (["neurons", "--plot", "LIF", "--out", "{folder}/no/y.png"], "cannot be written"),
    "another kind of picture": (["neurons", "--plot", "LIF", "--out", "{folder}/y.nonsense"], "cannot be written"),
}
if not torch.cuda.is_available():
    MISHAPS["a device that is not there"] = ["bench", "--device", "cuda"], "torch sees no GPU here"


@pytest.mark.parametrize(("arguments", "said"), MISHAPS.values(), ids=MISHAPS)
def test_status_2(arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main([a.format(folder=tmp_path) for a in arguments]) == 2
    assert said in capsys.readouterr().err
