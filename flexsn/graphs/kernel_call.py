"""KernelCall: a call in a graph as its kernels take it, and the gradients on the way there and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flexsn.execution.arguments import fit
from flexsn.execution.masks import RuledCall
from flexsn.graphs.call import GraphCall
from flexsn.ir.layout import TensorSpec
from flexsn.ir.step import StepGraph

__all__ = ["KernelCall", "pulled_back"]

Tensors = Sequence[Tensor]
Gradients = Sequence[Tensor | None]


@dataclass(frozen=True, eq=False)
class KernelCall:
    """What kernels are given, as functions of what a graph hands in.

    Attributes:
        inputs, states: theirs.
        once: what they read once per lane, before the captured tensors.
        ruled: the call, if more happens in it than the core's own steps.
    """

    inputs: Tensors
    states: Tensors
    once: Tensors
    ruled: RuledCall | None

    @staticmethod
    def of(call: GraphCall, groups: Sequence[Tensors], graph: StepGraph) -> KernelCall:
        """Of a call of a step that was traced as ``graph``."""
        ruled = call.ruled(*groups[:3])
        if ruled is None:
            inputs, states, _ = fit(groups[0], groups[1], call.options.time_dim)
            return KernelCall(inputs, states, (), None)
        return KernelCall(ruled.kernel_inputs, ruled.kernel_states(graph), ruled.once, ruled)

    def finish(self, results: Tensors, num_outputs: int) -> tuple[Tensor, ...]:
        """Outputs, sequences of wanted states and final states, of what the kernels return."""
        if self.ruled is None:
            return tuple(results)
        a = 0 if self.ruled.rules.time_reduction else num_outputs
        b = a + len(self.ruled.rules.wanted_states)
        outputs, finals, seqs = self.ruled.finish(tuple(results[:a]), tuple(results[b:]), tuple(results[a:b]))
        return (*outputs, *seqs, *finals)

    def before_finish(self, grads: Gradients, results: Sequence[TensorSpec], num_outputs: int) -> Gradients:
        """Gradients of what the kernels return, laid out like ``results``, of those of :meth:`finish`."""
        if self.ruled is None:
            return grads
        device = self.inputs[0].device
        with torch.enable_grad():  # finish is linear: the values do not matter
            leaves = [torch.zeros((), dtype=r.dtype, device=device).expand(tuple(r.shape)) for r in results]
            floating = [leaf.is_floating_point() for leaf in leaves]
            leaves = [leaf.requires_grad_(f) for leaf, f in zip(leaves, floating, strict=True)]
            finished = self.finish(leaves, num_outputs)
        return pulled_back(leaves, finished, grads, floating)


def pulled_back(of: Tensors, results: Tensors, grads: Gradients, needs: Sequence[bool]) -> Gradients:
    """Gradients of those tensors that need one; differentiable where gradients are enabled."""
    pairs = [(r, g) for r, g in zip(results, grads, strict=True) if g is not None and r.requires_grad]
    wanted = [t for t, need in zip(of, needs, strict=True) if need]
    if not pairs or not wanted:
        return [None] * len(of)
    again = torch.is_grad_enabled()
    outputs, cotangents = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, cotangents, create_graph=again, allow_unused=True))
    return [next(found) if need else None for need in needs]
