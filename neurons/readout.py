"""Neurons that integrate without spiking, for the last layer: NonSpikingIF, NonSpikingLIF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flexsn.neurons.arguments import Number, wrong
from flexsn.neurons.base import Neuron
from flexsn.neurons.coefficient import Coefficient

__all__ = ["NonSpikingIF", "NonSpikingLIF"]


def _largest_magnitude(v_seq: Tensor) -> Tensor:
    high, low = v_seq.max(0).values, v_seq.min(0).values
    return torch.where(high.abs() > low.abs(), high, low)


_DECODERS: dict[str, Callable[[Tensor], Tensor]] = {
    "max-mem": lambda v_seq: v_seq.max(0).values,
    "max-abs-mem": _largest_magnitude,
    "mean-mem": lambda v_seq: v_seq.mean(0),
    "last-mem": lambda v_seq: v_seq[-1],
    "last_mem": lambda v_seq: v_seq[-1],
}


class NonSpikingIF(Neuron):
    """Integrator without spikes: ``v' = v + x``; returns the membrane.

    Source: SpikingJelly's ``NonSpikingIFNode``.

    Args:
        decode: ``None`` returns the membrane of every step; ``"max-mem"``, ``"mean-mem"``, ``"last-mem"`` (or
            ``"last_mem"``) reduce it over time to the largest, the mean or the last value; ``"max-abs-mem"``
            to the value of largest magnitude, the negative one if two are equally large.
        step_mode: ``"m"``, or ``"s"`` without ``decode``.
        backend, store_v_seq: as for :class:`Neuron`.

    Shapes:
        input ``[T, *step]``; output ``[T, *step]``, with ``decode`` ``[*step]``. State: ``v``, from 0,
        ``[*step]``; it continues from call to call until ``reset()``.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, -4.0, 2.0])
        >>> for decode in (None, "max-mem", "max-abs-mem", "last-mem"):
        ...     print(decode, NonSpikingIF(decode)(x).tolist())
        None [1.0, -3.0, -1.0]
        max-mem 1.0
        max-abs-mem -3.0
        last-mem -1.0
    """

    def __init__(
        self,
        decode: str | None = None,
        step_mode: str = "m",
        backend: str = "auto",
        store_v_seq: bool = False,
        **coefficients: Any,
    ) -> None:
        super().__init__(step_mode, backend, store_v_seq, **coefficients)
        if decode is not None and decode not in _DECODERS:
            choices = ", ".join(map(repr, _DECODERS))
            raise wrong(self, f"decode must be None or one of {choices}", decode=decode)
        self.decode = decode

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        """The membrane after the input."""
        return v + x

    def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        v = self.charge(x, v)
        return v, v

    def forward(self, *inputs: Tensor) -> Tensor:
        """The membrane of every step, or what ``decode`` makes of it."""
        if self.decode is not None and (self.step_mode != "m" or inputs[0].shape[0] == 0):
            raise ValueError(f"decode={self.decode!r} needs step_mode 'm' and at least one step")
        v_seq = super().forward(*inputs)
        assert isinstance(v_seq, Tensor)  # the core has one output
        return v_seq if self.decode is None else _DECODERS[self.decode](v_seq)

    def _options(self) -> dict[str, Any]:
        return {"decode": self.decode}


class NonSpikingLIF(NonSpikingIF):
    """Leaky integrator without spikes: ``v' = v + (x − v)/tau``; returns the membrane.

    Source: SpikingJelly's ``NonSpikingLIFNode``.

    Args:
        tau: membrane time constant, in steps; >= 1.
        decode, step_mode, backend, store_v_seq: as for :class:`NonSpikingIF`.
        learnable, shape: as for :class:`Neuron`;
            ``learnable`` may name ``tau``.

    Shapes:
        as for :class:`NonSpikingIF`.

    Example:
        >>> import torch
        >>> NonSpikingLIF(tau=2.0)(torch.tensor([1.0, 1.0, 0.0])).tolist()
        [0.5, 0.75, 0.375]
    """

    tau = Coefficient(above=1, closed=True)

    def __init__(
        self,
        tau: Number = 2.0,
        decode: str | None = None,
        step_mode: str = "m",
        backend: str = "auto",
        store_v_seq: bool = False,
        *,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
    ) -> None:
        super().__init__(decode, step_mode, backend, store_v_seq, learnable=learnable, shape=shape, tau=tau)

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        h: Tensor = v + (x - v) / self.tau
        return h
