"""What one does to all neurons of a network: reset them, cut their graphs, set their modes."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

__all__ = ["detach_net", "reset_net", "set_backend", "set_step_mode"]

# of SpikingJelly, whose children stay in the step mode that the container runs them in
_CONTAINERS = {
    *("StepModeContainer", "MultiStepContainer", "SeqToANNContainer"),
    *("TLastMultiStepContainer", "TLastSeqToANNContainer"),
    *("ElementWiseRecurrentContainer", "LinearRecurrentContainer"),
}


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

    What stands in one of SpikingJelly's containers that run their children step by step keeps its own.

    Args:
        net: any module.
        step_mode: ``"s"``, one step ``[B, ...]`` a call; or ``"m"``, a sequence ``[T, B, ...]`` a call.

    Raises:
        ValueError: ``net`` is no module, or another mode.
    """
    if step_mode not in ("s", "m"):
        raise ValueError(f"step_mode must be 's' (single step) or 'm' (multi-step), got {step_mode!r}")
    _modules(net)
    left = [net]
    while left:
        module = left.pop()
        if hasattr(module, "step_mode"):
            module.step_mode = step_mode  # type: ignore[assignment]
        if not _decides_for_its_children(module):
            left.extend(module.children())


def _decides_for_its_children(module: nn.Module) -> bool:
    return any(
        base.__name__ in _CONTAINERS and base.__module__.partition(".")[0] == "spikingjelly"
        for base in type(module).__mro__
    )


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
