"""``python -m flexsn``: each command runs, and a wrong one says what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from argparse import Namespace
from importlib import metadata
from pathlib import Path

import pytest

from flexsn import CoreError
from flexsn import __main__ as command_line
from flexsn.commands import COMMANDS, Command, UsageError


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


def test_explain_of_a_core_in_a_file(own_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["explain", f"{own_file}:core"]) == 0
    assert "h = v + (x - v) / 2.0" in capsys.readouterr().out


def test_without_a_command_the_commands_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: python -m flexsn")
    assert all(f"    {command.name} " in said for command in COMMANDS) and len(COMMANDS) == 7


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_a_help_page(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main([command.name, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and command.what in said
    assert all(f"python -m flexsn {example}" in said for example in command.examples)


def test_options_it_does_not_have_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--nonsense"], ["demo", "--nonsense"], ["explain", "LIF", "--dtype", "int8"]):
        with pytest.raises(SystemExit) as ended:
            command_line.main(arguments)
        assert ended.value.code == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"flexsn {metadata.version('flexsn')}\n"


def test_an_unknown_command_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["nonsense"]) == 2
    said = capsys.readouterr().err
    assert "unknown command 'nonsense'" in said and "demo" in said and "bench" in said


def test_the_module_runs() -> None:
    done = subprocess.run([sys.executable, "-m", "flexsn", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m flexsn")


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (UsageError("there is none"), 2, "there is none\n"),
        (CoreError("the core is wrong", hint="mend it"), 1, "the core is wrong\n  hint:  mend it\n"),
    ],
)
def test_what_goes_wrong_ends_quietly(
    raised: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(options: Namespace) -> int:
        raise raised

    monkeypatch.setattr(command_line, "COMMANDS", (Command("fail", "fails", lambda parser: None, run),))
    assert command_line.main(["fail"]) == status
    assert capsys.readouterr().err == said


def test_a_fault_of_ours_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(options: Namespace) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(command_line, "COMMANDS", (Command("fail", "fails", lambda parser: None, run),))
    with pytest.raises(ZeroDivisionError):
        command_line.main(["fail"])


def test_what_it_is_piped_into_may_stop_reading() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run([sys.executable, "-m", "flexsn", "cache"], stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert done.returncode == 1 and done.stderr == b""


def test_it_is_installed_as_a_program_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'\n[project.scripts]\nflexsn = "{command_line.__name__}:main"\n' in project
    monkeypatch.setattr(sys, "argv", ["flexsn", "cache"])  # which calls it without arguments
    assert command_line.main() == 0 and "kernels" in capsys.readouterr().out
