"""The one door to planning."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from flexsn import surrogate
from flexsn.ir.passes import watching
from flexsn.planning import Gradients, ScanPlans, ScanRequest, SequenceRules, plan_scan
from flexsn.planning.boundary import branch_at
from flexsn.tracing.tracer import Tracer

F32, F64 = torch.float32, torch.float64
spike = surrogate.ATan()


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


@dataclass
class Target:
    """A backend as planning sees it, which remembers what it was asked."""

    name: str = "a"
    saves_in_registers: bool = False
    asked: list[int] = field(default_factory=list)

    def choose_interval(self, step_bytes: int) -> int:
        self.asked.append(step_bytes)
        return 16


TRACER = Tracer(lif, (F32,), (F32,), torch.device("cpu"))
GRADIENTS = Gradients((F32,), (False,), (True,), (False,), False)
TRAINING = ScanRequest((F32,), (F32,), training=True)
BOTH = replace(TRAINING, gradients=GRADIENTS)


def plan(request: ScanRequest, target: Target, tracer: Tracer = TRACER) -> ScanPlans:
    return plan_scan(tracer.graph, tracer.vjp, request, target)


def forms(request: ScanRequest, target: Target) -> list[str]:
    names: list[str] = []
    tracer = Tracer(lif, (F32,), (F32,), torch.device("cpu"))
    with watching(lambda name, form: names.append(name)):
        plan(request, target, tracer)
    return [name for name in names if not name.startswith("recorded") and name != "vjp"]


def test_a_kind_of_call_is_planned_once_for_each_target() -> None:
    assert plan(BOTH, Target("a")) is plan(BOTH, Target("a"))
    assert plan(BOTH, Target("a")) is not plan(BOTH, Target("b"))
    assert plan(BOTH, Target("a")) is not plan(replace(BOTH, interval=2), Target("a"))


def test_forward_and_backward_of_a_call_share_the_forward_plan() -> None:
    assert plan(BOTH, Target()).forward is plan(TRAINING, Target()).forward


def test_plans_last_as_long_as_their_step() -> None:
    tracer = Tracer(lif, (F32,), (F32,), torch.device("cpu"))
    kept = weakref.ref(plan(BOTH, Target(), tracer).forward)
    gc.collect()
    assert kept() is not None
    del tracer
    gc.collect()
    assert kept() is None


def test_every_pass_is_announced_in_its_order() -> None:
    assert forms(replace(TRAINING, training=False), Target()) == ["inference plan"]
    assert forms(TRAINING, Target()) == ["forward plan"]
    assert forms(BOTH, Target()) == ["forward plan", "unified backward step", "backward plan"]
    by_rules = replace(TRAINING, training=False, rules=SequenceRules(lengths=True))
    assert forms(by_rules, Target()) == ["step by rules", "inference plan"]


def test_gradients_are_cut_where_the_rules_say() -> None:
    plans = plan(replace(BOTH, rules=SequenceRules(detach_every=3)), Target())
    assert plans.backward is not None
    before_cut, usual = plans.backward.branches
    assert [branch_at(plans.backward, t, 8) is before_cut for t in range(8)] == [t in (2, 5, 7) for t in range(8)]
    assert usual.when is None


def test_the_target_chooses_the_interval_by_the_bytes_of_inputs_and_live_states() -> None:
    tracer, target = Tracer(lif, (F32,), (F64,), torch.device("cpu")), Target()
    plans = plan(BOTH, target, tracer)
    assert target.asked == [4 + 8]
    assert plans.forward.interval == 16 and plans.backward is not None and plans.backward.interval == 16


def test_an_interval_that_was_asked_for_is_taken() -> None:
    target = Target("never asked")
    plans = plan(replace(BOTH, interval=3), target)
    assert target.asked == [] and plans.forward.interval == 3


def test_inference_asks_for_no_vjp_and_no_interval() -> None:
    def vjp(*_: Any) -> Any:
        raise AssertionError

    target = Target("inference")
    plans = plan_scan(TRACER.graph, vjp, replace(TRAINING, training=False), target)
    assert plans.backward is None and plans.forward.interval is None and target.asked == []


def test_only_a_target_that_saves_in_registers_divides_the_step() -> None:
    plans = [plan(BOTH, Target(str(saves), saves)).backward for saves in (True, False)]
    assert [p is not None and p.saved is not None for p in plans] == [True, False]


def without_surrogate(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return (v + x > 1.0).float(), v.detach()


def without_path(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return x.detach() * 2.0, v


def backward_of(core: Callable[..., Any], gradients: Gradients) -> object:
    tracer = Tracer(core, (F32,), (F32,), torch.device("cpu"))
    return plan(replace(TRAINING, gradients=gradients), Target(), tracer).backward


def test_gradients_that_lead_nowhere_have_no_backward_plan() -> None:
    assert backward_of(without_surrogate, GRADIENTS) is None
    assert backward_of(without_path, GRADIENTS) is None


def test_one_gradient_that_flows_is_enough() -> None:
    assert backward_of(without_path, replace(GRADIENTS, finals=(True,), states=(True,))) is not None
