"""snnTorch's training loops: one call trains over a data loader, by backpropagation through all or some steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from flexsn.functional import detach_net
from flexsn.neurons.snntorch.hidden import reset

__all__ = ["BPTT", "RTRL", "TBPTT"]

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[..., Tensor]


def TBPTT(
    net: nn.Module,
    dataloader: Batches,
    optimizer: torch.optim.Optimizer,
    criterion: Loss,
    num_steps: int | bool = False,
    time_var: bool = True,
    time_first: bool = True,
    regularization: Loss | bool = False,
    device: str | torch.device = "cpu",
    K: int | bool = 1,
) -> Tensor:
    """Train ``net`` for one pass over the data, cutting the graph and stepping the optimizer every ``K`` steps.

    Args:
        net: called one step at a time; returns ``(spk, ..., mem)``.
        dataloader: batches ``(data, targets)``, the data ``[T, B, ...]`` if ``time_var``, else ``[B, ...]``.
        optimizer: of the parameters of ``net``.
        criterion: a loss of ``snntorch.functional``: of the membrane if its name says so, else of the spikes.
        num_steps: where the data does not vary in time.
        time_var: whether the data has a time axis.
        time_first: whether that is the first; else it is the second.
        regularization: a further loss, of the spikes.
        device: to run on.
        K: steps between two cuts; ``False`` for none.

    Returns:
        The loss of a batch, averaged.

    Raises:
        ValueError: ``num_steps`` with data that varies in time or without it, ``K`` above it.
    """
    _check(num_steps, time_var, time_first, K)
    net.to(device).train()
    total, batches = torch.zeros(()), 0
    for data, targets in dataloader:
        data, targets = data.to(device), targets.to(device)
        x_seq: Any = (data if time_first else data.transpose(0, 1)) if time_var else [data] * int(num_steps)
        every = int(K) or len(x_seq)
        reset(net)
        batches += 1
        for start in range(0, len(x_seq), every):
            steps = [net(x) for x in x_seq[start : start + every]]
            loss = _loss(steps, targets, slice(start, start + len(steps)), criterion, regularization)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            detach_net(net)
            total = total + loss.detach().cpu() * len(steps) / len(x_seq)
    return total / batches


def _loss(steps: list[Any], targets: Tensor, of: slice, criterion: Any, regularization: Any) -> Tensor:
    spk, mem = (torch.stack([step[i] for step in steps]) for i in (0, -1))
    of_membrane = "membrane" in getattr(criterion, "__name__", type(criterion).__name__)
    loss: Tensor = criterion(mem if of_membrane else spk, targets[of] if _vary(criterion) else targets)
    return loss + regularization(spk) if regularization else loss


def _vary(criterion: Any) -> bool:
    return bool(getattr(criterion, "time_var_targets", False))


def _check(num_steps: int | bool, time_var: bool, time_first: bool, K: int | bool) -> None:
    if time_var and num_steps:
        raise ValueError(f"TBPTT(num_steps={num_steps}): data that varies in time says how many steps there are")
    if not time_var and not num_steps:
        raise ValueError("TBPTT(time_var=False): data that does not vary in time needs num_steps")
    if not time_var and not time_first:
        raise ValueError("TBPTT(time_var=False, time_first=False): there is no time axis to be second")
    if num_steps and num_steps < K:
        raise ValueError(f"TBPTT(K={K}, num_steps={num_steps}): K must not be above num_steps")


def BPTT(
    net: nn.Module,
    dataloader: Batches,
    optimizer: torch.optim.Optimizer,
    criterion: Loss,
    num_steps: int | bool = False,
    time_var: bool = True,
    time_first: bool = True,
    regularization: Loss | bool = False,
    device: str | torch.device = "cpu",
) -> Tensor:
    """:func:`TBPTT` through all steps."""
    options = (num_steps, time_var, time_first, regularization, device)
    return TBPTT(net, dataloader, optimizer, criterion, *options, K=False)


def RTRL(
    net: nn.Module,
    dataloader: Batches,
    optimizer: torch.optim.Optimizer,
    criterion: Loss,
    num_steps: int | bool = False,
    time_var: bool = True,
    time_first: bool = True,
    regularization: Loss | bool = False,
    device: str | torch.device = "cpu",
) -> Tensor:
    """:func:`TBPTT` through one step at a time, as snnTorch understands the name."""
    options = (num_steps, time_var, time_first, regularization, device)
    return TBPTT(net, dataloader, optimizer, criterion, *options, K=1)
