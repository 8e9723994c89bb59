"""Who runs a LIF on a GPU: the core, its loop, flexsn, SpikingJelly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flexsn import FlexSN, surrogate

_spike = surrogate.ATan(alpha=2.0)


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = _spike(h - 1.0)
    return s, h * (1.0 - s)


def loop(x_seq: Tensor) -> Tensor:
    v = torch.zeros(x_seq.shape[1:], dtype=torch.float32, device=x_seq.device)
    outputs = []
    for x in x_seq.unbind(0):
        s, v = lif(x.float(), v)
        outputs.append(s.to(x.dtype))
    return torch.stack(outputs)


def fused() -> Callable[[Tensor], Tensor]:
    neuron = FlexSN(lif, backend="triton")

    def run(x: Tensor) -> Tensor:
        neuron.reset()
        y: Tensor = neuron(x)
        return y

    return run


def spikingjelly_lif() -> Callable[[Tensor], Tensor]:
    from spikingjelly.activation_based import functional, neuron
    from spikingjelly.activation_based import surrogate as peer

    node = neuron.LIFNode(tau=2.0, step_mode="m", surrogate_function=peer.ATan())
    node.backend = "triton" if "triton" in node.supported_backends else "cupy"
    return functools.partial(_after_reset, functional.reset_net, node)


def spikingjelly_flexsn() -> Callable[[Tensor], Tensor]:
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based import surrogate as peer
    from spikingjelly.activation_based.neuron.flexsn import FlexSN as PeerFlexSN

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + (x - v) / 2.0
        s = peer.atan.apply(h - 1.0, 2.0)
        return s, h * (1.0 - s)

    node = PeerFlexSN(core, num_states=1, step_mode="m")
    node.backend = "triton"
    return functools.partial(_after_reset, functional.reset_net, node)


def _after_reset(reset: Callable[[Any], None], node: Any, x: Tensor) -> Tensor:
    reset(node)
    y: Tensor = node(x)
    return y
