"""Warm up: compile what a module needs before it matters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flexsn.modules.flexsn import FlexSN

__all__ = ["warmup"]


def warmup(module: nn.Module, *example: Any) -> None:
    """Compile every kernel that calls like ``module(*example)`` run, with and without gradients.

    Nothing else changes: states, buffers, gradients and random numbers are as before. What a later call needs is
    in memory then, so that it can be captured in a CUDA graph; Triton's and the compiler's files stay on disk for
    the next process.

    Args:
        module: a neuron, or a network that holds some.
        example: inputs of the shapes, strides and dtypes to come; T may be another later.

    Example:
        >>> import torch, flexsn
        >>> neuron = flexsn.FlexSN(lambda x, v: (v + x, v + x))
        >>> flexsn.warmup(neuron, torch.zeros(2, 8))
        >>> neuron.states is None
        True
    """
    neurons = [m for m in module.modules() if isinstance(m, FlexSN)]
    held = [(n, n.states, n.state_seqs, n._flexsn.starts) for n in neurons]
    buffers = [(b, b.detach().clone()) for b in module.buffers()]
    try:
        with torch.random.fork_rng():
            with torch.no_grad():
                _run(neurons, module, example)
            with torch.enable_grad():
                results = [r for r in _tensors(_run(neurons, module, example)) if r.requires_grad]
                sources = [t for t in (*_tensors(example), *module.parameters()) if t.requires_grad]
                if results and sources:
                    torch.autograd.grad(results, sources, [torch.zeros_like(r) for r in results], allow_unused=True)
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for neuron, states, state_seqs, starts in held:
            neuron.reset()
            neuron._flexsn.starts = starts
            if states is not None:
                neuron.states = states
            neuron.state_seqs = state_seqs


def _run(neurons: list[FlexSN], module: nn.Module, example: tuple[Any, ...]) -> Any:
    for neuron in neurons:
        neuron.reset()
    return module(*example)


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, (tuple, list)):
        return [t for value in values for t in _tensors(value)]
    return []
