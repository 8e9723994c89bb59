"""What snnTorch's ``utils`` does to the hidden states of a network; found there as ``snntorch.utils``."""

from __future__ import annotations

from torch import nn

__all__ = ["reset"]


def reset(net: nn.Module) -> None:
    """``reset_mem()`` of every neuron of ``net``, however deep; between batches of a network with ``init_hidden=True``.

    snnTorch's resets the neurons of the classes found at the top of ``net``, those of other networks as well.
    """
    for module in net.modules():
        if callable(getattr(module, "reset_mem", None)):
            module.reset_mem()  # type: ignore[operator]
