"""ScanOptions: checked once, equal by value, cheap to look up."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch

from flexsn.execution.options import ScanOptions
from tests import fresh


@pytest.mark.parametrize(
    "wrong, text",
    [
        ({"backend": "gpu"}, "backend must be one of 'auto', .*, got 'gpu'"),
        ({"checkpoint": 0}, 'checkpoint must be "auto" or a number of steps >= 1, got 0'),
        ({"checkpoint": 2.0}, "got 2.0"),
        ({"output_dtype": torch.int64}, "output_dtype must be None or one of torch's bool, .*; got torch.int64"),
        ({"output_dtype": (None, "float")}, "got 'float'"),
        ({"detach_every": 0}, "detach_every must be None or a number of steps >= 1, got 0"),
        ({"detach_every": True}, "got True"),
        (
            {"time_reduction": "median"},
            "time_reduction must be None or one of 'sum', 'mean', 'last', 'max', got 'median'",
        ),
        ({"rate": 1}, "rate must be True or False, got 1"),
    ],
)
def test_wrong_values(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ScanOptions(**wrong)
    with pytest.raises(ValueError, match=text):
        replace(ScanOptions(), **wrong)


def test_equal_values_are_one_key() -> None:
    asked: Any = [torch.bool, None]
    options = ScanOptions("cpp", 1, 4, asked, (0, 2))
    assert options == ScanOptions("cpp", 1, 4, (torch.bool, None), (0, 2))
    assert {options: 1}[replace(ScanOptions("cpp", 1, 4, asked), wanted_states=(0, 2))] == 1
    assert options != replace(options, checkpoint=5)


def test_it_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        ScanOptions().backend = "cpp"  # type: ignore[misc]


def test_copies_are_equal_in_another_process_too() -> None:
    options = ScanOptions("cpp", output_dtype=(torch.uint8,))
    assert copy.deepcopy(options) == options
    program = f"import pickle; o = pickle.loads({pickle.dumps(options)!r}); print(o in {{type(o)(*o._values())}})"
    printed = fresh.run(program).stdout
    assert printed.strip() == "True"
