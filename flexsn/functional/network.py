"""What one does to all neurons of a network: reset them, cut their graphs, set their modes."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

__all__ = ["detach_net", "reset_net", "set_backend", "set_step_mode"]


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
