"""The SpikingJelly preset's neurons whose output is no single spike: counts, ternary spikes, membranes."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from flexsn.neurons import base_node
from flexsn.neurons.arguments import (
    FiringOptions,
    MaskArguments,
    Number,
    SequenceOptions,
    check_number,
    with_arguments_of,
    wrong,
)
from flexsn.neurons.base import SpikingNeuron
from flexsn.neurons.coefficient import Coefficient
from flexsn.neurons.graded import ILIF, SpikeCount, TernaryIF, TernaryLIF
from flexsn.neurons.peer_class import PeerClass
from flexsn.neurons.spikingjelly.base import BaseNode, LIFNode

__all__ = ["ILIFNode", "NonSpikingBaseNode", "NonSpikingIFNode", "NonSpikingLIFNode", "TernaryIFNode", "TernaryLIFNode"]


class ILIFNode(LIFNode):
    """:class:`flexsn.neurons.ILIF`, with ``D`` inside the surrogate; it refuses one that does not count.

    Example:
        >>> import torch
        >>> ILIFNode(step_mode="m")(torch.tensor([4.0, 0.0, 8.0])).tolist()
        [4.0, 0.0, 4.0]
    """

    v_threshold = Coefficient(above=0)

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self, tau: Number = 4.0 / 3.0, v_threshold: Number = 1.0, *common: Any, **options: Unpack[FiringOptions]
    ) -> None:
        spike = options.pop("surrogate_function", None)
        spike = SpikeCount(4) if spike is None else spike
        if not (isinstance(spike, SpikeCount) or hasattr(spike, "max_spike_count")):
            raise wrong(self, "surrogate_function must be a MultiLevelSpikeCount", surrogate_function=spike)
        super().__init__(tau, False, v_threshold, None, spike, **options)

    charge = ILIF.charge
    fire = ILIF.fire


class TernaryIFNode(TernaryIF, BaseNode):  # type: ignore[misc]
    """:class:`flexsn.neurons.TernaryIF`, with a hard reset by default.

    Example:
        >>> import torch
        >>> TernaryIFNode(step_mode="m")(torch.tensor([1.5, -1.5, 0.5])).tolist()
        [1.0, -1.0, 0.0]
    """

    def __init__(self, v_threshold: Number = 1.0, v_reset: Number | None = 0.0, *args: Any, **options: Any) -> None:
        super().__init__(v_threshold, v_reset, *args, **options)


class TernaryLIFNode(TernaryLIF, BaseNode):  # type: ignore[misc]
    """:class:`flexsn.neurons.TernaryLIF`, with a hard reset by default.

    Example:
        >>> import torch
        >>> TernaryLIFNode(step_mode="m")(torch.tensor([2.5, -2.5, 0.5])).tolist()
        [1.0, -1.0, 0.0]
    """

    def __init__(
        self,
        tau: Number = 2.0,
        decay_input: bool = True,
        v_threshold: Number = 1.0,
        v_reset: Number | None = 0.0,
        *args: Any,
        **options: Any,
    ) -> None:
        super().__init__(tau, decay_input, v_threshold, v_reset, *args, **options)


class NonSpikingBaseNode(base_node.NonSpikingBaseNode, metaclass=PeerClass):
    """:class:`flexsn.neurons.NonSpikingBaseNode`, starting anew at every call."""

    def __init__(self, decode: str | None = None, **options: Unpack[SequenceOptions]) -> None:
        super().__init__(decode, **options)

    def forward(self, *inputs: Tensor, **masks: Unpack[MaskArguments]) -> Tensor:
        self.reset()
        return super().forward(*inputs, **masks)

    _advance = forward


class NonSpikingIFNode(NonSpikingBaseNode):
    """:class:`flexsn.neurons.NonSpikingIF`, starting anew at every call.

    Example:
        >>> import torch
        >>> NonSpikingIFNode()(torch.ones(3, 1)).tolist()
        [[1.0], [2.0], [3.0]]
    """

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.v + x


class NonSpikingLIFNode(NonSpikingBaseNode):
    """:class:`flexsn.neurons.NonSpikingLIF`, starting anew at every call.

    Example:
        >>> import torch
        >>> NonSpikingLIFNode()(torch.ones(3, 1)).tolist()
        [[0.5], [0.75], [0.875]]
    """

    def __init__(self, tau: Number = 2.0, decode: str | None = None, **options: Unpack[SequenceOptions]) -> None:
        super().__init__(decode, **options)
        check_number(self, above=0, tau=tau)
        self.tau = tau

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.v + (x - self.v) / self.tau
