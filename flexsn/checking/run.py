"""A neuron run on a backend: what comes of it, and the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flexsn.checking.cases import Case
from flexsn.modules.flexsn import FlexSN

__all__ = ["Run", "run", "weights_for"]


@dataclass(frozen=True)
class Run:
    """What a call gives.

    Attributes:
        outputs: ``[T, *step]`` each.
        finals: the final states.
        leaves: what gradients are taken of, by name.
    """

    outputs: tuple[Tensor, ...]
    finals: tuple[Tensor, ...]
    leaves: dict[str, Tensor]

    @property
    def values(self) -> dict[str, Tensor]:
        """Outputs and final states by name."""
        named = {f"output {i}": y.detach() for i, y in enumerate(self.outputs)}
        return named | {f"final state {j}": v.detach() for j, v in enumerate(self.finals)}

    def loss(self, weights: Sequence[Tensor | None]) -> float:
        """The weighted sum of outputs and final states."""
        pairs = zip((*self.outputs, *self.finals), weights, strict=True)
        return float(sum((v.detach() * w).sum() for v, w in pairs if w is not None))

    def gradients(self, weights: Sequence[Tensor | None]) -> dict[str, Tensor]:
        """Of the same sum, by leaf; 0 where nothing flows."""
        pairs = [(v, w) for v, w in zip((*self.outputs, *self.finals), weights, strict=True) if w is not None]
        roots = [(v, w.to(v)) for v, w in pairs if v.requires_grad]
        found: Sequence[Tensor | None] = [None] * len(self.leaves)
        if roots and self.leaves:
            values, given = zip(*roots, strict=True)
            found = torch.autograd.grad(values, list(self.leaves.values()), given, retain_graph=True, allow_unused=True)
        named = zip(self.leaves.items(), found, strict=True)
        return {name: torch.zeros_like(leaf) if g is None else g for (name, leaf), g in named}


def run(neuron: FlexSN, backend: str, case: Case, training: bool) -> Run:
    """Call the neuron, whatever its class makes of ``forward``."""
    inputs, states = (tuple(_leaf(a, training) for a in part) for part in (case.inputs, case.states))
    neuron.backend, neuron.states = backend, states
    with torch.set_grad_enabled(training):
        outputs = FlexSN.forward(neuron, *inputs)
    finals = neuron.states or ()
    neuron.reset()
    leaves = {f"input {i}": x for i, x in enumerate(inputs)} | {f"state {j}": v for j, v in enumerate(states)}
    leaves |= {f"parameter {name}": p for name, p in neuron.named_parameters()}
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    return Run((outputs,) if isinstance(outputs, Tensor) else tuple(outputs), finals, wanted)


def weights_for(run: Run, case: Case, kept: Tensor, seed: int) -> list[Tensor | None]:
    """What the gradient of a loss is made of: quarters in [-1, 1], 0 where lanes are not kept."""
    generator = torch.Generator().manual_seed(seed)
    weights: list[Tensor | None] = []
    for n, value in enumerate((*run.outputs, *run.finals)):
        drawn = torch.randint(-4, 5, value.shape, generator=generator).to(value.device) / 4 * kept
        asked = value.is_floating_point() and (case.learns_by_states or n < len(run.outputs))
        weights.append(drawn if asked else None)
    return weights


def _leaf(value: Tensor, training: bool) -> Tensor:
    return value.detach().requires_grad_(training and value.is_floating_point())
