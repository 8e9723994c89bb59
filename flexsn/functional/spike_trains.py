"""Reading spike trains: clusters of spikes, first spikes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["first_spike_index", "spike_cluster"]


@torch.no_grad()
def spike_cluster(v: Tensor, v_threshold: float | Tensor, T_in: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clusters of output spikes, and the two steps per neuron at which a loss would add or remove one.

    A step spikes where ``v >= v_threshold``. A cluster is a maximal run of spikes in which neighbours are
    at most ``T_in`` steps apart. To get one cluster more, raise ``v`` where ``k_positive``; to get one less,
    lower it where ``k_negative``:

    >>> v = torch.tensor([0.2, 1.5, 1.2, 0.1, 0.4, 0.8, 0.0, 1.1]).view(8, 1).requires_grad_()
    >>> n, k_positive, k_negative = spike_cluster(v, 1.0, T_in=1)
    >>> n, k_positive.nonzero()[:, 0], k_negative.nonzero()[:, 0]
    (tensor([2.]), tensor([5]), tensor([7]))
    >>> desired = torch.tensor([1.0])
    >>> too_many = ((n > desired) * ((v * k_negative).sum(0) - 1.0)).sum()
    >>> too_few = ((n < desired) * (1.0 - (v * k_positive).sum(0))).sum()
    >>> loss = too_many + too_few

    Args:
        v: membrane potentials ``[T, N]`` (further dimensions are further neurons), T ≥ 1, floating point.
        v_threshold: a number, or a tensor that broadcasts against ``[N]``.
        T_in: largest distance, in steps, between neighbouring spikes of one cluster; ≥ 0.

    Returns:
        ``N_o`` ``[N]``, the number of clusters, in the dtype of ``v``;
        ``k_positive`` ``[T, N]`` bool, the step of largest ``v`` farther than ``T_in`` from every spike
        (the first of equals; nowhere if there is no such step);
        ``k_negative`` ``[T, N]`` bool, the last spike of the smallest cluster (the first of equals; nowhere
        without spikes). No gradient flows through any of them.

    Raises:
        ValueError: a shape without time, or ``T_in`` not an integer ≥ 0.

    Source: Gu et al., "STCA: Spatio-Temporal Credit Assignment with Delayed Feedback in Deep Spiking Neural
    Networks", IJCAI 2019. SpikingJelly had it, step by step, in ``clock_driven.functional`` (gone since);
    there a candidate step is overlooked if its ``v`` is the lowest of all neurons, and ``T_in = 0`` loses a
    spike at t = 0.
    """
    if v.dim() < 2 or v.shape[0] == 0 or not v.is_floating_point():
        raise ValueError(
            f"v must be a floating-point tensor [T, N] with T >= 1, got {v.dtype} of shape {tuple(v.shape)}"
        )
    if not isinstance(T_in, int) or isinstance(T_in, bool) or T_in < 0:
        raise ValueError(f"T_in must be an integer >= 0, got {T_in!r}")
    T = v.shape[0]
    spike = v >= v_threshold
    t = torch.arange(T, device=v.device).view(-1, *[1] * (v.dim() - 1)).expand_as(v)

    never = T + T_in + 1  # farther than T_in from every step
    last = torch.where(spike, t, -never).cummax(0).values  # time of the last spike up to and with t
    next_ = torch.where(spike, t, T - 1 + never).flip(0).cummin(0).values.flip(0)  # of the next one
    previous = torch.cat([torch.full_like(last[:1], -never), last[:-1]])

    opens = spike & (t - previous > T_in)
    label = opens.cumsum(0) * spike  # 1, 2, ... inside clusters, 0 elsewhere
    size = torch.zeros_like(torch.cat([label, label[:1]])).scatter_add_(0, label, torch.ones_like(label))
    size[0] = T + 1
    smallest = torch.where(size == 0, T + 1, size).argmin(0)
    in_smallest = spike & (label == smallest)
    k_negative = in_smallest & (t == torch.where(in_smallest, t, -1).amax(0))

    free = (t - last > T_in) & (next_ - t > T_in)
    best = torch.where(free, v, -torch.inf).amax(0)
    candidate = free & (v == best)
    k_positive = candidate & (t == torch.where(candidate, t, T).amin(0))
    return opens.sum(0).to(v.dtype), k_positive, k_negative


def first_spike_index(spikes: Tensor) -> Tensor:
    """Where each neuron spikes for the first time.

    Args:
        spikes: ``[*, T]``, any dtype; what is not zero is a spike, so graded spikes count too.

    Returns:
        ``[*, T]`` bool with at most one True along the last dimension.

    Example:
        >>> first_spike_index(torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
        tensor([[False,  True, False],
                [False, False, False]])
    """
    fired = spikes != 0
    return fired & (fired.cumsum(-1) == 1)
