"""Neurons whose input passes a synapse first: CubaLIF, AlphaLIF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from flexsn.neurons.base import SpikeFunction, SpikingNeuron
from flexsn.neurons.coefficient import Coefficient, Number, log

__all__ = ["AlphaLIF", "CubaLIF"]


class CubaLIF(SpikingNeuron):
    """LIF driven by a decaying synaptic current; fires at ``h ≥ v_threshold``.

    ``i' = alpha·i + x``; ``h = beta·v + i'``.
    Source: the current-based LIF of Loihi and of SpikingJelly's ``CUBALIFNode`` (its ``c_decay`` and
        ``v_decay``).

    Args:
        alpha: what remains of the current after a step; 0 to 1.
        beta: what remains of the membrane after a step; 0 to 1.
        v_threshold, v_reset, surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may also name ``alpha``, ``beta``.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``).
        States: ``v``, ``i``, ``[*step]``.

    Example:
        >>> import torch
        >>> CubaLIF(step_mode="m", learnable=("alpha", "beta"))(torch.tensor([0.75, 0.0, 0.0, 1.0])).tolist()
        [0.0, 0.0, 0.0, 1.0]
    """

    alpha = Coefficient(above=0, below=1, closed=True)
    beta = Coefficient(above=0, below=1, closed=True)
    starts: ClassVar[Mapping[str, float | str]] = {"v": "v_reset", "i": 0.0}

    def __init__(
        self,
        alpha: Number = 0.5,
        beta: Number = 0.75,
        v_threshold: Number = 1.0,
        v_reset: Number | None = 0.0,
        surrogate_function: SpikeFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
        *,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
    ) -> None:
        super().__init__(
            v_threshold,
            v_reset,
            surrogate_function,
            detach_reset,
            step_mode,
            backend,
            store_v_seq,
            learnable=learnable,
            shape=shape,
            alpha=alpha,
            beta=beta,
        )

    def core(self, x: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        i = i * self.alpha + x
        h = v * self.beta + i
        s = self.fire(h)
        return s, self.discharge(h, s), i


class AlphaLIF(SpikingNeuron):
    """Alpha-function membrane, the difference of two exponentials; fires at ``v' ≥ v_threshold``.

    ``e' = alpha·e + x``; ``n' = beta·n − x``; ``v' = τ_α (e' + n')`` with ``τ_α = ln alpha/(ln beta − ln
    alpha) + 1``. The membrane is a sum of post-synaptic potentials and is not reset: it fires as long as they
    exceed the threshold. Source: the synapse of snnTorch's ``Alpha`` (Rossum's alpha-function kernel).

    Args:
        alpha: what remains of the slow, excitatory trace after a step; between ``beta`` and 1.
        beta: what remains of the fast, inhibitory trace after a step; between 0 and ``alpha``.
        v_threshold: membrane at which it fires.
        surrogate_function: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may name ``alpha``, ``beta``,
            ``v_threshold``; that ``alpha`` stays above ``beta`` is then up to the training.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``).
        States: ``v`` (not read by the step), ``e``, ``n``, ``[*step]``.

    Example:
        >>> import torch
        >>> alpha_lif = AlphaLIF(step_mode="m", store_v_seq=True)
        >>> alpha_lif(torch.tensor([4.0, 0.0, 0.0, 0.0])).tolist()
        [0.0, 0.0, 1.0, 1.0]
    """

    alpha = Coefficient(above=0, below=1)
    beta = Coefficient(above=0, below=1)
    starts: ClassVar[Mapping[str, float | str]] = {"v": 0.0, "e": 0.0, "n": 0.0}

    def __init__(
        self,
        alpha: Number = 0.9,
        beta: Number = 0.8,
        v_threshold: Number = 1.0,
        surrogate_function: SpikeFunction | None = None,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
        *,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
    ) -> None:
        super().__init__(
            v_threshold,
            None,
            surrogate_function,
            False,
            step_mode,
            backend,
            store_v_seq,
            learnable=learnable,
            shape=shape,
            alpha=alpha,
            beta=beta,
        )
        self._check_order("alpha", ">", "beta")

    def core(self, x: Tensor, v: Tensor, e: Tensor, n: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        e = self.alpha * e + x
        n = self.beta * n - x
        log_alpha = log(self.alpha)
        h: Tensor = (log_alpha / (log(self.beta) - log_alpha) + 1.0) * (e + n)
        return self.fire(h), h, e, n

    def _options(self) -> dict[str, Any]:
        options = super()._options()
        del options["detach_reset"]
        return options
