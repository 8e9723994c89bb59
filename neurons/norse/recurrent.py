"""Norse's layers whose spikes come back to them: LIFRecurrent and its kin, over sequences and as cells."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from flexsn.neurons.arguments import check_flag, check_size, wrong
from flexsn.neurons.base_node import FedBack
from flexsn.neurons.norse.base import NorseNeuron, per_step
from flexsn.neurons.norse.cells import LIFRefracCell
from flexsn.neurons.norse.izhikevich import Izhikevich, IzhikevichSpikingBehavior
from flexsn.neurons.norse.parameters import (
    IzhikevichRecurrentState,
    LIFAdExState,
    LIFExState,
    LIFRefracState,
    LIFState,
    LSNNState,
)
from flexsn.neurons.norse.spiking import LIF, LSNN, LIFAdEx, LIFEx

__all__ = [
    "IzhikevichRecurrent",
    "IzhikevichRecurrentCell",
    "LIFAdExRecurrent",
    "LIFAdExRecurrentCell",
    "LIFExRecurrent",
    "LIFExRecurrentCell",
    "LIFRecurrent",
    "LIFRecurrentCell",
    "LIFRefracRecurrent",
    "LIFRefracRecurrentCell",
    "LSNNRecurrent",
    "LSNNRecurrentCell",
    "RecurrentNeuron",
]


class RecurrentNeuron(FedBack, NorseNeuron):
    r"""A layer of neurons that is driven by :math:`W_{in} x + W_{rec} z`, with z its spikes of the last step.

    The first product is one for all steps.

    Args:
        input_size, hidden_size: last dimension of the input, and of the spikes.
        p: the parameters.
        input_weights: ``[hidden_size, input_size]``; by default normal, and learned.
        recurrent_weights: ``[hidden_size, hidden_size]``; likewise.
        autapses: whether a neuron may feed itself. Where not, the diagonal starts at 0, and so is its gradient.
        step_mode: ``"m"`` for a layer and ``"s"`` for a cell, unless it is said.
        dt, options: as for :class:`~flexsn.neurons.norse.base.NorseNeuron`, with returned values and errors.

    Shapes:
        input ``[T, *step, input_size]`` (``"m"``) or ``[*step, input_size]`` (``"s"``); spikes and states with
        ``hidden_size``.
    """

    step_mode_of_kind: ClassVar[str] = "m"
    input_weights: Tensor
    recurrent_weights: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        p: Any = None,
        input_weights: Tensor | None = None,
        recurrent_weights: Tensor | None = None,
        autapses: bool = False,
        dt: float = 0.001,
        *,
        step_mode: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(p, dt, step_mode=self.step_mode_of_kind if step_mode is None else step_mode, **options)
        check_size(self, input_size=input_size, hidden_size=hidden_size)
        check_flag(self, autapses=autapses)
        self.input_size, self.hidden_size, self.autapses = input_size, hidden_size, autapses
        scale = np.sqrt(2.0 / hidden_size)
        if input_weights is None:
            input_weights = nn.Parameter(torch.randn(hidden_size, input_size) * scale)
        if recurrent_weights is None:
            recurrent_weights = nn.Parameter(torch.randn(hidden_size, hidden_size) * scale)
        for name, weights, size in (
            ("input_weights", input_weights, input_size),
            ("recurrent_weights", recurrent_weights, hidden_size),
        ):
            if not isinstance(weights, Tensor) or weights.shape != (hidden_size, size):
                raise wrong(self, f"{name} must be a tensor [{hidden_size}, {size}]", **{name: weights})
        if not autapses:
            recurrent_weights.requires_grad_().detach().fill_diagonal_(0.0)
        self.input_weights, self.recurrent_weights = input_weights, recurrent_weights
        self._keep_diagonal()

    def _keep_diagonal(self) -> None:
        """Where no neuron may feed itself, no gradient shall teach it to."""
        if not self.autapses:
            self.recurrent_weights.register_hook(_off_diagonal)  # type: ignore[no-untyped-call]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._keep_diagonal()

    def __deepcopy__(self, memo: dict[int, Any]) -> RecurrentNeuron:
        clone = super().__deepcopy__(memo)
        clone._keep_diagonal()
        return clone

    def drive(self, x: Tensor) -> Tensor:
        return nnf.linear(x, self.input_weights)

    def recurrence(self, z: Tensor) -> Tensor:
        """What the last spikes add to the input."""
        return nnf.linear(z, self.recurrent_weights)

    def _multiplied(self, *states: Tensor) -> tuple[Tensor, ...]:
        return (self.recurrence(states[0]),)

    def extra_repr(self) -> str:
        sizes = f"input_size={self.input_size}, hidden_size={self.hidden_size}, autapses={self.autapses}"
        return f"{sizes}, {super().extra_repr()}"


def _off_diagonal(gradient: Tensor) -> Tensor:
    return gradient.clone().fill_diagonal_(0.0)


class LIFRecurrent(RecurrentNeuron, LIF):
    """A :class:`LIF` that its spikes come back to; the reset lets no gradient through.

    Args:
        options: as for :class:`RecurrentNeuron`. States: ``z``, the spikes, ``v`` (from ``v_leak``), ``i``.

    Example:
        >>> layer = LIFRecurrent(2, 3)
        >>> spikes, state = layer(torch.rand(5, 4, 2))
        >>> spikes.shape, type(state).__name__
        (torch.Size([5, 4, 3]), 'LIFState')
    """

    state_type: ClassVar[Any] = LIFState

    def core(self, x: Tensor, z: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """One step, of the input behind its weights."""
        jump = i + x + self.recurrence(z)
        h = v + per_step(self, self.tau_mem_inv) * ((self.v_leak - v) + jump)
        i = jump + -per_step(self, self.tau_syn_inv) * jump
        z = self.spike(h - self.v_th)
        fired = z.detach()
        return z, z, (1 - fired) * h + fired * self.v_reset, i

    core.multiplies_once = True  # type: ignore[attr-defined]


class LIFRefracRecurrent(RecurrentNeuron, LIFRefracCell):
    """A :class:`LIFRecurrent` that rests after a spike, as :class:`LIFRefracCell` does.

    Args:
        options: as for :class:`RecurrentNeuron`. States: those of the LIF, and ``rho``.
    """

    state_type: ClassVar[Any] = LIFRefracState

    def core(self, x: Tensor, z: Tensor, v: Tensor, i: Tensor, rho: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """One step, of the input behind its weights."""
        z, _, new, i = LIFRecurrent.core(self, x, z, v, i)  # type: ignore[arg-type]  # it is no more than a method
        z, v, rho = LIFRefracCell.rested(self, z, new, v, rho)
        return z, z, v, i, rho

    core.multiplies_once = True  # type: ignore[attr-defined]

    @classmethod
    def state_of(cls, states: tuple[Any, ...]) -> Any:
        z, v, i, rho = states
        return LIFRefracState(LIFState(z, v, i), rho)


class LIFExRecurrent(RecurrentNeuron, LIFEx):
    """A :class:`LIFEx` that its spikes come back to.

    Args:
        options: as for :class:`RecurrentNeuron`. States: ``z``, ``v`` (from ``v_leak``), ``i``.
    """

    state_type: ClassVar[Any] = LIFExState

    def core(self, x: Tensor, z: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """One step, of the input behind its weights."""
        z, v, i = LIFEx.core(self, self.recurrence(z), v, i + x)
        return z, z, v, i

    core.multiplies_once = True  # type: ignore[attr-defined]


class LIFAdExRecurrent(RecurrentNeuron, LIFAdEx):
    """A :class:`LIFAdEx` that its spikes come back to.

    Args:
        options: as for :class:`RecurrentNeuron`. States: ``z``, ``v`` (from ``v_leak``), ``i``, ``a``.
    """

    state_type: ClassVar[Any] = LIFAdExState

    def core(self, x: Tensor, z: Tensor, v: Tensor, i: Tensor, a: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """One step, of the input behind its weights."""
        z, v, i, a = LIFAdEx.core(self, self.recurrence(z), v, i + x, a)
        return z, z, v, i, a

    core.multiplies_once = True  # type: ignore[attr-defined]


class LSNNRecurrent(RecurrentNeuron, LSNN):
    """A :class:`LSNN` that its spikes come back to; neither reset nor jump of the threshold lets a gradient through.

    Args:
        options: as for :class:`RecurrentNeuron`. States: ``z``, ``v`` (from ``v_leak``), ``i``, ``b`` (from ``v_th``).

    Example:
        >>> layer = LSNNRecurrent(2, 3)
        >>> spikes, state = layer(torch.rand(5, 4, 2))
        >>> spikes.shape, state.b.shape
        (torch.Size([5, 4, 3]), torch.Size([4, 3]))
    """

    state_type: ClassVar[Any] = LSNNState

    def core(self, x: Tensor, z: Tensor, v: Tensor, i: Tensor, b: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """One step, of the input behind its weights."""
        c = LSNN.firing_threshold(self, v, i, b)
        h = v + per_step(self, self.tau_mem_inv) * ((self.v_leak - v) + i)
        i = i + -per_step(self, self.tau_syn_inv) * i + x + self.recurrence(z)
        z = self.spike(h - c)
        fired = z.detach()
        return z, z, (1 - fired) * h + fired * self.v_reset, i, c + fired * self.beta

    core.multiplies_once = True  # type: ignore[attr-defined]


class IzhikevichRecurrent(RecurrentNeuron, Izhikevich):
    """An :class:`Izhikevich` that its spikes come back to.

    Args:
        spiking_method: as for :class:`Izhikevich`.
        options: as for :class:`RecurrentNeuron`. States: ``z``, ``v``, ``u``.
    """

    state_type: ClassVar[Any] = IzhikevichRecurrentState

    def __init__(
        self, input_size: int, hidden_size: int, spiking_method: IzhikevichSpikingBehavior, **options: Any
    ) -> None:
        super().__init__(input_size, hidden_size, spiking_method, **options)

    def core(self, x: Tensor, z: Tensor, v: Tensor, u: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """One step, of the input behind its weights."""
        z, v, u = Izhikevich.core(self, x + self.recurrence(z), v, u)
        return z, z, v, u

    core.multiplies_once = True  # type: ignore[attr-defined]


class LIFRecurrentCell(LIFRecurrent):
    """One step of :class:`LIFRecurrent` a call."""

    step_mode_of_kind: ClassVar[str] = "s"


class LIFRefracRecurrentCell(LIFRefracRecurrent):
    """One step of :class:`LIFRefracRecurrent` a call."""

    step_mode_of_kind: ClassVar[str] = "s"


class LIFExRecurrentCell(LIFExRecurrent):
    """One step of :class:`LIFExRecurrent` a call."""

    step_mode_of_kind: ClassVar[str] = "s"


class LIFAdExRecurrentCell(LIFAdExRecurrent):
    """One step of :class:`LIFAdExRecurrent` a call."""

    step_mode_of_kind: ClassVar[str] = "s"


class LSNNRecurrentCell(LSNNRecurrent):
    """One step of :class:`LSNNRecurrent` a call."""

    step_mode_of_kind: ClassVar[str] = "s"


class IzhikevichRecurrentCell(IzhikevichRecurrent):
    """One step of :class:`IzhikevichRecurrent` a call."""

    step_mode_of_kind: ClassVar[str] = "s"
