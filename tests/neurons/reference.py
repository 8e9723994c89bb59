"""The truth a preset is held against: its equation as a plain function, looped in eager torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flexsn import FlexSN
from flexsn.execution.backends import supported_backends
from flexsn.kernels.triton.runtime import interpreting

# `TRITON_INTERPRET=1 pytest tests/neurons` tests what a process without the interpreter cannot
BACKENDS = ["triton"] if interpreting() else [name for name in supported_backends() if name != "triton"]
DTYPES = [torch.float32, torch.float64]
Parameters = dict[str, Tensor]
Step = Callable[..., tuple[Tensor, ...]]
TOLERANCE = {torch.float32: (2e-5, 2e-6), torch.float64: (1e-11, 1e-13)}  # relative, absolute


def strict_spike(slope: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``u > 0`` whose gradient is ``slope(u)``, by the straight-through trick."""

    def spike(u: Tensor) -> Tensor:
        smooth = u * slope(u.detach())
        return (u > 0).to(u) + (smooth - smooth.detach())

    return spike


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(scale).to(dtype)


def outcome(spikes: Tensor, states: Sequence[Tensor], x: Tensor, parameters: Parameters) -> dict[str, Any]:
    """Spikes, final states and every gradient of a fixed loss on all of them."""
    loss = (spikes * noise(*spikes.shape, dtype=spikes.dtype, seed=1)).sum()
    for seed, state in enumerate(states, start=2):
        loss = loss + (state * noise(*state.shape, dtype=state.dtype, seed=seed)).sum()
    learned = {name: p for name, p in parameters.items() if p.requires_grad}
    grads = torch.autograd.grad(loss, [x, *learned.values()])
    return {
        "spikes": spikes.detach(),
        "states": [state.detach() for state in states],
        "input gradient": grads[0],
        **{f"gradient of {name}": grad for name, grad in zip(learned, grads[1:], strict=True)},
    }


def expected(step: Step, parameters: Parameters, x: Tensor, starts: Sequence[Any]) -> dict[str, Any]:
    """Loop ``step(parameters, x[t], *states)``; a start is a number, a tensor, or a function of the parameters."""
    x = x.clone().requires_grad_()
    zero = torch.zeros_like(x[0])
    states = tuple(zero + (start(parameters) if callable(start) else start) for start in starts)
    spikes = []
    for x_t in x.unbind(0):
        s, *rest = step(parameters, x_t, *states)
        spikes.append(s)
        states = tuple(rest)
    return outcome(torch.stack(spikes), states, x, parameters)


def actual(neuron: FlexSN, x: Tensor, step_mode: str) -> dict[str, Any]:
    """Run the neuron on the whole sequence, or step by step."""
    neuron.step_mode = step_mode
    neuron.reset()
    x = x.clone().requires_grad_()
    whole = step_mode == "m"
    spikes = first(neuron(x)) if whole else torch.stack([first(neuron(x_t)) for x_t in x.unbind(0)])
    states = neuron.states
    assert states is not None
    return outcome(spikes, states, x, dict(neuron.named_parameters()))


def first(returned: Any) -> Tensor:
    spikes: Tensor = returned[0] if isinstance(returned, tuple) else returned
    return spikes


def tensors_of(neuron: FlexSN) -> Parameters:
    """Copies of its parameters and buffers, by name."""
    copies = {name: p.detach().clone().requires_grad_() for name, p in neuron.named_parameters()}
    return copies | {name: b.clone() for name, b in neuron.named_buffers()}


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Spikes equal and present, everything else to rounding."""
    assert 0 < ours["spikes"].mean() < 1, "a test without spikes, or without silence, shows nothing"
    assert torch.equal(ours["spikes"], theirs["spikes"])
    tolerance = TOLERANCE[ours["spikes"].dtype]
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=tolerance[0], atol=tolerance[1], msg=f"{key} differs")


def hold(neuron: FlexSN, step: Step, x: Tensor, starts: Sequence[Any], backend: str) -> None:
    """The neuron equals the loop of ``step``, in one call and step by step."""
    neuron.backend = backend
    wanted = expected(step, tensors_of(neuron), x, starts)
    for step_mode in ("m", "s"):
        assert_same(actual(neuron, x, step_mode), wanted)
