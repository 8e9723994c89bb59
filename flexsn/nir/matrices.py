"""Linear layers as matrices over all lanes, for loops in which sizes differ from node to node."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flexsn.nir.layers import MatrixStack

__all__ = ["matrix_of", "padded"]


def matrix_of(layer: nn.Module, shape: torch.Size, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """A layer on inputs of this shape as ``(matrix [out, in], offset [out])``, made of its parameters by torch.

    Args:
        layer: a linear one.
        shape: of what enters it.
        like: a tensor of the dtype and on the device of what enters it.
    """
    if isinstance(layer, nn.Linear):
        return layer.weight, layer.bias
    basis = torch.eye(shape.numel(), dtype=like.dtype, device=like.device).view(-1, *shape)
    if isinstance(layer, MatrixStack):
        return layer.product(basis).flatten(1).T, None if layer.bias is None else layer.bias.flatten()
    if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
        columns = layer._conv_forward(basis, layer.weight, None)
        offset = None
        if layer.bias is not None:
            offset = layer.bias.view(-1, *[1] * (columns.dim() - 2)).expand(columns.shape[1:]).flatten()
        return columns.flatten(1).T, offset
    return layer(basis).flatten(1).T, None


def padded(values: Tensor, shape: torch.Size, lanes: int) -> Tensor:
    """A parameter of lanes of this shape, spread over as many lanes; those nobody reads have the value of the last."""
    flat = values.expand(shape).flatten()
    return torch.cat([flat, flat[-1:].expand(lanes - flat.numel())]) if flat.numel() < lanes else flat
