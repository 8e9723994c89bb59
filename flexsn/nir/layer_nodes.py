"""From a layer to a node of NIR."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flexsn.nir.delay import Delay
from flexsn.nir.dynamics import Neuron
from flexsn.nir.layers import MatrixStack, Scale, SumPool2d, Threshold
from flexsn.nir.package import nir_package

__all__ = ["array", "node_of"]


def node_of(name: str, layer: Any, shape: torch.Size) -> Any:
    """The node of a layer that values of this shape enter.

    Raises:
        ValueError: NIR has no node for it.
    """
    nir = nir_package()
    if isinstance(layer, Neuron):
        parameters = zip(layer.names, layer.parameters_of_a_step(), strict=True)
        return getattr(nir, type(layer).__name__)(
            **{parameter: array(values, shape) for parameter, values in parameters}
        )
    if isinstance(layer, (nn.Linear, MatrixStack)):
        if layer.bias is None:
            return nir.Linear(weight=array(layer.weight))
        return nir.Affine(weight=array(layer.weight), bias=array(layer.bias))
    if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
        return _conv(name, layer, shape)
    if isinstance(layer, nn.AvgPool2d):
        return _pool(name, layer)
    if isinstance(layer, nn.Flatten):
        return _flatten(layer, shape)
    if isinstance(layer, (Scale, Tensor)):
        return nir.Scale(scale=array(layer.scale if isinstance(layer, Scale) else layer, shape))
    if isinstance(layer, Delay):
        return nir.Delay(delay=array(layer.delay, shape))
    if isinstance(layer, Threshold):
        return nir.Threshold(threshold=array(layer.threshold, shape))
    hint = "; in training it does something, so call eval()" if isinstance(layer, nn.Dropout) else ""
    raise unsayable(name, layer, f"it has no node for it{hint}")


def unsayable(name: str, module: object, why: str) -> ValueError:
    """What cannot be said in NIR."""
    return ValueError(f"module {name!r} ({type(module).__name__}) cannot be said in NIR: {why}; see docs/nir.md")


def array(values: Tensor, shape: torch.Size | None = None) -> np.ndarray[Any, Any]:
    """As NumPy has it, one value per lane."""
    spread = values.detach().cpu()
    if spread.dtype not in (torch.float32, torch.float64):
        spread = spread.float()
    made: np.ndarray[Any, Any] = (spread if shape is None else spread.expand(shape)).contiguous().numpy().copy()
    return made


def _conv(name: str, layer: nn.Conv1d | nn.Conv2d, shape: torch.Size) -> Any:
    if layer.padding_mode != "zeros":
        raise unsayable(name, layer, f"it pads with zeros, not padding_mode={layer.padding_mode!r}")
    nir, one = nir_package(), isinstance(layer, nn.Conv1d)
    weight = array(layer.weight)
    options = {
        key: value if isinstance(value, str) else int(value[0]) if one else tuple(map(int, value))
        for key, value in {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}.items()
    }
    return (nir.Conv1d if one else nir.Conv2d)(
        input_shape=int(shape[-1]) if one else tuple(map(int, shape[-2:])),
        weight=weight,
        groups=layer.groups,
        bias=np.zeros(len(weight), weight.dtype) if layer.bias is None else array(layer.bias),
        **options,
    )


def _pool(name: str, layer: nn.AvgPool2d) -> Any:
    nir = nir_package()
    padded = bool(np.any(np.asarray(layer.padding)))
    sums = isinstance(layer, SumPool2d)
    if layer.ceil_mode or (padded and not layer.count_include_pad) or not (sums or layer.divisor_override is None):
        raise unsayable(name, layer, "ceil_mode, count_include_pad=False and divisor_override have no place there")
    sizes = [np.array(np.broadcast_to(value, (2,))) for value in (layer.kernel_size, layer.stride, layer.padding)]
    return (nir.SumPool2d if sums else nir.AvgPool2d)(*sizes)


def _flatten(layer: nn.Flatten, shape: torch.Size) -> Any:
    """Dimensions counted from the first are those behind time and batch, or behind the batch as is torch's default."""
    leading = 1 if layer.start_dim == 1 else 2
    start, end = (dim - leading if dim >= 0 else dim + len(shape) for dim in (layer.start_dim, layer.end_dim))
    return nir_package().Flatten(
        input_type={"input": np.array(shape)}, start_dim=start, end_dim=-1 if end == len(shape) - 1 else end
    )
