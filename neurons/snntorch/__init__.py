r"""snnTorch's neurons, compiled: same names, arguments, defaults, state dicts and spike trains.

.. code-block:: python

    from flexsn.neurons import snntorch as snn        # was: import snntorch as snn

    lif = snn.Leaky(beta=0.9)                         # step_mode="s": one step a call, as in snnTorch
    mem = lif.reset_mem()
    for x in x_seq:
        spk, mem = lif(x, mem)

    lif = snn.Leaky(beta=0.9, step_mode="m")          # all steps in one fused kernel
    spk_seq = lif(x_seq)

They fire where ``mem > threshold`` and reset one step later, by the spike of the membrane they start from,
whose gradient is cut: ``R = detach(Θ(mem[t] − threshold))``. Source: Eshraghian et al., "Training Spiking
Neural Networks Using Lessons From Deep Learning", Proc. IEEE 2023; snnTorch 1.0.

What differs, on purpose: spikes have the dtype of the membrane; ``reset_mechanism`` can be changed at any time.
Where snnTorch is installed, its tools take these neurons for its own; where it is not, ``utils.reset``,
``backprop.BPTT``, ``TBPTT``, ``RTRL`` and the factories of ``surrogate`` are here.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from flexsn.neurons.arguments import MaskArguments, Number, check_flag, with_arguments_of
from flexsn.neurons.peer_class import from_peer
from flexsn.neurons.snntorch import backprop as backprop
from flexsn.neurons.snntorch import hidden
from flexsn.neurons.snntorch import quant as quant
from flexsn.neurons.snntorch import surrogate as surrogate
from flexsn.neurons.snntorch.base import Options, Returned, SpikingNeuron, by_position
from flexsn.neurons.snntorch.lstm import SLSTM, SConv2dLSTM
from flexsn.neurons.snntorch.rc import Alpha, Lapicque
from flexsn.neurons.snntorch.recurrent import RLeaky, RSynaptic
from flexsn.neurons.snntorch.sequence import LeakyParallel, LinearLeaky, StateLeaky

utils = hidden
__all__ = [
    "SLSTM",
    "Alpha",
    "Lapicque",
    "Leaky",
    "LeakyParallel",
    "LinearLeaky",
    "RLeaky",
    "RSynaptic",
    "SConv2dLSTM",
    "SpikingNeuron",
    "StateLeaky",
    "Synaptic",
]


class Leaky(SpikingNeuron):
    r"""Leaky integrate-and-fire, first order.

    .. math:: U' = \beta U + x - R\, \theta \text{ (subtract)}, \quad
        U' = \beta (1 - R) U + x \text{ (zero)}, \quad U' = \beta U + x \text{ (none)}

    with :math:`R = \text{detach}(\Theta(U - \theta))`, :math:`S = \Theta(U' - \theta)`, β clipped to [0, 1].
    "zero" is what snnTorch computes: the input of the resetting step survives, although its documentation
    multiplies it by :math:`1 - R` as well.

    Args:
        beta: decay of the membrane in one step; a number or a tensor that broadcasts against the step shape.
        learn_beta: make ``beta`` a parameter.
        reset_delay: ``False`` resets in the step of the spike, through which the gradient then flows.
        threshold, spike_grad, surrogate_disable, init_hidden, inhibition, learn_threshold: as for
            :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`, with shapes, returned values and errors.
        reset_mechanism, state_quant, output, graded_spikes_factor, learn_graded_spikes_factor, options: likewise.

    States:
        ``mem``, the membrane.

    Example:
        >>> import torch
        >>> lif = Leaky(beta=0.5)
        >>> spk, mem = lif(torch.tensor([0.5, 1.5]))
        >>> spk.tolist(), mem.tolist()
        ([0.0, 1.0], [0.5, 1.5])
        >>> spk, mem = lif(torch.tensor([0.5, 1.5]), mem)
        >>> spk.tolist(), mem.tolist()
        ([0.0, 1.0], [0.75, 1.25])
    """

    beta: Tensor
    mem: Tensor

    @with_arguments_of(
        SpikingNeuron,
        *by_position("beta", learned=("learn_beta",)),
        "graded_spikes_factor",
        "learn_graded_spikes_factor",
        "reset_delay",
    )
    def __init__(
        self,
        beta: Number,
        *common: Any,
        learn_beta: bool = False,
        reset_delay: bool = True,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        self._hold(learn_beta, beta=beta)
        check_flag(self, reset_delay=reset_delay)
        self.reset_delay = reset_delay

    def forward(  # type: ignore[override]
        self, input_: Tensor, mem: Tensor | None = None, **masks: Unpack[MaskArguments]
    ) -> Returned:
        """See :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`."""
        return super().forward(input_, mem, **masks)

    def core(self, x: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        reset = self.mem_reset(mem)
        if self.reset_mechanism == "zero":
            mem = (1 - reset) * mem
        mem = self.charged(x, mem=mem, reset=reset)
        if self.reset_mechanism == "subtract":
            mem = mem - reset * self.threshold
        mem = self.quantized(mem)
        spk = self.fire(mem)
        return spk, mem if self.reset_delay else self.reset_at_once(mem, reset, spk)

    def _base_state_function(self, input_: Tensor) -> Any:
        return self.beta.clamp(0, 1) * self.mem + input_

    init_leaky = SpikingNeuron.reset_mem


class Synaptic(SpikingNeuron):
    r"""Leaky integrate-and-fire behind a decaying synaptic current, second order.

    .. math:: I' = \alpha I + x, \qquad U' = \beta U + I' - R\, \theta \text{ (subtract)}, \quad
        U' = (1 - R)(\beta U + I') \text{ (zero)}, \quad U' = \beta U + I' \text{ (none)}

    with :math:`R = \text{detach}(\Theta(U - \theta))`, :math:`S = \Theta(U' - \theta)`; α and β are clipped
    to [0, 1].

    Args:
        alpha: decay of the current in one step; a number or a tensor that broadcasts against the step shape.
        beta: decay of the membrane in one step; likewise.
        learn_alpha, learn_beta: make them parameters.
        reset_delay: ``False`` resets in the step of the spike, through which the gradient then flows.
        threshold, spike_grad, surrogate_disable, init_hidden, inhibition, learn_threshold: as for
            :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`, with shapes, returned values and errors.
        reset_mechanism, state_quant, output, options: likewise.

    States:
        ``syn``, the current, and ``mem``, the membrane.

    Example:
        >>> import torch
        >>> neuron = Synaptic(alpha=0.5, beta=0.5, step_mode="m")
        >>> neuron(torch.tensor([0.75, 0.75, 0.0])).tolist(), neuron.syn.item(), neuron.mem.item()
        ([0.0, 1.0, 0.0], 0.5625, 0.3125)
    """

    alpha: Tensor
    beta: Tensor

    @with_arguments_of(
        SpikingNeuron, *by_position("alpha", "beta", learned=("learn_alpha", "learn_beta"), last=("reset_delay",))
    )
    def __init__(
        self,
        alpha: Number,
        beta: Number,
        *common: Any,
        learn_alpha: bool = False,
        learn_beta: bool = False,
        reset_delay: bool = True,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        self._hold(learn_alpha, alpha=alpha)
        self._hold(learn_beta, beta=beta)
        check_flag(self, reset_delay=reset_delay)
        self.reset_delay = reset_delay

    def forward(  # type: ignore[override]
        self,
        input_: Tensor,
        syn: Tensor | None = None,
        mem: Tensor | None = None,
        **masks: Unpack[MaskArguments],
    ) -> Returned:
        """See :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`."""
        return super().forward(input_, syn, mem, **masks)

    def core(self, x: Tensor, syn: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        reset = self.mem_reset(mem)
        syn, mem = self.charged(x, syn=syn, mem=mem, reset=reset)
        if self.reset_mechanism == "subtract":
            mem = mem - reset * self.threshold
        elif self.reset_mechanism == "zero":
            mem = mem - mem * reset
        syn, mem = self.quantized(syn), self.quantized(mem)
        spk = self.fire(mem)
        return spk, syn, mem if self.reset_delay else self.reset_at_once(mem, reset, spk)

    def _base_state_function(self, input_: Tensor) -> Any:
        syn = self.alpha.clamp(0, 1) * self.syn + input_
        return syn, self.beta.clamp(0, 1) * self.mem + syn

    init_synaptic = SpikingNeuron.reset_mem


def __getattr__(name: str) -> Any:
    return from_peer(__name__, name)
