"""What the parallel family shares: modes, the inputs a single step still needs, and how a product fires."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from flexsn import surrogate
from flexsn.neurons.arguments import SpikeFunction, check_callable, wrong
from flexsn.neurons.integrate import IF

__all__ = ["ParallelNeuron", "like"]


class ParallelNeuron(nn.Module):
    """Base of :class:`PSN` and its kin.

    Args:
        surrogate_function: the spike function; ``ATan()`` by default.
        step_mode: ``"m"``: inputs are sequences ``[T, ...]``; ``"s"``: inputs are single steps.
        backend: a name of ``supported_backends``. The names of :class:`flexsn.FlexSN` are welcome too and all
            mean the default, so that setting the backend of a whole network reaches these neurons unharmed.

    Attributes:
        queue: the last inputs, oldest first, kept between single steps.
    """

    supported_backends: ClassVar[tuple[str, ...]] = ("torch",)
    supported_step_modes: ClassVar[tuple[str, ...]] = ("s", "m")

    def __init__(self, surrogate_function: SpikeFunction | None, step_mode: str, backend: str = "torch") -> None:
        super().__init__()
        spike = surrogate.ATan() if surrogate_function is None else surrogate_function
        check_callable(self, "flexsn.surrogate.ATan()", surrogate_function=spike)
        self.surrogate_function: SpikeFunction = spike
        self.step_mode = step_mode
        self.backend = backend
        self.queue: tuple[Tensor, ...] = ()

    @property
    def step_mode(self) -> str:
        """``"m"`` (inputs are sequences) or, where the neuron can, ``"s"`` (inputs are single steps)."""
        return self._step_mode

    @step_mode.setter
    def step_mode(self, step_mode: str) -> None:
        if step_mode not in self.supported_step_modes:
            modes = " or ".join(map(repr, self.supported_step_modes))
            raise wrong(self, f"step_mode must be {modes}", step_mode=step_mode)
        self._step_mode = step_mode

    @property
    def backend(self) -> str:
        """How the product is computed."""
        return self._backend

    @backend.setter
    def backend(self, backend: str) -> None:
        if backend not in self.supported_backends:
            try:
                IF(backend=backend)  # what a neuron that scans accepts
            except ValueError:
                names = " or ".join(map(repr, self.supported_backends))
                raise wrong(self, f"backend must be {names}", backend=backend) from None
            backend = self.supported_backends[0]
        self._backend = backend

    def supported_step_mode(self) -> tuple[str, ...]:
        """The step modes there are."""
        return self.supported_step_modes

    def forward(self, x: Tensor) -> Tensor:
        """:meth:`multi_step_forward` or :meth:`single_step_forward`, as ``step_mode`` says."""
        return self.multi_step_forward(x) if self.step_mode == "m" else self.single_step_forward(x)

    def single_step_forward(self, x: Tensor) -> Tensor:
        """Spikes of the next step. A subclass may override it."""
        raise wrong(self, "it has no single steps", step_mode="s")

    def multi_step_forward(self, x: Tensor) -> Tensor:
        """Spikes of the whole sequence. A subclass may override it."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget the inputs of earlier single steps."""
        self.queue = ()

    def detach(self) -> None:
        """Cut the graph behind the inputs of earlier single steps."""
        self.queue = tuple(x.detach() for x in self.queue)

    def enqueue(self, x: Tensor, length: int) -> Tensor:
        """The last ``length`` inputs, ``x`` included, as ``[steps, lanes]``."""
        if self.queue and self.queue[-1].shape != x.shape:
            raise ValueError(
                f"the step shape changed from {tuple(self.queue[-1].shape)} to {tuple(x.shape)} while "
                f"{type(self).__name__} still holds inputs; call reset() before a batch of another shape"
            )
        self.queue = (*self.queue, x)[-length:]
        return torch.stack([step.flatten() for step in self.queue])

    def fire(self, bias: Tensor, weight: Tensor, x_seq: Tensor) -> Tensor:
        """``surrogate_function(bias + weight @ x_seq)`` over the leading axis."""
        x = x_seq.flatten(1) if x_seq.dim() > 1 else x_seq.unsqueeze(1)
        return self.surrogate_function(torch.addmm(bias, weight, x.to(weight.dtype)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "queue": tuple(x.detach() for x in self.queue)}

    def extra_repr(self) -> str:
        return f"step_mode={self.step_mode!r}"


def like(s: Tensor, x: Tensor) -> Tensor:
    """``s`` in the shape of ``x``, and in its dtype if that can hold a gradient."""
    s = s.view(x.shape)
    return s.to(x.dtype) if x.is_floating_point() else s
