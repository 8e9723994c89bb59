"""Discontinuous: a spike function as a layer."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from typing_extensions import Unpack

from flexsn import FlexSN, surrogate
from flexsn.neurons.arguments import SequenceOptions, SpikeFunction, check_callable, check_number

__all__ = ["Discontinuous"]


class Discontinuous(FlexSN):
    """The spike function alone, without a state: ``s = Θ(x − threshold)``.

    Args:
        spike_function: by default ``SpikeLinear(strict=True)``.
        threshold: what the input must exceed.
        step_mode, backend: as for :class:`~flexsn.FlexSN`.

    Shapes:
        any, output as the input.

    Raises:
        ValueError: a spike function that cannot be called.

    Example:
        >>> import torch
        >>> Discontinuous()(torch.tensor([[0.5, 1.0, 1.5]])).tolist()
        [[0.0, 0.0, 1.0]]
    """

    integers_as_floats: ClassVar[bool] = True

    def __init__(
        self,
        spike_function: SpikeFunction | None = None,
        threshold: float = 1,
        *,
        step_mode: str = "m",
        backend: str = "auto",
        **options: Unpack[SequenceOptions],
    ) -> None:
        super().__init__(step_mode=step_mode, backend=backend, **options)
        spike = surrogate.SpikeLinear(strict=True) if spike_function is None else spike_function
        check_callable(self, "SpikeLinear()", spike_function=spike)
        self.spike_function: SpikeFunction = spike
        check_number(self, threshold=threshold)
        self.threshold = threshold

    def core(self, x: Tensor) -> Tensor:
        """One step."""
        return self.spike_function(x - self.threshold)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, step_mode={self.step_mode!r}, backend={self.backend!r}"
