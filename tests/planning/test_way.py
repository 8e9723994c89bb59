"""The fused way: which steps have it, what is saved of each, and where the factors of a matrix's gradient are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn import surrogate
from flexsn.ir.graph import LeafKind, Node
from flexsn.ir.plan import BackwardPlan, ForwardPlan, Holds
from flexsn.ir.spec import verify
from flexsn.planning import Gradients, ScanRequest, plan_scan, way_of
from flexsn.tracing.tracer import Tracer

F32, F16 = torch.float32, torch.float16
H = 6
spike = surrogate.ATan()
W, U, DECAY = nn.Parameter(torch.rand(H, H)), nn.Parameter(torch.rand(H, H)), nn.Parameter(torch.rand(H))


@dataclass
class Target:
    name: str = "a"
    saves_in_registers: bool = False
    largest_matrix: int = 8

    def choose_interval(self, step_bytes: int) -> int:
        return 16


def lif(x: Tensor, v: Tensor, z: Tensor) -> Any:
    h = v + (x + z @ W - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s), s


def rate(x: Tensor, y: Tensor) -> Any:
    y = torch.tanh(x + y @ W)
    return y, y


def gated(x: Tensor, v: Tensor, z: Tensor) -> Any:
    gate = torch.sigmoid(x + z @ W)
    v = DECAY * v + (gate * z) @ U
    return spike(v - 1.0), v, gate


def plans(
    core: Callable[..., Any], num_states: int, inputs: bool = True, output: torch.dtype = F32
) -> tuple[ForwardPlan, BackwardPlan]:
    tracer = Tracer(core, (F32,), (F32,) * num_states, torch.device("cpu"))
    gradients = Gradients((output,), (False,) * num_states, (inputs,), (False,) * num_states, True)
    request = ScanRequest((F32,), (output,), training=True, gradients=gradients)
    found = plan_scan(tracer.graph, tracer.vjp, request, Target())
    assert found.backward is not None
    verify(found.forward)
    verify(found.backward)
    assert {s for s in reads(found.backward) if s.startswith("s")} <= {s.name for s, _ in found.forward.stores}
    return found.forward, found.backward


def reads(plan: BackwardPlan) -> set[str]:
    return {slot.name for slot in plan.slots if not slot.role.writes}


def saved(plan: ForwardPlan) -> list[Node]:
    return [node for slot, node in plan.stores if slot.holds is Holds.SAVED]


def factors(plan: BackwardPlan) -> list[tuple[str, str, int | None]]:
    return [(outer.left.slot.name, outer.right.slot.name, outer.right.state) for outer in plan.outers]


def test_a_recurrent_lif_neuron_saves_its_charged_membrane_alone() -> None:
    forward, backward = plans(lif, 2)
    (charged,) = saved(forward)
    assert charged.op == "add" and any(a.op is LeafKind.STATE for a in charged.args)
    assert forward.checkpoints == () and backward.states == ()
    products = [len(branch.program.products) for branch in backward.branches]
    assert products == [1] * len(backward.branches), "no product of the forward pass is computed again"


def test_the_gradient_of_a_matrix_is_of_what_is_there_anyway() -> None:
    forward, backward = plans(lif, 2)
    assert forward.read_again == (0,)
    assert factors(backward) == [("y0", "gx0", None)]
    assert backward.outers[0].left.state == 1, "the spikes of the step before"


def test_a_factor_that_is_nowhere_else_is_written_for_it() -> None:
    _, backward = plans(lif, 2, inputs=False)
    assert factors(backward) == [("y0", "f0", None)]
    assert all(branch.stores[-1][0].holds is Holds.FACTOR for branch in backward.branches)


def test_spikes_in_another_dtype_are_no_factors() -> None:
    forward, backward = plans(lif, 2, output=F16)
    assert forward.read_again == ()
    assert [n.op for n in saved(forward) if n.is_leaf] == [LeafKind.STATE]
    ((left, right, _),) = factors(backward)
    assert left.startswith("s") and right == "gx0"


def test_what_is_an_output_too_is_saved_where_the_step_needs_it() -> None:
    forward, _ = plans(rate, 1)
    assert len(saved(forward)) == 1


def test_stages_hold_what_later_ones_read() -> None:
    forward, _ = plans(gated, 2)
    first, second, last = forward.program.stages
    assert [len(stage.products) for stage in (first, second, last)] == [1, 1, 0]
    gate = next(n for n in second.nodes if n.op == "sigmoid")
    assert {gate, second.products[0].source} <= set(second.held) and first.products[0].source not in first.held


def test_matrices_are_slots_of_their_own() -> None:
    forward, backward = plans(gated, 2)
    for plan in (forward, backward):
        assert sum(slot.holds is Holds.MATRIX for slot in plan.slots) == 2


CONV = nn.Conv1d(3, 3, 3, padding=1)
INTEGERS = torch.ones(H, H, dtype=torch.int64)
NOT_FUSED: dict[str, tuple[Callable[..., Any], Target, int]] = {
    "convolution is no product with a matrix": (lambda x, v: (v, torch.tanh(CONV(v) + x)), Target(), H),
    "in fp32 and fp64": (lambda x, v: (v, torch.tanh((v > 0).long() @ INTEGERS + x)), Target(), H),
    "b kernels multiply no matrices": (rate, Target("b", largest_matrix=0), H),
    "matrices of up to 5 rows, not 6": (rate, Target(largest_matrix=5), H),
}


@pytest.mark.parametrize("why", NOT_FUSED)
def test_why_a_step_is_not_fused(why: str) -> None:
    core, target, size = NOT_FUSED[why]
    tracer = Tracer(core, (F32,), (F32,), torch.device("cpu"))
    way = way_of(tracer.graph, size, target)
    assert not way.fused and why in way.why


def test_a_matrix_that_fits_is_multiplied_in_the_kernel() -> None:
    tracer = Tracer(rate, (F32,), (F32,), torch.device("cpu"))
    assert way_of(tracer.graph, H, Target()).fused
