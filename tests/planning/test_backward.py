"""The plan of the backward pass, branch by branch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flexsn
from flexsn import surrogate
from flexsn.ir.graph import LeafKind, Node
from flexsn.ir.plan import BackwardPlan, Holds, Role
from flexsn.ir.step import StepVjp
from flexsn.kernels.backend import backend
from flexsn.planning import Gradients, ScanRequest, plan_scan
from flexsn.planning.backward import share_accumulators
from flexsn.tracing.host_program import HostProgram
from flexsn.tracing.tracer import Tracer

F16, F32 = torch.float16, torch.float32
spike = surrogate.ATan()
shared, per_channel = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.rand(4))


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def summands_by_way_of_another_state(x: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """At the last step only ``v``, which is the output, has a gradient; at all others ``w`` has one too."""
    charged = v * 0.5 + w * 0.25 + x
    return charged, charged, w + v


def backward_plan(
    core: Callable[..., Any],
    num_states: int = 1,
    *,
    finals: bool = False,
    states: bool = True,
    parameters: bool = True,
    memory: torch.dtype = F32,
) -> BackwardPlan:
    tracer = Tracer(core, (F32,), (F32,) * num_states, torch.device("cpu"))
    gradients = Gradients((memory,), (finals,) * num_states, (True,), (states,) * num_states, parameters)
    request = ScanRequest((memory,), (memory,), training=True, interval=4, gradients=gradients)
    plan = plan_scan(tracer.graph, tracer.vjp, request, backend("cpp")).backward
    assert plan is not None
    return plan


def names(plan: BackwardPlan, holds: Holds) -> list[str]:
    return [slot.name for slot in plan.slots if slot.holds is holds]


def test_the_last_step_is_a_branch_of_its_own_since_no_gradient_comes_from_after_it() -> None:
    last, usual = backward_plan(lif).branches
    assert last.when is not None and usual.when is None
    assert not any(n.op is LeafKind.STATE_COTANGENT for n in args(last.program.body))
    assert any(n.op is LeafKind.STATE_COTANGENT for n in args(usual.program.body))


def args(nodes: tuple[Node, ...]) -> set[Node]:
    return {a for n in nodes for a in n.args}


def test_a_gradient_of_the_final_state_makes_all_steps_alike() -> None:
    plan = backward_plan(lif, finals=True)
    assert len(plan.branches) == 1
    assert [c.initial.holds for c in plan.carries if c.initial] == [Holds.FINAL_COTANGENT]


def test_live_states_are_recomputed_from_checkpoints() -> None:
    plan = backward_plan(lif)
    assert (names(plan, Holds.STATE), names(plan, Holds.CHECKPOINT)) == (["v0"], ["c0"])
    assert [s.name for s, _ in plan.advance_loads] == ["x0"]
    assert [s.name for s in plan.walk_back_loads] == ["gy0"]


def test_a_linear_core_reads_no_state_and_no_input() -> None:
    plan = backward_plan(lambda x, v: (v + x, v * 0.5))
    assert plan.states == () and {s.holds for s in plan.slots if not s.role.writes} == {Holds.COTANGENT}
    assert plan.bytes_per_lane_step == 4 + 4


def test_gradients_lie_in_memory_as_what_they_are_of() -> None:
    plan = backward_plan(lif, memory=F16)
    assert {s.name: s.dtype for s in plan.slots if s.name in ("gy0", "gx0", "gv0")} == {
        **{"gy0": F16, "gx0": F16},
        "gv0": F32,
    }


def test_the_gradient_of_an_initial_state_is_stored_only_if_wanted() -> None:
    assert names(backward_plan(lif), Holds.GRAD_STATE) == ["gv0"]
    assert names(backward_plan(lif, states=False), Holds.GRAD_STATE) == []


def test_a_parameter_all_lanes_share_is_summed_in_groups() -> None:
    plan = backward_plan(lambda x, v: (v * shared + x * per_channel, v * shared))
    assert sorted(s.role.value for s in plan.accumulators) == ["group_store", "lane_store"]
    assert backward_plan(lambda x, v: (x * shared, v), parameters=False).accumulators == ()


def test_sums_that_torch_makes_other_gradients_of_are_other_sums() -> None:
    host = HostProgram()
    one, other = (StepVjp((), (), (), (host.leaf(name),), ()) for name in "ab")
    assert [len(share_accumulators(vjps)[0]) for vjps in ([one, one], [one, other])] == [1, 2]


def test_steps_whose_parameters_gradients_are_alike_share_accumulators() -> None:
    plan = backward_plan(lambda x, v: (v * 2.0 + x * per_channel, v * 0.5 + x * per_channel))
    assert len(plan.branches) == 2 and len(plan.groups) == 1 and len(plan.accumulators) == 1
    assert all(branch.accumulate[0] is not None for branch in plan.branches)


def test_steps_whose_parameters_gradients_differ_have_accumulators_apart() -> None:
    plan = backward_plan(lambda x, v: (v + x * per_channel, v * shared))  # the last step has one, all others have two
    assert len(plan.branches) == len(plan.groups) == 2
    assert [[n is not None for n in b.accumulate] for b in plan.branches] == [[False, False, True], [True, True, False]]


def test_a_summand_that_is_absent_at_the_last_step_is_minus_zero() -> None:
    plan = backward_plan(summands_by_way_of_another_state, 2)
    assert [(c.leaf.index, c.leaf.part) for c in plan.carries if c.leaf.index == 0] == [(0, 0), (0, 1)]
    (missing,) = (branch.grad_states[1] for branch in plan.branches[:1])
    assert missing is not None and repr(missing.value) == "-0.0"  # -0.0 adds nothing, 0.0 would


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_gradient_of_minus_zero_stays_minus_zero_where_a_summand_is_absent(steps: int) -> None:
    got: dict[str, list[float]] = {}
    for name in ("cpp", "torch"):
        x = torch.zeros(steps, 3, requires_grad=True)
        states = tuple(torch.zeros(3, requires_grad=True) for _ in range(2))
        y, _ = flexsn.scan(summands_by_way_of_another_state, x, states, backend=name)
        grads = torch.autograd.grad(y, [x, *states], torch.full_like(y, -0.0))
        got[name] = [torch.copysign(torch.ones(()), g).sum().item() for g in grads]
    assert got["cpp"] == got["torch"]


def test_a_summand_that_only_the_last_step_has_is_carried_too() -> None:
    def core(x: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        charged = v * 0.5 + x
        return charged, charged, v * 0.25  # of w there is a gradient at the end alone

    plan = backward_plan(core, 2, finals=True)
    counts = [sum(n is not None and not n.is_const for n in b.grad_states[:2]) for b in plan.branches]
    assert counts == [2, 1, 1]
    assert [(c.leaf.index, c.leaf.part) for c in plan.carries if c.leaf.index == 0] == [(0, 0), (0, 1)]


def test_roles_say_what_is_written() -> None:
    plan = backward_plan(lif)
    assert {s.holds for s in plan.slots if s.role.writes} == {Holds.GRAD_INPUT, Holds.GRAD_STATE}
    assert {s.role for s in plan.slots if s.holds is Holds.GRAD_INPUT} == {Role.STORE}
