"""The plan of the forward pass."""

from __future__ import annotations

import pytest
import torch

from flexsn.ir.graph import Builder, LeafKind
from flexsn.ir.plan import Holds, Role
from flexsn.ir.step import StepGraph
from flexsn.planning.forward import plan_forward
from flexsn.planning.request import ScanRequest

F16, F32, I32 = torch.float16, torch.float32, torch.int32
B = Builder()
X, UNREAD = (B.leaf(LeafKind.INPUT, i, F32) for i in range(2))
V, COUNT = B.leaf(LeafKind.STATE, 0, F32), B.leaf(LeafKind.STATE, 1, I32)
W = B.leaf(LeafKind.OPERAND, 0, F32)
DECAY = B.op("exp", W, dtype=F32)
CHARGED = B.op("add", B.op("mul", V, DECAY, dtype=F32), X, dtype=F32)
NEXT_COUNT = B.op("add", COUNT, B.const(1, I32), dtype=I32)
STEP = StepGraph(B, (X, UNREAD), (V, COUNT), (CHARGED, NEXT_COUNT), (CHARGED, NEXT_COUNT))
INFERENCE = ScanRequest((F16, F32), (F16, I32), training=False)


def test_only_what_the_step_reads_is_loaded_in_the_dtype_it_has_in_memory() -> None:
    plan = plan_forward(STEP, INFERENCE, (), None)
    ((slot, leaf),) = plan.loads
    assert leaf is X and (slot.role, slot.dtype, slot.name) == (Role.LOAD, F16, "x0")
    ((slot, leaf),) = plan.lane_loads
    assert leaf is W and (slot.role, slot.holds) == (Role.LANE_LOAD, Holds.OPERAND)


def test_what_does_not_change_with_time_is_computed_before_the_loop() -> None:
    program = plan_forward(STEP, INFERENCE, (), None).program
    assert program.hoisted == (DECAY,)
    assert [n.op for n in program.body] == ["mul", "add", "add"]


def test_every_state_is_carried_from_its_initial_to_its_final_value_in_its_own_dtype() -> None:
    carries = plan_forward(STEP, INFERENCE, (), None).carries
    assert [(c.leaf, c.next) for c in carries] == [(V, CHARGED), (COUNT, NEXT_COUNT)]
    assert [c.initial.name for c in carries if c.initial] == ["v0", "v1"]
    assert [(c.final.name, c.final.dtype) for c in carries if c.final] == [("v_final0", F32), ("v_final1", I32)]


def test_inference_moves_inputs_and_outputs_alone() -> None:
    plan = plan_forward(STEP, INFERENCE, (), None)
    assert plan.checkpoints == () and plan.bytes_per_lane_step == 2 + 2 + 4


def test_training_moves_live_states_once_an_interval() -> None:
    plan = plan_forward(STEP, INFERENCE, (1,), 8)
    assert [(slot.name, leaf) for slot, leaf in plan.checkpoints] == [("c1", COUNT)]
    assert plan.bytes_per_lane_step == 2 + 2 + 4 + 4 / 8


@pytest.mark.parametrize(("interval", "unroll"), [(None, 4), (1, 1), (2, 2), (6, 2), (7, 1), (8, 4), (128, 4)])
def test_steps_in_flight_divide_the_interval(interval: int | None, unroll: int) -> None:
    assert plan_forward(STEP, INFERENCE, (), interval).unroll == unroll


def test_the_lanes_own_number_is_loaded_like_an_operand() -> None:
    lane = B.cast(B.coordinate(LeafKind.LANE_INDEX), F32)
    step = StepGraph(B, (X,), (), (B.op("mul", X, lane, dtype=F32),), ())
    plan = plan_forward(step, ScanRequest((F32,), (F32,), training=False), (), None)
    ((slot, leaf),) = plan.lane_loads
    assert (slot.holds, leaf.op) == (Holds.LANE_INDEX, LeafKind.LANE_INDEX)
    assert plan.program.hoisted == (lane,)
