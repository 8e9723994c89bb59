"""SpikingJelly's neurons for online learning: in training every step starts from a detached membrane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Unpack

from flexsn.neurons.arguments import MaskArguments, Number, with_arguments_of
from flexsn.neurons.base import SpikingNeuron
from flexsn.neurons.spikingjelly.base import LIFNode

__all__ = ["OTTTLIFNode", "SLTTLIFNode"]


class OnlineLIFNode(LIFNode):
    """What both have: the step forgets, in training, where its membrane comes from."""

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.charge(x, self.v.detach() if self.training else self.v)

    def forward(self, *inputs: Tensor, **masks: Unpack[MaskArguments]) -> Any:
        """Run ``T`` steps, or one, behind which a backward pass stops in training."""
        if self.training:
            self.detach()
        return super().forward(*inputs, **masks)

    _advance = forward


class SLTTLIFNode(OnlineLIFNode):
    """A LIF that learns by spatial learning through time: no gradient flows from one step to the next in training.

    Whole sequences too, by one backward pass, with the gradients that a backward pass at each step would add up.

    Args:
        tau, decay_input, v_threshold, v_reset, surrogate_function, detach_reset, step_mode, store_v_seq, options: as
            for :class:`LIFNode`, detached at the reset by default.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.5, 0.5, 1.5], requires_grad=True)
        >>> node = SLTTLIFNode(step_mode="m")
        >>> node(x).tolist(), (node.v.backward(), x.grad.tolist())[1]
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.5])
    """

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        tau: Number = 2.0,
        decay_input: bool = True,
        v_threshold: Number = 1.0,
        v_reset: Number | None = 0.0,
        *common: Any,
        detach_reset: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(tau, decay_input, v_threshold, v_reset, detach_reset=detach_reset, **options)


class OTTTLIFNode(OnlineLIFNode):
    """A LIF that learns by online training through time: with its spikes it puts out their trace.

    ``trace' = trace·(1 − 1/tau) + s``, without a gradient. In training a call returns ``[spike, trace]``, as the
    layers of ``OTTTSequential`` take them, else the spike.

    Args:
        tau, decay_input, v_threshold, v_reset, surrogate_function, detach_reset, step_mode, store_v_seq, options: as
            for :class:`SLTTLIFNode`, whose sequences it takes as well.

    States:
        ``v`` and ``trace``.

    Example:
        >>> import torch
        >>> node = OTTTLIFNode(step_mode="m")
        >>> [seq.tolist() for seq in node(torch.tensor([1.5, 0.0, 1.5]))]
        [[1.0, 0.0, 1.0], [1.0, 0.5, 1.25]]
        >>> node.eval()(torch.tensor([1.5])).tolist()
        [1.0]
    """

    starts: ClassVar[Mapping[str, float | str]] = {"v": "v_reset", "trace": 0.0}
    trace: Any  # the state, as a step sees and assigns it

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        tau: Number = 2.0,
        decay_input: bool = False,
        v_threshold: Number = 1.0,
        v_reset: Number | None = None,
        *common: Any,
        detach_reset: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(tau, decay_input, v_threshold, v_reset, detach_reset=detach_reset, **options)

    def _hooks(self, x: Tensor) -> Any:
        spike = super()._hooks(x)
        if self.training:
            self.trace = self.track_trace(spike, self.trace, self.tau)
        return spike, self.trace

    @staticmethod
    def track_trace(spike: Tensor, trace: Tensor, tau: Number) -> Tensor:
        """The trace after this spike."""
        return (trace * (1.0 - 1.0 / tau) + spike).detach()

    def forward(self, *inputs: Tensor, **masks: Unpack[MaskArguments]) -> Any:
        """``[spike, trace]`` in training, else the spike."""
        spike, trace = super().forward(*inputs, **masks)
        return [spike, trace.detach()] if self.training else spike

    _advance = forward
