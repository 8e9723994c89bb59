"""Run a core fused and as a loop on the same numbers, and compare bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import flexsn


def bits_equal(a: Tensor, b: Tensor) -> bool:
    """Equal in shape, dtype and value; NaN equals NaN."""
    return (
        a.shape == b.shape
        and a.dtype == b.dtype
        and torch.equal(torch.nan_to_num(a.double(), nan=12345.0), torch.nan_to_num(b.double(), nan=12345.0))
    )


def gradients(
    results: Sequence[Tensor], weights: Sequence[Tensor | None], sources: Sequence[Tensor]
) -> list[Tensor | None]:
    """Gradients of the results with cotangents ``weights``; ``None`` leaves a result out."""
    pairs = [(r, w) for r, w in zip(results, weights, strict=True) if w is not None and r.requires_grad]
    if not pairs or not sources:
        return [None] * len(sources)
    return list(torch.autograd.grad([r for r, _ in pairs], sources, [w for _, w in pairs], allow_unused=True))


def check(
    core: Callable[..., Any],
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    parameters: Sequence[Tensor] = (),
    *,
    use: str = "yvs",
    time_dim: int = 0,
    state_seqs: bool = False,
    checkpoint: int | str = "auto",
    want: Callable[[Tensor], bool] = lambda t: t.is_floating_point(),
    exact: bool = True,
) -> None:
    """Triton and the loop agree: results, gradients of inputs and states in every bit, of parameters closely.

    Args:
        core, inputs, states: as for ``flexsn.execution.scan``.
        parameters: what the core reads.
        use: whose gradients come in: ``y`` outputs, ``v`` final states, ``s`` state sequences.
        want: which inputs and states want a gradient.
        exact: whether gradients of inputs and states agree bit for bit.
    """
    found = {}
    for backend in ("triton", "torch"):
        xs = [_copy(x, want(x)) for x in inputs]
        vs = [_copy(v, want(v)) for v in states]
        y, v, *rest = flexsn.scan(
            core,
            tuple(xs),
            tuple(vs),
            backend=backend,
            time_dim=time_dim,
            return_state_seqs=state_seqs,
            checkpoint=checkpoint,
        )
        outputs = [y] if isinstance(y, Tensor) else list(y)
        groups = [("y", outputs), ("v", list(v)), ("s", list(rest[0]) if rest else [])]
        results = [t for _, group in groups for t in group]
        generator = torch.Generator().manual_seed(7)
        weights: list[Tensor | None] = []
        for name, group in groups:
            for t in group:
                weight = torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype)
                weights.append(weight if name in use and t.is_floating_point() else None)
        sources = [t for t in (*xs, *vs, *parameters) if t.requires_grad]
        bitwise = sum(t.requires_grad for t in (*xs, *vs)) if exact else 0
        found[backend] = results, gradients(results, weights, sources), bitwise
    (ours, our_grads, bitwise), (truth, true_grads, _) = found["triton"], found["torch"]
    for i, (a, b) in enumerate(zip(ours, truth, strict=True)):
        assert bits_equal(a, b), f"result {i}: {(a != b).sum()} of {a.numel()} differ"
    for i, (g, h) in enumerate(zip(our_grads, true_grads, strict=True)):
        if g is None or h is None:
            assert (g is None or not g.any()) and (h is None or not h.any()), f"gradient {i}: {g} against {h}"
        elif i < bitwise:
            assert bits_equal(g, h), f"gradient {i}: {(g != h).sum()} of {g.numel()} differ"
        else:
            torch.testing.assert_close(g, h, rtol=1e-4, atol=1e-5)


def _copy(tensor: Tensor, requires_grad: bool) -> Tensor:
    """A leaf with the same strides."""
    return tensor.detach().requires_grad_(requires_grad and tensor.is_floating_point())
