"""SpikingJelly's GatedLIFNode."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from flexsn import surrogate
from flexsn.neurons.arguments import (
    MaskArguments,
    SequenceOptions,
    SpikeFunction,
    check_callable,
    check_number,
    check_size,
    wrong,
)
from flexsn.neurons.spikingjelly.memory import MemoryModule

__all__ = ["GatedLIFNode"]


class GatedLIFNode(MemoryModule):
    r"""A LIF whose decays, resets and conductances are learned, each between two kinds by a gate of its own.

    .. math:: d = 1 - \alpha (1 - \tau), \quad u = d\, v - (1 - \alpha)\, l + x (1 - \beta (1 - g_t))
        - \gamma\, d\, v\, s - (1 - \gamma)\, r\, s, \quad s' = \Theta(u - v_{th}), \quad v' = u

    where every coefficient is the sigmoid of a parameter. The spike s starts at 0 in every call, the membrane goes on.
    Source: Yao et al., "GLIF: A unified gated leaky integrate-and-fire neuron for spiking neural networks", NeurIPS
    2022.

    Args:
        T: number of steps, each of which has a conductance.
        inplane: number of channels, dimension 1 of a step, with coefficients of their own; ``None``: one for all.
        init_linear_decay: start of ``l``; by default ``init_v_threshold / (2 T)``.
        init_v_subreset: start of ``r``; by default ``init_v_threshold``.
        init_tau, init_v_threshold, init_conduct: starts of the others. α, β, γ start near ½, at random.
        surrogate_function: the spike function; ``Sigmoid()`` by default.
        step_mode: ``"m"``; single steps it has not.
        backend: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"torch"``.

    Shapes:
        input and spikes ``[T, B, C, ...]``.

    States:
        ``v``, of which ``u`` is another name, and ``s``.

    Raises:
        ValueError: a start that is not in (0, 1), ``step_mode="s"``, fewer than ``T`` steps.

    Example:
        >>> node = GatedLIFNode(T=4)
        >>> node(torch.ones(4, 2, 3, 8, 8)).shape
        torch.Size([4, 2, 3, 8, 8])
    """

    integers_as_floats: ClassVar[bool] = True

    def __init__(
        self,
        T: int,
        inplane: int | None = None,
        init_linear_decay: float | None = None,
        init_v_subreset: float | None = None,
        init_tau: float = 0.25,
        init_v_threshold: float = 0.5,
        init_conduct: float = 0.5,
        surrogate_function: SpikeFunction | None = None,
        step_mode: str = "m",
        *,
        backend: str = "auto",
        **options: Unpack[SequenceOptions],
    ) -> None:
        super().__init__(num_inputs=2, step_mode=step_mode, backend=backend, **options)
        check_size(self, T=T, **({} if inplane is None else {"inplane": inplane}))
        if step_mode != "m":
            raise wrong(self, 'step_mode must be "m": every step has a conductance of its own', step_mode=step_mode)
        spike = surrogate.Sigmoid() if surrogate_function is None else surrogate_function
        check_callable(self, "flexsn.surrogate.Sigmoid()", surrogate_function=spike)
        self.surrogate_function: SpikeFunction = spike
        self.T, self.inplane = T, inplane
        check_number(self, above=0, init_v_threshold=init_v_threshold)  # others follow of it
        shape = () if inplane is None else (inplane,)
        self.alpha, self.beta, self.gamma = (nn.Parameter(0.2 * (torch.rand(shape) - 0.5)) for _ in range(3))
        starts: dict[str, Any] = {
            "tau": init_tau,
            "v_threshold": init_v_threshold,
            "linear_decay": init_v_threshold / (2 * T) if init_linear_decay is None else init_linear_decay,
            "v_subreset": init_v_threshold if init_v_subreset is None else init_v_subreset,
            "conduct": init_conduct,
        }
        for name, start in starts.items():
            check_number(self, above=0, **{f"init_{name}": start})
            if start >= 1:
                raise wrong(self, "it must be < 1, as the sigmoid of a parameter is", **{f"init_{name}": start})
            full = torch.full((T, *shape) if name == "conduct" else shape, -math.log(1 / start - 1))
            self.register_parameter(name, nn.Parameter(full))

    def core(self, x: Tensor, conduct: Tensor, v: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        """One step; the conductance is an input, since every step has another."""
        alpha, beta, gamma = self._gate(self.alpha), self._gate(self.beta), self._gate(self.gamma)
        kept = (1 - alpha * (1 - self._gate(self.tau))) * v
        u = kept - (1 - alpha) * self._gate(self.linear_decay) + x * (1 - beta * (1 - conduct))
        u = u - kept * gamma * s - (1 - gamma) * self._gate(self.v_subreset) * s
        s = self.surrogate_function(u - self._gate(self.v_threshold))
        return s, u, s

    def _gate(self, parameter: Tensor) -> Tensor:
        return parameter.sigmoid() if self.inplane is None else parameter.view(-1, 1, 1).sigmoid()

    def forward(self, x_seq: Tensor, **masks: Unpack[MaskArguments]) -> Tensor:  # type: ignore[override]
        """The spikes of ``T`` steps."""
        channels = () if self.inplane is None else (self.inplane, *(1,) * (x_seq.dim() - 3))
        conduct = self.conduct.view(self.T, 1, *channels).sigmoid()
        if self.states is not None:
            v, s = self.states
            self.states = (v, torch.zeros_like(s))
        spikes: Tensor = super().forward(x_seq[: self.T], conduct, **masks)  # type: ignore[assignment]
        return spikes

    _advance = forward

    @property
    def u(self) -> Any:
        """The membrane."""
        return self.v

    def supported_step_mode(self) -> tuple[str, ...]:
        """``("m",)``."""
        return ("m",)

    def extra_repr(self) -> str:
        return f"T={self.T}, inplane={self.inplane}, {super().extra_repr()}"
