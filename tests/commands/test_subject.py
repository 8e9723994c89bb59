"""What a command is about: by name, or in a file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch import nn

from flexsn import FlexSN, neurons
from flexsn.commands import UsageError
from flexsn.commands.subject import find_subject


def test_a_built_in_neuron_by_name() -> None:
    assert type(find_subject("PLIF")) is neurons.PLIF
    assert type(find_subject("spikingjelly.LIFNode")) is neurons.spikingjelly.LIFNode
    with pytest.raises(UsageError, match=r"snntorch.Leaky cannot be made without arguments: .*'beta'"):
        find_subject("snntorch.Leaky")


def test_a_core_a_module_and_a_neuron_in_a_file(own_file: Path) -> None:
    before = list(sys.path)
    assert type(find_subject(f"{own_file}:core")) is FlexSN
    leaky = find_subject(f"{own_file}:Leaky")
    assert isinstance(leaky.core, nn.Module) and [p.shape for p in leaky.parameters()] == [(3,)]
    assert isinstance(find_subject(f"{own_file}:Made.neuron"), FlexSN)
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (":nothing", "has no 'nothing'; it has core, mixing, Leaky, Made$"),
        ("", "has core, mixing, Leaky, Made; say which: .*my_file.py:NAME$"),
        (":number", "my_file.py:number is no core: int objects cannot be called$"),
        (":Made", r"(?s)my_file.py:Made cannot be made without arguments: .*'size'\nname one that is made"),
    ],
)
def test_what_is_not_in_the_file(name: str, says: str, own_file: Path) -> None:
    with pytest.raises(UsageError, match=says):
        find_subject(f"{own_file}{name}")


def test_names_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"flexsn.neurons has no neuron 'Lif'; there are: ALIF, .*PLIF"):
        find_subject("Lif")
    with pytest.raises(UsageError, match=r"flexsn.neurons.norse has no neuron 'No'; there are: .*LIF"):
        find_subject("norse.No")
    with pytest.raises(UsageError, match=r"there is no file .*missing.py"):
        find_subject(str(tmp_path / "missing.py"))


def test_a_file_that_fails_is_shown_from_its_own_line_on(tmp_path: Path) -> None:
    path = tmp_path / "broken_file.py"
    path.write_text("import torch\nsize = [][0]\n")
    with pytest.raises(UsageError) as raised:
        find_subject(f"{path}:core")
    said = str(raised.value).splitlines()
    assert said[0] == f"{path} cannot be imported" and said[2] == f'  File "{path}", line 2, in <module>'
    assert said[3] == "    size = [][0]" and said[-1] == "IndexError: list index out of range"
