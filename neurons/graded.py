"""Neurons whose output is more than 0 or 1: LIAF, ILIF, TernaryIF, TernaryLIF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from flexsn.neurons.arguments import (
    FiringOptions,
    NeuronOptions,
    Number,
    SpikeFunction,
    check_callable,
    check_flag,
    check_size,
    with_arguments_of,
    wrong,
)
from flexsn.neurons.base import SpikingNeuron
from flexsn.neurons.coefficient import Coefficient
from flexsn.neurons.integrate import LIF, leaky_charge

__all__ = ["ILIF", "LIAF", "SpikeCount", "TernaryIF", "TernaryLIF"]


class LIAF(LIF):
    """Leaky integrate-and-analog-fire: LIF inside, an analog value outside.

    Charge, spike and reset are those of ``LIF``; the output is ``y = act(h − v_threshold)`` if
    ``threshold_related``, else ``y = act(h)``. Source: Wu et al., "LIAF-Net", IEEE TNNLS 2021; arguments of
    SpikingJelly's ``LIAFNode``.

    Args:
        act: pointwise function of a tensor, such as ``torch.relu`` or ``nn.SELU()``.
        threshold_related: whether ``act`` sees the membrane relative to the threshold.
        common, options: the arguments of :class:`~flexsn.neurons.integrate.LIF`.

    Shapes:
        input and output ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``). State: ``v``,
        ``[*step]``.

    Example:
        >>> import torch
        >>> LIAF(torch.relu, True, tau=2.0, step_mode="m")(torch.tensor([1.5, 1.5, 1.5, 2.5])).tolist()
        [0.0, 0.125, 0.0, 0.625]
    """

    @with_arguments_of(LIF)
    def __init__(self, act: Callable[[Tensor], Tensor], threshold_related: bool, *common: Any, **options: Any) -> None:
        super().__init__(**options)
        check_callable(self, "torch.relu", act=act)
        check_flag(self, threshold_related=threshold_related)
        self.act = act
        self.threshold_related = threshold_related

    def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        h = self.charge(x, v)
        y = self.act(h - self.v_threshold if self.threshold_related else h)
        return y, self.discharge(h, self.fire(h))

    def _options(self) -> dict[str, Any]:
        own = {} if isinstance(self.act, nn.Module) else {"act": self.act}
        return {**own, "threshold_related": self.threshold_related, **super()._options()}


class _SpikeCount(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, D: int, low: float, high: float) -> Tensor:
        return x.clamp(0.0, float(D)).round()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, *ctx.window = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (x,), (low, high) = ctx.saved_tensors, ctx.window
        return grad_outputs[0] * ((x >= low) & (x <= high)).to(x.dtype), None, None, None


class SpikeCount(nn.Module):
    """Several spikes in one step: ``round(clip(x, 0, D))``, halves to even; gradient 1 inside the window.

    Source: as for :class:`ILIF`.

    Args:
        D: the most spikes in one step; an integer >= 1.
        window: where the gradient passes, bounds included; ``(0, D)`` by default.

    Example:
        >>> import torch
        >>> x = torch.tensor([-1.0, 0.75, 2.5, 9.0], requires_grad=True)
        >>> c = SpikeCount(4)(x)
        >>> c.sum().backward()
        >>> c.tolist(), x.grad.tolist()
        ([0.0, 1.0, 2.0, 4.0], [0.0, 1.0, 1.0, 0.0])
    """

    def __init__(self, D: int = 4, window: tuple[float, float] | None = None) -> None:
        super().__init__()
        check_size(self, D=D)
        if window is not None and not (isinstance(window, Sequence) and len(window) == 2 and window[0] <= window[1]):
            raise wrong(self, "window must be (low, high) with low <= high", window=window)
        self.D = D
        self.window = (0.0, float(D)) if window is None else (float(window[0]), float(window[1]))

    def forward(self, x: Tensor) -> Tensor:
        count: Tensor = _SpikeCount.apply(x, self.D, *self.window)  # type: ignore[no-untyped-call]
        return count

    def extra_repr(self) -> str:
        return f"D={self.D}" + ("" if self.window == (0.0, self.D) else f", window={self.window}")


class ILIF(SpikingNeuron):
    """Integer LIF: up to ``D`` spikes in one step; training sees graded values, inference can unroll them.

    ``h = (1 − 1/tau)·v + x``; ``c = round(clip(h/v_threshold, 0, D))``; ``v' = h − c·v_threshold``; the
    output is ``c``, with gradient 1 inside ``[0, D]``. Source: Luo et al., "Integer-Valued Training and
    Spike-Driven Inference Spiking Neural Network for High-performance and Energy-efficient Object Detection",
    ECCV 2024.

    Args:
        tau: membrane time constant, in steps; > 1.
        D: the most spikes in one step.
        v_threshold: membrane per spike; > 0.
        surrogate_function: counts the spikes in ``h/v_threshold``; by default ``SpikeCount(D)``.
        detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may name ``tau``, ``v_threshold``.

    Shapes:
        input and counts ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``). State: ``v``,
        ``[*step]``.

    Example:
        >>> import torch
        >>> ILIF(D=4, step_mode="m")(torch.tensor([0.25, 2.75, 9.0, 0.0])).tolist()
        [0.0, 3.0, 4.0, 1.0]
    """

    tau = Coefficient(above=1)
    v_threshold = Coefficient(above=0)

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        tau: Number = 4.0 / 3.0,
        D: int = 4,
        v_threshold: Number = 1.0,
        surrogate_function: SpikeFunction | None = None,
        detach_reset: bool = False,
        *common: Any,
        **options: Unpack[NeuronOptions],
    ) -> None:
        spike = SpikeCount(D) if surrogate_function is None else surrogate_function
        super().__init__(v_threshold, None, spike, detach_reset, tau=tau, **options)

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        h: Tensor = (1.0 - 1.0 / self.tau) * v + x
        return h

    def fire(self, h: Tensor) -> Tensor:
        return self.surrogate_function(h / self.v_threshold)


class TernaryIF(SpikingNeuron):
    """Integrate-and-fire with spikes of both signs.

    ``h = v + x``; ``s = Θ(h − v_threshold) − Θ(−h − v_threshold)``.
    Soft reset (the default) ``v' = h − s·v_threshold``; hard reset to ``v_reset`` after a spike of either
    sign. Source: Guo et al., "Ternary Spike: Learning Ternary Spikes for Spiking Neural Networks", AAAI 2024.

    Args:
        v_threshold: magnitude of the membrane at which it fires; > 0.
        v_reset: between ``−v_threshold`` and ``v_threshold``, or ``None`` for the soft reset.
        surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may name ``v_threshold``.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``). State: ``v``,
        ``[*step]``.

    Example:
        >>> import torch
        >>> TernaryIF(step_mode="m")(torch.tensor([1.25, -2.5, 0.75, 1.0])).tolist()
        [1.0, -1.0, 0.0, 0.0]
    """

    v_threshold = Coefficient(above=0)

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        v_threshold: Number = 1.0,
        v_reset: Number | None = None,
        *common: Any,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
        **coefficients: Any,
    ) -> None:
        super().__init__(v_threshold, v_reset, learnable=learnable, shape=shape, **coefficients)
        reset, threshold = self.v_reset, self.v_threshold
        if isinstance(reset, float) and isinstance(threshold, float) and reset <= -threshold:
            rule = "v_reset must lie between -v_threshold and v_threshold"
            raise wrong(self, rule, v_threshold=threshold, v_reset=reset)

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        return v + x

    def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        h = self.charge(x, v)
        up = self.surrogate_function(h - self.v_threshold)
        down = self.surrogate_function(-h - self.v_threshold)
        s = up - down
        return s, self.discharge(h, s if self.v_reset is None else up + down)


class TernaryLIF(TernaryIF):
    """As :class:`TernaryIF` with the charge of ``LIF``.

    ``h = v + (x − (v − v_reset))/tau`` if ``decay_input``, else ``h = v − (v − v_reset)/tau + x``;
    ``s = Θ(h − v_threshold) − Θ(−h − v_threshold)``; soft reset (the default) ``v' = h − s·v_threshold``.
    Source: as for :class:`TernaryIF`.

    Args:
        tau: membrane time constant, in steps; > 1.
        decay_input: whether the input is divided by ``tau`` too.
        v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq: as for
            :class:`TernaryIF`.
        learnable, shape: likewise; ``learnable`` may also name ``tau``.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``). State: ``v``,
        ``[*step]``.

    Example:
        >>> import torch
        >>> TernaryLIF(tau=2.0, step_mode="m")(torch.tensor([2.5, -5.0, 0.25, 1.0])).tolist()
        [1.0, -1.0, 0.0, 0.0]
    """

    tau = Coefficient(above=1)

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        tau: Number = 2.0,
        decay_input: bool = True,
        v_threshold: Number = 1.0,
        v_reset: Number | None = None,
        *common: Any,
        **options: Unpack[FiringOptions],
    ) -> None:
        super().__init__(v_threshold, v_reset, tau=tau, **options)
        check_flag(self, decay_input=decay_input)
        self.decay_input = decay_input

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        return leaky_charge(x, v, self.tau, self.decay_input, self.v_reset)

    def _options(self) -> dict[str, Any]:
        return {"decay_input": self.decay_input, **super()._options()}
