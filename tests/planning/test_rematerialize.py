"""The fewest values saved for the walk back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from flexsn import FlexSN, surrogate
from flexsn.ir.graph import LeafKind
from flexsn.ir.plan import BackwardPlan, Saved
from flexsn.report.build import plan_kernels

spike = surrogate.ATan()


def saved(core: Callable[..., Any]) -> Saved:
    plan = plan_kernels(FlexSN(core), "triton", torch.float32).plans["backward"][0]
    assert isinstance(plan, BackwardPlan) and plan.saved is not None
    return plan.saved


def test_lif_saves_the_charged_membrane_alone() -> None:
    found = saved(lambda x, v: ((s := spike((h := v + (x - v) / 2.0) - 1.0)), h * (1.0 - s)))
    (charged,) = found.values
    assert charged.op == "add" and charged.args[0].op is LeafKind.STATE
    assert not any(a.op in (LeafKind.INPUT, LeafKind.STATE) for n in found.walk_back for a in n.args)


def test_a_learnable_decay_needs_one_value_more() -> None:
    w = nn.Parameter(torch.tensor(0.3))
    found = saved(lambda x, v: ((s := spike((h := v + (x - v) * w) - 1.0)), h * (1.0 - s)))
    assert sorted(str(n.op) for n in found.values) == ["add", "sub"]


def test_a_linear_core_saves_nothing() -> None:
    assert saved(lambda x, v: (v + x, (v + x) * 0.5)).values == ()


def test_the_c_plus_plus_target_saves_states_alone() -> None:
    plan = plan_kernels(FlexSN(lambda x, v: (spike(v + x), v + x)), "cpp", torch.float32).plans["backward"][0]
    assert isinstance(plan, BackwardPlan) and plan.saved is None
