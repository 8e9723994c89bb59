"""From a node of NIR to a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flexsn.nir import dynamics
from flexsn.nir.delay import Delay
from flexsn.nir.dynamics import Neuron, Stepping
from flexsn.nir.layers import AvgPool2d, Conv1d, Conv2d, MatrixStack, Scale, SumPool2d, Threshold

__all__ = ["layer_of", "shape_after"]


def layer_of(name: str, node: Any, shape: torch.Size, stepping: Stepping) -> nn.Module:
    """The layer of a node that values of this shape enter.

    Raises:
        ValueError: there is no such node in NIR, or its parameters do not fit.
    """
    kind = type(node).__name__
    make = _MAKERS.get(kind)
    if make is None:
        raise ValueError(f"node {name!r} is a {kind}; NIR has {', '.join(sorted(_MAKERS))} and graphs of them")
    try:
        layer: nn.Module = make(node, shape, stepping)
    except ValueError as error:
        raise ValueError(f"node {name!r} ({kind}): {error}") from error
    return layer


def shape_after(name: str, layer: nn.Module, shape: torch.Size) -> torch.Size:
    """The shape of what leaves a layer that values of this shape enter."""
    if isinstance(layer, (Neuron, Delay, Scale, Threshold)):
        return shape
    try:
        with torch.no_grad():
            left: Tensor = layer(torch.zeros(shape))
    except RuntimeError as error:
        raise ValueError(
            f"node {name!r} ({type(layer).__name__}) does not take what enters it, of shape {tuple(shape)}: {error}"
        ) from error
    return left.shape


def _tensor(values: Any) -> Tensor:
    return torch.as_tensor(np.asarray(values)).to(torch.get_default_dtype(), copy=True)


def _lanes(node: Any, name: str, shape: torch.Size) -> Tensor:
    """A parameter of lanes, which broadcasts against them."""
    values = _tensor(getattr(node, name))
    if not _spreads(values.shape, shape):
        raise ValueError(f"{name} has shape {tuple(values.shape)}, but what enters has shape {tuple(shape)}")
    return values


def _spreads(shape: torch.Size, over: torch.Size) -> bool:
    return len(shape) <= len(over) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(over), strict=False))


def _neuron(kind: type[Neuron]) -> Callable[[Any, torch.Size, Stepping], nn.Module]:
    def make(node: Any, shape: torch.Size, stepping: Stepping) -> nn.Module:
        parameters = {name: _lanes(node, name, shape) for name in kind.names}
        for name, values in parameters.items():
            if name.startswith("tau") and not bool((values > 0).all()):
                raise ValueError(f"{name} must be > 0, got {float(values.min())}")
        return kind(stepping, **parameters)

    return make


def _affine(node: Any, shape: torch.Size, stepping: Stepping) -> nn.Module:
    weight = _tensor(node.weight)
    bias = _tensor(node.bias) if getattr(node, "bias", None) is not None else None
    if weight.dim() < 2:
        raise ValueError(f"weight must be [..., out, in], got {tuple(weight.shape)}")
    if bias is not None:
        bias = bias.broadcast_to(weight.shape[:-1]).clone()
    if weight.dim() > 2:
        return MatrixStack(weight, bias)
    rows, columns = weight.shape
    return _with(nn.Linear(columns, rows, bias=bias is not None, device="meta"), weight, bias)


def _with(layer: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A layer with these parameters for its own."""
    layer.weight = nn.Parameter(weight)
    layer.bias = None if bias is None else nn.Parameter(bias)
    made: nn.Module = layer
    return made


def _conv(kind: type[Conv1d] | type[Conv2d], dims: int) -> Callable[[Any, torch.Size, Stepping], nn.Module]:
    def make(node: Any, shape: torch.Size, stepping: Stepping) -> nn.Module:
        weight = _tensor(node.weight)
        bias = None if node.bias is None else _tensor(node.bias).broadcast_to(weight.shape[:1]).clone()
        groups = int(node.groups)
        padding = node.padding
        options: dict[str, Any] = {
            "stride": _numbers(node.stride, dims),
            "padding": padding if isinstance(padding, str) else _numbers(padding, dims),
            "dilation": _numbers(node.dilation, dims),
        }
        channels = weight.shape[1] * groups, weight.shape[0]
        layer = kind(*channels, tuple(weight.shape[2:]), groups=groups, bias=bias is not None, device="meta", **options)  # type: ignore[arg-type]
        return _with(layer, weight, bias)

    return make


def _numbers(value: Any, dims: int) -> tuple[int, ...]:
    """One number per dimension."""
    return tuple(int(number) for number in np.broadcast_to(np.asarray(value), (dims,)))


def _pool(kind: type[AvgPool2d] | type[SumPool2d]) -> Callable[[Any, torch.Size, Stepping], nn.Module]:
    def make(node: Any, shape: torch.Size, stepping: Stepping) -> nn.Module:
        return kind(_numbers(node.kernel_size, 2), _numbers(node.stride, 2), _numbers(node.padding, 2))  # type: ignore[arg-type]

    return make


def _flatten(node: Any, shape: torch.Size, stepping: Stepping) -> nn.Module:
    """Counted from the last dimension, before which any may stand."""
    start, end = (int(dim) % len(shape) - len(shape) for dim in (node.start_dim, node.end_dim))
    return nn.Flatten(start, end)


_MAKERS: dict[str, Callable[[Any, torch.Size, Stepping], nn.Module]] = {
    "Input": lambda node, shape, stepping: nn.Identity(),
    "Output": lambda node, shape, stepping: nn.Identity(),
    "Affine": _affine,
    "Linear": _affine,
    "Scale": lambda node, shape, stepping: Scale(_lanes(node, "scale", shape)),
    "Conv1d": _conv(Conv1d, 1),
    "Conv2d": _conv(Conv2d, 2),
    "SumPool2d": _pool(SumPool2d),
    "AvgPool2d": _pool(AvgPool2d),
    "Flatten": _flatten,
    "Delay": lambda node, shape, stepping: Delay(_lanes(node, "delay", shape), stepping.dt),
    "Threshold": lambda node, shape, stepping: Threshold(_lanes(node, "threshold", shape), stepping.spike),
    "I": _neuron(dynamics.I),
    "IF": _neuron(dynamics.IF),
    "LI": _neuron(dynamics.LI),
    "LIF": _neuron(dynamics.LIF),
    "CubaLI": _neuron(dynamics.CubaLI),
    "CubaLIF": _neuron(dynamics.CubaLIF),
}
