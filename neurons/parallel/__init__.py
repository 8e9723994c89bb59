r"""The parallel family: neurons without reset, whose membrane is one matrix product over the time axis.

Source: Fang et al., "Parallel Spiking Neurons with High Efficiency and Ability to Learn Long-term
Dependencies", NeurIPS 2023; arguments, defaults and state dict follow SpikingJelly.

There is no recurrence, hence no scan: torch's own matrix product runs them, with the bias fused into it.
Weights decide the precision: inputs are computed in their dtype, spikes come back in the dtype of the input.
"""

from __future__ import annotations

import math
import numbers
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from flexsn.neurons.arguments import SpikeFunction, check_flag, check_size, wrong
from flexsn.neurons.parallel.base import ParallelNeuron, like

__all__ = ["PSN", "MaskedPSN", "SlidingPSN"]


def _check_steps(owner: object, T: int, x_seq: Tensor) -> None:
    if x_seq.dim() == 0 or x_seq.shape[0] != T:
        raise ValueError(f"{type(owner).__name__}(T={T}) takes x_seq of shape [{T}, ...], got {tuple(x_seq.shape)}")


class PSN(ParallelNeuron):
    r"""Parallel spiking neuron: every step sees all steps, the later ones included.

    .. math:: H = W X + B, \qquad S = \Theta(H)

    with learnable ``weight`` :math:`W \in R^{T \times T}` (Kaiming uniform, a = √5) and ``bias``
    :math:`B \in R^{T \times 1}` (−1, i.e. minus the threshold).

    Args:
        T: the number of steps, fixed.
        surrogate_function: the spike function; ``ATan()`` by default.

    Shapes:
        input ``[T, ...]``, output alike. Multi-step only; no state.

    Raises:
        ValueError: ``T < 1``, single-step mode, an input of another number of steps.

    Example:
        >>> psn = PSN(T=2)
        >>> _ = psn.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.5, 1.0]]))
        >>> psn(torch.tensor([[0.9], [0.6]])).tolist()
        [[0.0], [1.0]]
    """

    supported_step_modes: ClassVar[tuple[str, ...]] = ("m",)

    def __init__(self, T: int, surrogate_function: SpikeFunction | None = None) -> None:
        super().__init__(surrogate_function, step_mode="m")
        check_size(self, T=T)
        self.T = T
        self.weight = nn.Parameter(torch.empty(T, T))
        self.bias = nn.Parameter(torch.full((T, 1), -1.0))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def multi_step_forward(self, x: Tensor) -> Tensor:
        """Spikes of all ``T`` steps."""
        _check_steps(self, self.T, x)
        return like(self.fire(self.bias, self.weight, x), x)

    def extra_repr(self) -> str:
        return f"T={self.T}, {super().extra_repr()}"


class MaskedPSN(ParallelNeuron):
    r"""Masked parallel spiking neuron: a :class:`PSN` that gradually learns to see only the last ``k`` steps.

    .. math:: H = (M \circ W) X + B, \qquad M = \lambda M_k + (1 - \lambda) J, \qquad S = \Theta(H)

    with :math:`M_k[i][j] = 1` where :math:`j \le i \le j + k - 1`, else 0, and :math:`J` all ones.
    Raise ``lambda_`` from 0 to 1 during training; at 1 the neuron is causal and can run step by step.

    Args:
        k: how many steps it sees at ``lambda_ = 1``, the present one included.
        T: the number of steps, fixed.
        lambda_init: the first ``lambda_``.
        surrogate_function: the spike function; ``ATan()`` by default.
        step_mode: ``"s"`` (``lambda_ = 1`` only, at most ``T`` steps between resets) or ``"m"``, much faster.

    Shapes:
        input ``[T, ...]`` (``"m"``) or ``[...]`` (``"s"``), output alike. ``weight`` ``[T, T]``, ``bias``
        ``[T, 1]``, initialised as in :class:`PSN`. Multi-step calls neither read nor write the queue.

    Raises:
        ValueError: ``k`` or ``T`` below 1, ``lambda_`` outside [0, 1], an input of another number of steps,
            a single step at ``lambda_ < 1``.
        OverflowError: more than ``T`` single steps without ``reset()``.

    Example:
        >>> neuron = MaskedPSN(k=1, T=2, lambda_init=1.0, step_mode="m")
        >>> _ = nn.init.ones_(neuron.weight)
        >>> neuron(torch.tensor([[0.9], [1.1]])).tolist()
        [[0.0], [1.0]]
        >>> neuron.lambda_ = 0.0
        >>> neuron(torch.tensor([[0.9], [1.1]])).tolist()
        [[1.0], [1.0]]
    """

    _lambda_: Tensor
    mask0: Tensor
    mask1: Tensor

    def __init__(
        self,
        k: int,
        T: int,
        lambda_init: float = 0.0,
        surrogate_function: SpikeFunction | None = None,
        step_mode: str = "s",
    ) -> None:
        super().__init__(surrogate_function, step_mode)
        check_size(self, k=k, T=T)
        self.k, self.T = k, T
        self.time_step = 0
        self.weight = nn.Parameter(torch.empty(T, T))
        self.bias = nn.Parameter(torch.full((T, 1), -1.0))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        ones = torch.ones(T, T)
        self.register_buffer("_lambda_", torch.zeros(()))
        self.register_buffer("mask0", ones.tril() * ones.triu(1 - k))
        self.register_buffer("mask1", ones)
        self.lambda_ = lambda_init

    @property
    def lambda_(self) -> Tensor:
        """How far the mask has closed, from 0 (sees everything) to 1 (sees ``k`` steps). Settable."""
        return self._lambda_

    @lambda_.setter
    def lambda_(self, value: float | Tensor) -> None:
        known = isinstance(value, (numbers.Real, Tensor)) and not isinstance(value, bool)
        if not known or not 0.0 <= float(value) <= 1.0:
            shown = float(value) if known else value
            raise wrong(self, "lambda_ must be in [0, 1]", lambda_=shown)
        self._lambda_.fill_(value)

    @staticmethod
    def gen_masked_weight(lambda_: Tensor, mask0: Tensor, mask1: Tensor, weight: Tensor) -> Tensor:
        """``(λ·M_k + (1 − λ)·J) ∘ W``, with ``M_k`` as ``mask0`` and ``J`` as ``mask1``."""
        return (lambda_ * mask0 + (1.0 - lambda_) * mask1) * weight

    def masked_weight(self) -> Tensor:
        """The weight that counts: :meth:`gen_masked_weight` of the neuron's own."""
        return self.gen_masked_weight(self._lambda_, self.mask0, self.mask1, self.weight)

    def multi_step_forward(self, x: Tensor) -> Tensor:
        """Spikes of all ``T`` steps."""
        _check_steps(self, self.T, x)
        return like(self.fire(self.bias, self.masked_weight(), x), x)

    def single_step_forward(self, x: Tensor) -> Tensor:
        """Spikes of the next step."""
        t = self.time_step
        # read once per sequence: on a GPU it waits for the device
        if t == 0 and self._lambda_ < 1.0:
            raise ValueError(
                f"MaskedPSN(lambda_={self._lambda_.item():g}) sees future steps; single-step mode needs lambda_ = 1"
            )
        if t >= self.T:
            raise OverflowError(f"MaskedPSN(T={self.T}) has already run {t} steps; call reset() before the next")
        inputs = self.enqueue(x, self.k)
        self.time_step = t + 1
        weight = self.weight[t : t + 1, t + 1 - len(inputs) : t + 1]
        return like(self.fire(self.bias[t], weight, inputs), x)

    def reset(self) -> None:
        """Back to step 0."""
        super().reset()
        self.time_step = 0

    def extra_repr(self) -> str:
        return f"k={self.k}, T={self.T}, lambda_={self._lambda_.item():g}, {super().extra_repr()}"


class SlidingPSN(ParallelNeuron):
    r"""Sliding parallel spiking neuron: one learnable window of ``k`` steps, for any number of steps.

    .. math:: H[t] = \sum_{i=0}^{k-1} W_i\, X[t - k + 1 + i] + b, \qquad S[t] = \Theta(H[t])

    with steps before the first counting as 0, learnable ``weight`` ``[k]`` and scalar ``bias`` (−1).

    Args:
        k: length of the window, the present step included.
        exp_init: weights start at ``(..., 1/4, 1/2, 1)``; ``False``: Kaiming uniform, a = √5.
        surrogate_function: the spike function; ``ATan()`` by default.
        step_mode: ``"s"`` or ``"m"``, much faster.
        backend: ``"gemm"``, a banded ``T×T`` matrix, T² products a lane; or ``"conv"``, a convolution over
            time, k·T products a lane. They agree to rounding.

    Shapes:
        input ``[T, ...]`` (``"m"``) or ``[...]`` (``"s"``), output alike. Multi-step calls start from zeros
        and neither read nor write the queue.

    Raises:
        ValueError: ``k < 1``, an unknown backend or step mode.

    Example:
        >>> neuron = SlidingPSN(k=2, step_mode="m")
        >>> neuron(torch.tensor([[0.9], [0.6], [0.6]])).tolist()
        [[0.0], [1.0], [0.0]]
    """

    supported_backends: ClassVar[tuple[str, ...]] = ("gemm", "conv")

    def __init__(
        self,
        k: int,
        exp_init: bool = True,
        surrogate_function: SpikeFunction | None = None,
        step_mode: str = "s",
        backend: str = "gemm",
    ) -> None:
        super().__init__(surrogate_function, step_mode, backend)
        check_size(self, k=k)
        check_flag(self, exp_init=exp_init)
        self.k = k
        weight = 0.5 ** torch.arange(k - 1, -1, -1.0)
        if not exp_init:
            nn.init.kaiming_uniform_(weight.unsqueeze(0), a=math.sqrt(5))
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.tensor(-1.0))

    def gemm_weight(self, T: int) -> Tensor:
        """The banded ``[T, T]`` matrix of the window: entry ``(t, j)`` is ``W_{k−1−(t−j)}``, 0 outside."""
        window = self.weight[-T:]
        return nnf.pad(window, (T - len(window), T - 1)).unfold(0, T, 1).flip(0)

    def gen_gemm_weight(self, T: int) -> Tensor:
        """:meth:`gemm_weight` by the name SpikingJelly has for it."""
        return self.gemm_weight(T)

    def single_step_forward(self, x: Tensor) -> Tensor:
        """Spikes of the next step."""
        inputs = self.enqueue(x, self.k)
        return like(self.fire(self.bias, self.weight[-len(inputs) :].unsqueeze(0), inputs), x)

    def multi_step_forward(self, x: Tensor) -> Tensor:
        """Spikes of the whole sequence."""
        if x.dim() == 0:
            raise ValueError("SlidingPSN takes x_seq of shape [T, ...], got a tensor without dimensions")
        if x.numel() == 0:
            return x
        if self.backend == "gemm":
            return like(self.fire(self.bias, self.gen_gemm_weight(x.shape[0]), x), x)
        lanes = x.reshape(1, 1, x.shape[0], -1).to(self.weight.dtype)
        lanes = nnf.pad(lanes, (0, 0, self.k - 1, 0))
        h = nnf.conv2d(lanes, self.weight.view(1, 1, -1, 1), self.bias.view(1))
        return like(self.surrogate_function(h), x)

    def extra_repr(self) -> str:
        return f"k={self.k}, {super().extra_repr()}, backend={self.backend!r}"
