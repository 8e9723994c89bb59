"""Integrate-and-fire neurons with a linear charge: IF, LIF, PLIF."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from flexsn.neurons.arguments import Number, SpikingOptions, check_flag, check_shape, with_arguments_of
from flexsn.neurons.base import SpikingNeuron, above_rest
from flexsn.neurons.coefficient import Coefficient, log

__all__ = ["IF", "LIF", "PLIF", "leaky_charge"]


def leaky_charge(x: Tensor, v: Tensor, tau: Number, decay_input: bool, v_reset: Number | None) -> Tensor:
    """The charge of LIF: ``v + (x − (v − v_reset))/tau``, or ``v − (v − v_reset)/tau + x``."""
    if decay_input:
        return v + (x - above_rest(v, v_reset)) / tau
    return v - above_rest(v, v_reset) / tau + x


class IF(SpikingNeuron):
    """Integrate-and-fire: ``h = v + x``; fires at ``h ≥ v_threshold``.

    Source: Lapicque 1907, without the leak; arguments of SpikingJelly's ``IFNode``.

    Args:
        v_threshold, v_reset, surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may name ``v_threshold``, ``v_reset``.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``). State: ``v``,
        ``[*step]``.

    Example:
        >>> import torch
        >>> IF(step_mode="m")(torch.tensor([0.5, 0.5, 0.75, 0.75])).tolist()
        [0.0, 1.0, 0.0, 1.0]
        >>> IF(v_reset=None, learnable="v_threshold", shape=(3,))
        IF(
          v_threshold=learnable (3,), v_reset=None, detach_reset=False, step_mode='s', backend='auto'
          (surrogate_function): Sigmoid(alpha=4.0)
        )
    """

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        return v + x


class LIF(SpikingNeuron):
    """Leaky integrate-and-fire.

    ``h = v + (x − (v − v_reset))/tau`` if ``decay_input``, else ``h = v − (v − v_reset)/tau + x``;
    an absent ``v_reset`` counts as 0 in the charge. Fires at ``h ≥ v_threshold``.
    Source: Gerstner et al., "Neuronal Dynamics", section 1.3; arguments of SpikingJelly's ``LIFNode``.

    Args:
        tau: membrane time constant, in steps; > 1.
        decay_input: whether the input is divided by ``tau`` too.
        v_threshold, v_reset, surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may also name ``tau``.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``). State: ``v``,
        ``[*step]``.

    Example:
        >>> import torch
        >>> lif = LIF(tau=2.0, step_mode="m")
        >>> lif(torch.full((4, 2), 1.5)).tolist()
        [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
        >>> lif = LIF(tau=4.0, learnable=("tau", "v_threshold"), shape=(8, 1, 1))
        >>> lif.tau.shape, [name for name, _ in lif.named_parameters()]
        (torch.Size([8, 1, 1]), ['tau_raw', 'v_threshold'])
    """

    tau = Coefficient(above=1)

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self, tau: Number = 2.0, decay_input: bool = True, *common: Any, **options: Unpack[SpikingOptions]
    ) -> None:
        super().__init__(tau=tau, **options)
        check_flag(self, decay_input=decay_input)
        self.decay_input = decay_input

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        return leaky_charge(x, v, self.tau, self.decay_input, self.v_reset)

    def _options(self) -> dict[str, Any]:
        return {"decay_input": self.decay_input, **super()._options()}


class PLIF(SpikingNeuron):
    """Parametric LIF: the charge of :class:`LIF` with a learned ``1/tau = sigmoid(w)``.

    ``h = v + (x − (v − v_reset))·sigmoid(w)`` if ``decay_input``, else ``h = v − (v − v_reset)·sigmoid(w) +
    x``. Source: Fang et al., "Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking
    Neural Networks", ICCV 2021, where ``w`` is one number for all; ``shape`` makes it one per channel or
    neuron.

    Args:
        init_tau: membrane time constant at the start, in steps; > 1. A number or a tensor.
        decay_input: whether the input is multiplied by ``sigmoid(w)`` too.
        v_threshold, v_reset, surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable: as for :class:`Neuron`.
        shape: shape of ``w`` and of what ``learnable`` names.

    Parameters:
        ``w``, starts at ``−ln(init_tau − 1)``.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``). State: ``v``,
        ``[*step]``.

    Example:
        >>> import torch
        >>> plif = PLIF(init_tau=4.0, shape=(3,), step_mode="m")
        >>> plif(torch.full((4, 1, 3), 3.0)).sum().backward()
        >>> plif.w.grad.shape, plif.tau.tolist()
        (torch.Size([3]), [4.0, 4.0, 4.0])
    """

    init_tau = Coefficient(above=1)

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self, init_tau: Number = 2.0, decay_input: bool = True, *common: Any, **options: Unpack[SpikingOptions]
    ) -> None:
        shape = options.get("shape", ())
        options["shape"] = shape if options.get("learnable") else ()
        super().__init__(**options)
        check_flag(self, decay_input=decay_input)
        self.decay_input = decay_input
        init_w = torch.as_tensor(-log(type(self).init_tau.checked(self, init_tau) - 1.0))
        self.w = nn.Parameter(init_w.detach().expand(check_shape(self, shape=shape) or init_w.shape).clone())

    @property
    def tau(self) -> Tensor:
        """The membrane time constant, ``1/sigmoid(w)``, in steps."""
        return 1.0 / self.w.sigmoid()

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        rate = self.w.sigmoid()
        if self.decay_input:
            return v + (x - above_rest(v, self.v_reset)) * rate
        return v - above_rest(v, self.v_reset) * rate + x

    def _options(self) -> dict[str, Any]:
        return {"tau": self.tau, "decay_input": self.decay_input, **super()._options()}
