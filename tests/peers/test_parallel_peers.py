"""The parallel family against SpikingJelly's, with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn.neurons import parallel

T = 7


@pytest.fixture(scope="module")
def jelly() -> Any:
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import neuron

    return neuron


def run(neuron: Any, x: Tensor, step_mode: str) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    y = torch.stack([neuron(x_t) for x_t in x]) if step_mode == "s" else neuron(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    (y * weights).sum().backward()
    assert x.grad is not None
    grads = {name: p.grad for name, p in neuron.named_parameters()}
    return {"spikes": y.detach(), "x": x.grad, **grads}


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("PSN", {"T": T}, "m"),
    ("MaskedPSN", {"k": 3, "T": T, "lambda_init": 0.3, "step_mode": "m"}, "m"),
    ("MaskedPSN", {"k": 3, "T": T, "lambda_init": 1.0, "step_mode": "m"}, "m"),
    ("MaskedPSN", {"k": 3, "T": T, "lambda_init": 1.0}, "s"),
    ("SlidingPSN", {"k": 3, "step_mode": "m"}, "m"),
    ("SlidingPSN", {"k": T + 3, "exp_init": False, "step_mode": "m"}, "m"),
    ("SlidingPSN", {"k": 3}, "s"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "arguments", "step_mode"), CASES)
def test_same_weights(jelly: Any, name: str, arguments: dict[str, Any], step_mode: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    theirs = getattr(jelly, name)(**arguments).to(dtype)
    torch.manual_seed(0)
    ours = getattr(parallel, name)(**arguments).to(dtype)
    for (key, a), (other, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert key == other and torch.equal(a, b)
    for p in theirs.parameters():
        torch.nn.init.normal_(p, 0.1, 0.5)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(T, 4, 5, dtype=dtype)
    wanted, got = run(theirs, x, step_mode), run(ours, x, step_mode)
    assert torch.equal(got["spikes"], wanted["spikes"]) and 0 < got["spikes"].mean() < 1
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for key in wanted:
        torch.testing.assert_close(got[key], wanted[key], rtol=tolerance, atol=tolerance)
