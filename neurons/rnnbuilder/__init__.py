r"""rnnbuilder's spiking neurons, compiled: same names, arguments, defaults and spike trains.

Source: Koepke, rnnbuilder 0.1.1. All compare with ``>`` and detach nothing; the decay of the membrane in one
step is ``beta = exp(−1/tau)``; each neuron learns the membrane it starts from, ``initial_mem``.

rnnbuilder flattens what goes into its neurons and they are told their shape by the network around them. Here
the step keeps its shape, and a neuron learns its own from the first input or is told by ``in_shape``. rnnbuilder's
builder takes them as its own: ``rb.Sequential(rb.nn.Linear(8), LIF())``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from typing_extensions import Unpack

from flexsn import FlexSN, surrogate
from flexsn.neurons import discontinuous
from flexsn.neurons.arguments import (
    MaskArguments,
    SequenceOptions,
    SpikeFunction,
    check_callable,
    check_flag,
    check_number,
    check_shape,
)
from flexsn.neurons.rnnbuilder.building import Factory

__all__ = ["LIF", "Adaptive", "Cooldown", "Discontinuous", "NoReset", "SpikeLinear"]


class SpikeLinear(surrogate.SpikeLinear):
    """Spike function: forward ``u > 0``, backward ``g·max(0, 1 − |u|)·gradient_factor``.

    Args:
        gradient_factor: the slope at the threshold.

    Example:
        >>> SpikeLinear()(torch.tensor([0.0, 0.1]))
        tensor([0., 1.])
    """

    def __init__(self, gradient_factor: float = 0.3) -> None:
        super().__init__(gradient_factor, strict=True)


class Membrane(LazyModuleMixin, Factory, FlexSN):
    """A membrane ``mem`` that decays by ``beta`` and starts from the learnable ``initial_mem``.

    Args:
        tau: time constant of the membrane, in steps.
        spike_function: by default ``SpikeLinear()``.
        in_shape: shape of the neurons, a step without its batch axis. By default that of the first input: all
            of a step's axes but the first, or its only one. Until then ``initial_mem`` is an
            ``UninitializedParameter``: optimizers and ``state_dict`` may already hold it.
        step_mode: ``"m"``: inputs are sequences ``[T, B, *in_shape]``; ``"s"``: steps ``[B, *in_shape]``.
        backend: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"torch"``.
        store_state_seqs: keep the states of every step of a call in ``state_seqs``.

    Shapes:
        output as the input; states ``[B, *in_shape]``; ``initial_mem`` ``in_shape``, zeros at first.

    Raises:
        ValueError: ``tau <= 0``, a spike function that cannot be called, an input of other neurons.
    """

    integers_as_floats: ClassVar[bool] = True
    initial_mem: nn.Parameter

    def __init__(
        self,
        tau: float = 5,
        spike_function: SpikeFunction | None = None,
        *,
        in_shape: Sequence[int] | int | None = None,
        step_mode: str = "m",
        backend: str = "auto",
        store_state_seqs: bool = False,
        **options: Unpack[SequenceOptions],
    ) -> None:
        super().__init__(step_mode=step_mode, backend=backend, store_state_seqs=store_state_seqs, **options)
        check_flag(self, store_state_seqs=store_state_seqs)
        check_number(self, above=0, tau=tau)
        self.tau = tau
        spike = SpikeLinear() if spike_function is None else spike_function
        check_callable(self, "SpikeLinear()", spike_function=spike)
        self.spike_function: SpikeFunction = spike
        self._register_tensors()
        if in_shape is not None:
            self._set_shape(check_shape(self, in_shape=(in_shape,) if isinstance(in_shape, int) else in_shape))

    @property
    def beta(self) -> float:
        """Decay of the membrane in one step."""
        return math.exp(-1 / self.tau)

    def _register_tensors(self) -> None:
        self.initial_mem = cast(nn.Parameter, nn.UninitializedParameter())

    def _set_shape(self, in_shape: Sequence[int]) -> None:
        self.initial_mem.materialize(in_shape)  # type: ignore[attr-defined]
        nn.init.zeros_(self.initial_mem)

    def initialize_parameters(self, x: Tensor, **masks: Unpack[MaskArguments]) -> None:
        """Read the shape of the neurons off the first input."""
        if self.has_uninitialized_params():
            axes = list(x.shape)
            if self.step_mode == "m":
                del axes[self.time_dim]
            self._set_shape(axes[1:] if len(axes) > 1 else axes)

    def init_states(  # type: ignore[override]
        self, num_states: int, step_mode: str, *args: Tensor
    ) -> Sequence[Tensor]:
        """``initial_mem``, then zeros."""
        zeros = FlexSN.init_states(num_states, step_mode, *args)
        shape, step = tuple(self.initial_mem.shape), tuple(zeros[0].shape)
        if step[len(step) - len(shape) :] != shape:
            raise ValueError(
                f"{type(self).__name__} has neurons of shape {shape}, the step of the input has shape {step}; "
                "its last axes must be those of the neurons"
            )
        return [self.initial_mem.to(zeros[0].dtype), *zeros[1:]]

    def initial_output(self) -> Tensor:
        """The spike of ``initial_mem``."""
        spikes: Tensor = self.spike_function(self.initial_mem - 1)
        return spikes

    def extra_repr(self) -> str:
        lazy = self.has_uninitialized_params()
        in_shape = None if lazy else tuple(self.initial_mem.shape)
        return f"tau={self.tau}, in_shape={in_shape}, step_mode={self.step_mode!r}, backend={self.backend!r}"


class LIF(Membrane):
    r"""Leaky integrate-and-fire with reset by subtraction.

    .. math:: h = \beta m + x, \qquad s = \Theta(h - 1), \qquad m' = h - s

    Args:
        tau, spike_function, in_shape, step_mode, backend, store_state_seqs: as for :class:`Membrane`, with
            its shapes and errors. State: ``mem``.

    Example:
        >>> LIF(tau=2)(torch.tensor([[0.9], [0.9], [0.5]])).tolist()
        [[0.0], [1.0], [0.0]]
    """

    def core(self, x: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        mem = self.beta * mem + x
        s = self.spike_function(mem - 1)
        return s, mem - s


class NoReset(Membrane):
    r"""A leaky membrane that is never reset and spikes for as long as it is above threshold.

    .. math:: m' = \beta m + x, \qquad s = \Theta(m' - 1)

    Args:
        tau, spike_function, in_shape, step_mode, backend, store_state_seqs: as for :class:`Membrane`, with
            its shapes and errors. State: ``mem``.

    Example:
        >>> NoReset(tau=2)(torch.tensor([[0.9], [0.9], [0.0]])).tolist()
        [[0.0], [1.0], [0.0]]
    """

    def core(self, x: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        mem = self.beta * mem + x
        return self.spike_function(mem - 1), mem


class Cooldown(Membrane):
    r"""A membrane driven by the exponential of the input; half of the neurons fire while it is low.

    .. math:: s = \Theta(\sigma (m - 1)), \qquad m' = \beta m + (1 - \beta)\, e^x

    The spike is that of the membrane the step starts from. The sign σ, a buffer ``sgn`` of the neuron shape,
    is +1 for the first ``N // 2`` neurons and −1 for the others.

    Args:
        tau, spike_function, in_shape, step_mode, backend, store_state_seqs: as for :class:`Membrane`, with
            its shapes and errors. State: ``mem``.

    Example:
        >>> Cooldown(tau=2)(torch.tensor([[2.0, 2.0], [2.0, 2.0]])).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """

    sgn: Tensor

    def _register_tensors(self) -> None:
        super()._register_tensors()
        self.register_buffer("sgn", nn.parameter.UninitializedBuffer())

    def _set_shape(self, in_shape: Sequence[int]) -> None:
        super()._set_shape(in_shape)
        self.sgn.materialize(in_shape)  # type: ignore[attr-defined]
        nn.init.ones_(self.sgn)
        self.sgn.view(-1)[self.sgn.numel() // 2 :] = -1

    def initial_output(self) -> Tensor:
        """A spike of each neuron that fires while its membrane is low."""
        return (self.sgn < 0).to(self.initial_mem)

    def core(self, x: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        beta = self.beta
        return self.spike_function(self.sgn * (mem - 1)), beta * mem + (1 - beta) * torch.exp(x)


class Adaptive(Membrane):
    r"""Leaky integrate-and-fire whose threshold rises with every spike and relaxes to 1.

    .. math:: \theta = 1 + r, \quad s = \Theta((m - \theta)/\theta), \quad m' = \beta m + x - s\,\theta, \quad
        r' = e^{-1/\tau_{thr}}\, r + \gamma s, \quad r_0 = 0

    The spike is that of the membrane the step starts from. After Bellec et al., "Long short-term memory and
    learning-to-learn in networks of spiking neurons", NeurIPS 2018.

    Args:
        tau_thr: time constant of the threshold, in steps.
        gamma: rise of the threshold with a spike.
        tau, spike_function, options: as for :class:`Membrane`, with its shapes and errors.
            States: ``mem``, ``rel_thresh`` (r).

    Example:
        >>> neuron = Adaptive(tau=5)
        >>> neuron(torch.tensor([[1.5], [0.0]])).tolist(), neuron.rel_thresh.tolist()
        ([[0.0], [1.0]], [0.25])
    """

    def __init__(
        self,
        tau: float = 5,
        spike_function: SpikeFunction | None = None,
        tau_thr: float = 5,
        gamma: float = 0.25,
        **options: Any,
    ) -> None:
        super().__init__(tau, spike_function, **options)
        check_number(self, above=0, tau_thr=tau_thr)
        check_number(self, gamma=gamma)
        self.tau_thr = tau_thr
        self.gamma = gamma

    def firing_threshold(self, mem: Tensor, rel_thresh: Tensor) -> Tensor:
        """θ, the threshold of a step from these states."""
        return 1 + rel_thresh

    def core(self, x: Tensor, mem: Tensor, rel_thresh: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        threshold = self.firing_threshold(mem, rel_thresh)
        s = self.spike_function((mem - threshold) / threshold)
        mem = self.beta * mem + x - s * threshold
        return s, mem, math.exp(-1 / self.tau_thr) * rel_thresh + self.gamma * s

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, tau_thr={self.tau_thr}, gamma={self.gamma}"


class Discontinuous(discontinuous.Discontinuous, Factory):
    """:class:`flexsn.neurons.Discontinuous`, which rnnbuilder's builder takes too.

    Example:
        >>> Discontinuous()(torch.tensor([1.0, 1.5])).tolist()
        [0.0, 1.0]
    """

    def initial_output(self) -> Tensor:
        """No spike."""
        return torch.zeros(())
