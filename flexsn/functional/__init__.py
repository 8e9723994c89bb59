"""What one does to a whole network: reset it, set its modes, run single steps or stateless layers over time.

Losses (:mod:`flexsn.functional.losses`) and spike trains (:mod:`flexsn.functional.spike_trains`) are here by name as
well, so that ``flexsn.functional.spike_cluster`` and the rest are found where users of other libraries look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flexsn.functional.losses import kernel_dot_product, redundant_one_hot, set_threshold_margin, spike_similar_loss
from flexsn.functional.spike_trains import first_spike_index, spike_cluster

__all__ = [
    "detach_net",
    "first_spike_index",
    "kernel_dot_product",
    "multi_step_forward",
    "redundant_one_hot",
    "reset_net",
    "seq_to_ann_forward",
    "set_backend",
    "set_step_mode",
    "set_threshold_margin",
    "spike_cluster",
    "spike_similar_loss",
]

Stage = Callable[..., Any]


def _modules(net: nn.Module) -> Iterator[nn.Module]:
    if not isinstance(net, nn.Module):
        raise ValueError(f"net must be a torch.nn.Module, got {type(net).__name__}")
    return net.modules()


def reset_net(net: nn.Module) -> None:
    """Forget every state: call ``reset()`` of ``net`` and of each submodule that has one.

    Do this between independent batches; otherwise the next call goes on from the last states.

    Args:
        net: any module; what has no ``reset()`` is left alone.

    Raises:
        ValueError: ``net`` is no module.

    Example:
        >>> class Counter(nn.Module):
        ...     calls = 3
        ...     def reset(self):
        ...         self.calls = 0
        >>> net = nn.Sequential(nn.Linear(2, 2), Counter())
        >>> reset_net(net)
        >>> net[1].calls
        0
    """
    for module in _modules(net):
        if callable(getattr(module, "reset", None)):
            module.reset()  # type: ignore[operator]


def detach_net(net: nn.Module) -> None:
    """Cut the graph behind every state, keeping the values: truncated backpropagation through time.

    Calls ``detach()`` of ``net`` and of each submodule that has one. Call it after ``backward()`` of one
    stretch of time and before the forward of the next.

    Args:
        net: any module; what has no ``detach()`` is left alone.

    Raises:
        ValueError: ``net`` is no module.
    """
    for module in _modules(net):
        if callable(getattr(module, "detach", None)):
            module.detach()  # type: ignore[operator]


def set_step_mode(net: nn.Module, step_mode: str) -> None:
    """Set ``step_mode`` of every submodule that has one.

    Args:
        net: any module.
        step_mode: ``"s"``, one step ``[B, ...]`` a call; or ``"m"``, a sequence ``[T, B, ...]`` a call.

    Raises:
        ValueError: ``net`` is no module, or another mode.
    """
    if step_mode not in ("s", "m"):
        raise ValueError(f"step_mode must be 's' (single step) or 'm' (multi-step), got {step_mode!r}")
    for module in _modules(net):
        if hasattr(module, "step_mode"):
            module.step_mode = step_mode  # type: ignore[assignment]


def set_backend(net: nn.Module, backend: str) -> None:
    """Set ``backend`` of every submodule that has one; each neuron checks the name itself.

    Args:
        net: any module.
        backend: for flexsn neurons ``"auto"``, ``"triton"``, ``"cpp"`` or ``"torch"``.

    Raises:
        ValueError: ``net`` is no module, or a neuron does not know that backend.
    """
    for module in _modules(net):
        if hasattr(module, "backend"):
            module.backend = backend  # type: ignore[assignment]


def multi_step_forward(x_seq: Tensor, *single_step_modules: Stage | Sequence[Stage]) -> Any:
    """Run single-step modules, one after the other, over the time axis.

    ``y[t] = m_k(... m_1(x[t]))`` for ``t = 0 .. T-1``, in this order, so that stateful modules see time pass.

    Args:
        x_seq: ``[T, ...]``, T ≥ 1.
        single_step_modules: modules or functions of one step, given one by one or as a list.

    Returns:
        ``[T, ...]``, the stacked results; a tuple of such if the last module returns a tuple.

    Raises:
        ValueError: no steps, what is neither module nor function, or a module in ``step_mode='m'``, which
            would take the batch for time.

    Example:
        >>> multi_step_forward(torch.arange(6.0).view(3, 2), lambda x: x + 1, torch.square)
        tensor([[ 1.,  4.],
                [ 9., 16.],
                [25., 36.]])
    """
    stages = _flatten(single_step_modules)
    for stage in stages:
        for module in (stage, *stage) if isinstance(stage, nn.Sequential) else (stage,):
            if getattr(module, "step_mode", "s") == "m":
                raise ValueError(
                    f"multi_step_forward feeds one step at a time, but {type(module).__name__} has "
                    "step_mode='m' and would take the batch for time: "
                    "set step_mode='s', or call it on the whole sequence"
                )
    if x_seq.dim() == 0 or x_seq.shape[0] == 0:
        raise ValueError(f"x_seq must be [T, ...] with T >= 1, got shape {tuple(x_seq.shape)}")
    steps = [_run(stages, (x,)) for x in x_seq.unbind(0)]
    if isinstance(steps[0], tuple):
        return tuple(torch.stack(values) for values in zip(*steps, strict=True))
    return torch.stack(steps)


def seq_to_ann_forward(x_seq: Tensor | tuple[Tensor, ...], *stateless_modules: Stage | Sequence[Stage]) -> Any:
    """Run stateless modules on all steps at once: time is folded into the batch.

    ``[T, B, ...] -> [T·B, ...] -> modules -> [T·B, ...] -> [T, B, ...]``. Much faster than a loop for
    convolutions, linear layers and the like. Batch normalisation then sees T·B samples.

    Args:
        x_seq: ``[T, B, ...]``, or a tuple of such for a first module of several inputs.
        stateless_modules: modules or functions of ``[B, ...]``, given one by one or as a list.

    Returns:
        ``[T, B, ...]``, or a tuple of such if the last module returns a tuple.

    Raises:
        ValueError: fewer than two dimensions, inputs that differ in T or B, or what is neither module nor
            function.

    Example:
        >>> seq_to_ann_forward(torch.zeros(5, 2, 3, 8, 8), nn.Conv2d(3, 4, 3), nn.Flatten()).shape
        torch.Size([5, 2, 144])
    """
    inputs = x_seq if isinstance(x_seq, tuple) else (x_seq,)
    shapes = [tuple(x.shape) for x in inputs]
    if not shapes or min(map(len, shapes)) < 2 or len({shape[:2] for shape in shapes}) > 1:
        raise ValueError(f"x_seq must be [T, B, ...], with the same T and B in every input, got shapes {shapes}")
    leading = shapes[0][:2]
    y = _run(_flatten(stateless_modules), tuple(x.flatten(0, 1) for x in inputs))
    if isinstance(y, tuple):
        return tuple(value.unflatten(0, leading) for value in y)
    return y.unflatten(0, leading)


def _flatten(stages: Sequence[Stage | Sequence[Stage]]) -> list[Stage]:
    flat: list[Stage] = []
    for stage in stages:
        flat.extend(_flatten(stage) if isinstance(stage, (list, tuple)) else [stage])  # type: ignore[list-item]
    for stage in flat:
        if not callable(stage):
            raise ValueError(f"stages must be modules or functions, got {type(stage).__name__}")
    return flat


def _run(stages: Sequence[Stage], values: tuple[Tensor, ...]) -> Any:
    result: Any = values if len(values) > 1 else values[0]
    for stage in stages:
        result = stage(*result) if isinstance(result, tuple) else stage(result)
    return result
