"""Losses on spikes, and what they need: similarities, label codes, threshold margins."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["kernel_dot_product", "redundant_one_hot", "set_threshold_margin", "spike_similar_loss"]

_KERNEL_ARGUMENT = {"linear": None, "polynomial": "the degree d", "sigmoid": "alpha", "gaussian": "sigma > 0"}
_LOSSES = ("mse", "l1", "bce")


def kernel_dot_product(x: Tensor, y: Tensor, kernel: str = "linear", *args: float) -> Tensor:
    r"""Inner products of two sets of vectors in a kernel's space, ``K[i, j] = κ(x_i, y_j)``.

    ============  ========================  ========================
    kernel        ``args``                  κ(x, y)
    ============  ========================  ========================
    linear                                  xᵀy
    polynomial    ``d``                     (xᵀy)^d
    sigmoid       ``alpha``                 σ(α xᵀy)
    gaussian      ``sigma`` > 0             exp(−‖x − y‖² / 2σ²)
    ============  ========================  ========================

    Args:
        x: ``[N, M]``, floating point.
        y: ``[N', M]``, same dtype.
        kernel: a name of the table.
        args: the kernel's own number, if it has one.

    Returns:
        ``[N, N']``.

    Raises:
        ValueError: shapes that do not fit, an unknown kernel, a missing or wrong argument.

    Example:
        >>> kernel_dot_product(torch.eye(2), torch.eye(2), "gaussian", 1.0)
        tensor([[1.0000, 0.3679],
                [0.3679, 1.0000]])
    """
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must be [N, M] with the same M, got {tuple(x.shape)} and {tuple(y.shape)}")
    if kernel not in _KERNEL_ARGUMENT:
        raise ValueError(f"kernel must be one of {', '.join(_KERNEL_ARGUMENT)}; got {kernel!r}")
    argument = _KERNEL_ARGUMENT[kernel]
    if len(args) != (argument is not None):
        raise ValueError(f"kernel {kernel!r} takes {argument or 'no argument'}, got {len(args)} arguments {args}")
    products = x.mm(y.t())
    if kernel == "linear":
        return products
    value = args[0]
    if kernel == "polynomial":
        return products.pow(value)
    if kernel == "sigmoid":
        return torch.sigmoid(value * products)
    if not value > 0:
        raise ValueError(f"kernel 'gaussian' takes sigma > 0, got {value}")
    # Rounding may leave a tiny negative distance between equal vectors.
    distances = (x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * products).clamp_min(0)
    return torch.exp(distances * (-0.5 / (value * value)))


def spike_similar_loss(
    spikes: Tensor, labels: Tensor, kernel_type: str = "linear", loss_type: str = "mse", *args: float
) -> Tensor:
    """How far the similarity of spike trains is from the similarity of their labels.

    The trains are flattened to vectors ``s_i``; ``sim_p[i, j]`` is their kernel product, divided
    by ``‖s_i‖‖s_j‖ + 1e-8`` if linear. The target is ``min((L Lᵀ)[i, j], 1)``: 1 where two samples share a
    label.

    Args:
        spikes: ``[N, M, T]`` (or any ``[N, ...]``); 16-bit types are computed in fp32.
        labels: ``[N, C]``, one-hot or multi-hot, any dtype.
        kernel_type: ``linear``, ``polynomial``, ``sigmoid``, ``gaussian``; see :func:`kernel_dot_product`.
        loss_type: ``mse``, ``l1`` or ``bce``, each the mean over all pairs.
        args: the kernel's own number, if it has one.

    Returns:
        A scalar, differentiable in ``spikes``.

    Raises:
        ValueError: shapes that do not fit, an unknown kernel or loss, ``bce`` of a similarity outside [0, 1].

    Example:
        >>> spikes = torch.eye(3).view(3, 3, 1)
        >>> spike_similar_loss(spikes, torch.eye(3))
        tensor(0.)
        >>> spike_similar_loss(spikes, torch.ones(3, 1), "linear", "l1")
        tensor(0.6667)
    """
    if loss_type not in _LOSSES:
        raise ValueError(f"loss_type must be one of {', '.join(_LOSSES)}; got {loss_type!r}")
    if spikes.dim() < 2 or labels.dim() != 2 or labels.shape[0] != spikes.shape[0]:
        raise ValueError(
            "spikes must be [N, M, T] and labels [N, C] with the same N, "
            f"got {tuple(spikes.shape)} and {tuple(labels.shape)}"
        )
    dtype = torch.promote_types(spikes.dtype, torch.float32)
    vectors = spikes.flatten(1).to(dtype)
    similarity = kernel_dot_product(vectors, vectors, kernel_type, *args)
    if kernel_type == "linear":
        length = vectors.norm(dim=1, keepdim=True)
        similarity = similarity / (length * length.t() + 1e-8)
    overlap = labels.to(dtype)
    target = overlap.mm(overlap.t()).clamp_max(1)
    if loss_type == "mse":
        return F.mse_loss(similarity, target)
    if loss_type == "l1":
        return F.l1_loss(similarity, target)
    low, high = similarity.detach().aminmax()
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(
            f"loss_type 'bce' needs similarities in [0, 1], kernel {kernel_type!r} gives [{low:.4g}, {high:.4g}]"
        )
    # A cosine of 1 may come out as 1.0000001, which binary_cross_entropy refuses.
    return F.binary_cross_entropy(similarity.clamp(0, 1), target)


def set_threshold_margin(
    layer: nn.Module,
    label_one_hot: Tensor,
    eval_threshold: float = 1.0,
    threshold0: float = 0.9,
    threshold1: float = 1.1,
) -> None:
    """Make the right output neuron work harder: a threshold per sample and class while training.

    In training mode ``v_threshold[b, c]`` is ``threshold1`` where ``label_one_hot[b, c]`` is 1, else
    ``threshold0``; in eval mode it is the number ``eval_threshold``.

    Args:
        layer: the output neuron, with a ``v_threshold``, or a layer that holds it as ``neuron``.
        label_one_hot: ``[B, C]``. The threshold takes its dtype if floating, else the default dtype.
        eval_threshold: threshold in eval mode.
        threshold0: threshold of the wrong classes.
        threshold1: threshold of the right class.

    Raises:
        ValueError: no settable ``v_threshold`` to be found, or a label that is not ``[B, C]``.

    Example:
        >>> neuron = nn.Module()
        >>> neuron.v_threshold = 1.0
        >>> set_threshold_margin(neuron, redundant_one_hot(torch.tensor([1]), 3, 1))
        >>> neuron.v_threshold
        tensor([[0.9000, 1.1000, 0.9000]])
    """
    owner: Any = layer if hasattr(layer, "v_threshold") else getattr(layer, "neuron", None)
    if not hasattr(owner, "v_threshold") or isinstance(owner.v_threshold, nn.Parameter):
        raise ValueError(
            f"{type(layer).__name__} needs a v_threshold (its own or its neuron's) that is not a learnable parameter"
        )
    if not layer.training:
        owner.v_threshold = eval_threshold
        return
    if label_one_hot.dim() != 2:
        raise ValueError(f"label_one_hot must be [B, C], got shape {tuple(label_one_hot.shape)}")
    dtype = label_one_hot.dtype if label_one_hot.is_floating_point() else torch.get_default_dtype()
    threshold = torch.full_like(label_one_hot, threshold0, dtype=dtype, requires_grad=False)
    owner.v_threshold = threshold.masked_fill_(label_one_hot == 1, threshold1)


def redundant_one_hot(labels: Tensor, num_classes: int, n: int) -> Tensor:
    """One-hot labels with ``n`` neurons a class: column ``c·n + k`` is 1 where the label is ``c``.

    Args:
        labels: ``[B]``, integers in ``[0, num_classes)``.
        num_classes: number of classes, ≥ 1.
        n: neurons a class, ≥ 1.

    Returns:
        ``[B, num_classes·n]`` in the default dtype.

    Raises:
        ValueError: labels of another shape, dtype or range; numbers below 1.

    Example:
        >>> redundant_one_hot(torch.tensor([1, 0]), num_classes=2, n=3)
        tensor([[0., 0., 0., 1., 1., 1.],
                [1., 1., 1., 0., 0., 0.]])
    """
    if num_classes < 1 or n < 1:
        raise ValueError(f"num_classes and n must be >= 1, got {num_classes} and {n}")
    if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers [B], got {labels.dtype} of shape {tuple(labels.shape)}")
    if labels.numel():
        low, high = (int(value) for value in labels.aminmax())
        if low < 0 or high >= num_classes:
            raise ValueError(f"labels must be in [0, {num_classes}), got values from {low} to {high}")
    return F.one_hot(labels.long(), num_classes).repeat_interleave(n, dim=1).to(torch.get_default_dtype())
