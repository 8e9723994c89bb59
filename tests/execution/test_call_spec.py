"""What the calls of one kind allocate and read."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from flexsn.execution.call import CallSpec
from flexsn.execution.options import ScanOptions
from flexsn.ir.layout import CallShape, TensorSpec
from flexsn.ir.plan import Holds, Plan, Role, Slot
from flexsn.kernels.backend import backend

F32 = torch.float32
CHECKPOINT = Slot(Role.CHECKPOINT_STORE, F32, Holds.CHECKPOINT, 0)


def spec(num_steps: int, *step: int) -> CallSpec:
    shape = CallShape(num_steps, step, 0, tuple(range(len(step) + 1)))
    return CallSpec(cast(Any, None), backend("cpp"), ScanOptions(), shape, torch.device("cpu"), (), cast(Any, None))


class Every:
    """A plan of which only the interval matters."""

    def __init__(self, interval: int | None) -> None:
        self.interval = interval


@pytest.mark.parametrize(
    ("steps", "interval", "checkpoints"),
    [(1, 4, 0), (4, 4, 0), (5, 4, 1), (8, 4, 1), (9, 4, 2), (3, 1, 2), (7, None, 0)],
)
def test_there_is_a_checkpoint_before_steps_k_2k_and_no_other(
    steps: int, interval: int | None, checkpoints: int
) -> None:
    plan = cast(Plan, Every(interval))
    assert spec(steps, 2, 3).dense(plan, CHECKPOINT) == TensorSpec((checkpoints, 2, 3), (6, 3, 1), F32)


def test_lanes_are_numbered_row_by_row_for_kernels_that_ask() -> None:
    reads = Slot(Role.LANE_LOAD, torch.int64, Holds.LANE_INDEX, 0)
    (lanes,) = spec(1, 2, 3).lane_index([CHECKPOINT, reads])
    assert lanes.tolist() == [[0, 1, 2], [3, 4, 5]] and lanes.dtype == torch.int64
    assert spec(1, 2, 3).lane_index([CHECKPOINT]) == []


def test_without_lanes_nothing_is_compiled() -> None:
    spec(1, 0).bind(cast(Plan, None), [])([])
