"""Neurons that integrate without spiking, for the last layer: NonSpikingIF, NonSpikingLIF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from flexsn.neurons.arguments import MaskArguments, Number, SequenceOptions, wrong
from flexsn.neurons.base import Neuron
from flexsn.neurons.coefficient import Coefficient

__all__ = ["NonSpikingIF", "NonSpikingLIF"]


def _largest_magnitude(v_seq: Tensor, time_dim: int) -> Tensor:
    high, low = v_seq.max(time_dim).values, v_seq.min(time_dim).values
    return torch.where(high.abs() > low.abs(), high, low)


def _mean(v_seq: Tensor, time_dim: int, lengths: Tensor | None) -> Tensor:
    """As ``torch.mean`` adds it up, which is not from the first step to the last."""
    if lengths is None:
        return v_seq.mean(time_dim)
    steps = lengths.clamp(min=1).to(v_seq.device)
    return v_seq.sum(time_dim) / steps.view(-1, *(1,) * (v_seq.dim() - 2))


_REDUCTIONS = {"max-mem": "max", "max-abs-mem": None, "mean-mem": None, "last-mem": "last", "last_mem": "last"}


class NonSpikingIF(Neuron):
    """Integrator without spikes: ``v' = v + x``; returns the membrane.

    Source: SpikingJelly's ``NonSpikingIFNode``.

    Args:
        decode: ``None`` returns the membrane of every step; ``"max-mem"``, ``"mean-mem"``, ``"last-mem"`` (or
            ``"last_mem"``) reduce it over time to the largest, the mean or the last value; ``"max-abs-mem"``
            to the value of largest magnitude, the negative one if two are equally large. The largest and the last
            are a ``time_reduction``: the kernel writes one value per lane.
        step_mode: ``"m"``, or ``"s"`` without ``decode``.
        backend, store_v_seq, detach_every, time_reduction, rate: as for :class:`Neuron`.

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
        if decode is not None and self.time_reduction is not None:
            raise wrong(self, "decode is a time_reduction itself", decode=decode, time_reduction=self.time_reduction)
        self._decode: str | None = None
        if decode is not None:
            self.decode = decode

    @property
    def decode(self) -> str | None:
        """What the membrane of all steps is reduced to; ``None`` for nothing."""
        return self._decode

    @decode.setter
    def decode(self, decode: str | None) -> None:
        if decode is not None and decode not in _REDUCTIONS:
            choices = ", ".join(map(repr, _REDUCTIONS))
            raise wrong(self, f"decode must be None or one of {choices}", decode=decode)
        self._decode = decode
        self.time_reduction = None if decode is None else _REDUCTIONS[decode]

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        """The membrane after the input."""
        return v + x

    def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        v = self.charge(x, v)
        return v, v

    def forward(self, *inputs: Tensor, **masks: Unpack[MaskArguments]) -> Tensor:
        """The membrane of every step, or what ``decode`` makes of it."""
        if self.decode is not None and (self.step_mode != "m" or inputs[0].shape[self.time_dim] == 0):
            raise ValueError(f"decode={self.decode!r} needs step_mode 'm' and at least one step")
        v = super().forward(*inputs, **masks)
        assert isinstance(v, Tensor)  # the core has one output
        if self.decode == "mean-mem":
            return _mean(v, self.time_dim, masks.get("lengths"))
        return _largest_magnitude(v, self.time_dim) if self.decode == "max-abs-mem" else v

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
        **options: Unpack[SequenceOptions],
    ) -> None:
        super().__init__(decode, step_mode, backend, store_v_seq, learnable=learnable, shape=shape, tau=tau, **options)

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        h: Tensor = v + (x - v) / self.tau
        return h
