"""``python -m flexsn``: each command runs, and a wrong one says what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from flexsn import __main__ as command_line


def test_the_demo_learns_agrees_with_the_loop_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "demo.png"
    assert command_line.main(["demo", "--epochs", "2", "--picture", str(picture)]) == 0
    said = capsys.readouterr().out
    accuracy = re.search(r"held-out accuracy ([\d.]+)%", said)
    assert accuracy and float(accuracy[1]) > 80
    assert " 0 differ" in said or "no fused kernel here" in said
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_explain_prints_a_built_in_neuron(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["explain", "LIF"]) == 0
    assert "One step forward" in capsys.readouterr().out


def test_explain_says_which_neurons_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["explain", "NoSuchNeuron"]) == 2
    assert "PLIF" in capsys.readouterr().err


def test_explain_shows_every_form_on_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["explain", "LIF", "--passes"]) == 0
    assert "# ---- recorded forward ----" in capsys.readouterr().out


def test_explain_of_what_has_no_core_is_one_error_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["explain", "Neuron"]) == 1
    assert capsys.readouterr().err.startswith("no core\n")


def test_without_a_command_the_commands_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: python -m flexsn") and "demo" in said and "explain" in said and "bench" in said


def test_options_it_does_not_have_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--nonsense"], ["demo", "--nonsense"], ["explain", "LIF", "--dtype", "int8"]):
        with pytest.raises(SystemExit) as ended:
            command_line.main(arguments)
        assert ended.value.code == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"flexsn {metadata.version('flexsn')}\n"


def test_bench_hands_its_arguments_on(capfd: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["bench", "--help"]) == 0
    assert "--quick" in capfd.readouterr().out


def test_an_unknown_command_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["nonsense"]) == 2
    said = capsys.readouterr().err
    assert "unknown command 'nonsense'" in said and "demo" in said and "bench" in said


def test_the_module_runs() -> None:
    done = subprocess.run([sys.executable, "-m", "flexsn", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m flexsn")
