"""The neurons of SpikingJelly's ``clock_driven``, its package before ``activation_based``: a class per step mode.

.. code-block:: python

    from spikingjelly.clock_driven import neuron                    # before
    from flexsn.neurons.spikingjelly import clock_driven as neuron  # after

A ``MultiStep*Node`` takes a sequence, and keeps its membranes in ``v_seq``.
"""

from __future__ import annotations

from typing import Any

from flexsn.neurons.spikingjelly import EIFNode, IFNode, LIFNode, ParametricLIFNode

__all__ = [
    "EIFNode",
    "IFNode",
    "LIFNode",
    "MultiStepEIFNode",
    "MultiStepIFNode",
    "MultiStepLIFNode",
    "MultiStepParametricLIFNode",
    "ParametricLIFNode",
]


class MultiStepIFNode(IFNode):
    """:class:`IFNode` in step mode ``"m"``.

    Example:
        >>> import torch
        >>> node = MultiStepIFNode()
        >>> node(torch.tensor([[0.75], [0.75], [0.5]])).flatten().tolist(), node.v_seq.flatten().tolist()
        ([0.0, 1.0, 0.0], [0.75, 0.0, 0.5])
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **_whole(options))


class MultiStepLIFNode(LIFNode):
    """:class:`LIFNode` in step mode ``"m"``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **_whole(options))


class MultiStepParametricLIFNode(ParametricLIFNode):
    """:class:`ParametricLIFNode` in step mode ``"m"``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **_whole(options))


class MultiStepEIFNode(EIFNode):
    """:class:`EIFNode` in step mode ``"m"``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **_whole(options))


def _whole(options: dict[str, Any]) -> dict[str, Any]:
    """Sequences in, their membranes kept; what concerned another backend has no meaning here."""
    options.pop("lava_s_cale", None)
    return {"step_mode": "m", "store_v_seq": True, **options}
