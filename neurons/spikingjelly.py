"""SpikingJelly's neurons by their own names: change one import and an existing model moves over.

    from spikingjelly.activation_based import neuron      # before
    from flexsn.neurons import spikingjelly as neuron     # after

Class names, argument order, defaults, comparison (``≥``), state names, ``v_seq`` and spike trains are those
of SpikingJelly 2.0; the classes are thin layers over the canonical ones, so every one is compiled. Surrogates
may be those of either library: ``flexsn.surrogate`` has them with the same arguments, except that its
``SquarewaveFourierSeries`` sums ``n`` terms; the one here sums ``n − 1``, as SpikingJelly's.
Also accepted, from earlier versions: ``backend="cupy"`` and ``"inductor"`` (here ``"auto"``, the fastest there
is), and overriding ``neuronal_charge``, ``neuronal_fire`` or ``neuronal_reset`` in a subclass.

Different on purpose: a change of batch shape without ``reset()`` is an error, not a silent restart;
``NonSpiking*Node`` return one tensor instead of a list and know ``"last-mem"`` as well as ``"last_mem"``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from flexsn import surrogate

from . import base_node
from .adaptive import Izhikevich
from .adaptive_threshold import CLIF
from .base import SpikeFunction, SpikingNeuron, check_flag
from .coefficient import Coefficient, Number
from .graded import ILIF, LIAF, TernaryIF, TernaryLIF
from .integrate import IF, LIF, PLIF
from .nonlinear import EIF, KLIF, QIF
from .parallel import PSN, MaskedPSN, SlidingPSN
from .readout import NonSpikingIF, NonSpikingLIF
from .resonate import ResonateFire
from .spikingjelly_surrogate import MultiLevelSpikeCount, SquarewaveFourierSeries
from .synaptic import CubaLIF

__all__ = [
    "PSN",
    "AdaptBaseNode",
    "BaseNode",
    "CUBALIFNode",
    "ComplementaryLIFNode",
    "EIFNode",
    "IFNode",
    "ILIFNode",
    "IzhikevichNode",
    "KLIFNode",
    "LIAFNode",
    "LIFNode",
    "MaskedPSN",
    "MultiLevelSpikeCount",
    "NonSpikingIFNode",
    "NonSpikingLIFNode",
    "ParametricLIFNode",
    "QIFNode",
    "RAFNode",
    "SimpleBaseNode",
    "SimpleIFNode",
    "SimpleLIFNode",
    "SlidingPSN",
    "SquarewaveFourierSeries",
    "TernaryIFNode",
    "TernaryLIFNode",
]

_BACKENDS = {"cupy": "auto", "inductor": "auto"}


class BaseNode(base_node.BaseNode):
    """:class:`flexsn.neurons.BaseNode` with SpikingJelly's backends and its ``v_seq`` of single steps."""

    @property
    def backend(self) -> str:
        """What runs the scan; ``"cupy"`` and ``"inductor"`` mean ``"auto"``."""
        return super().backend

    @backend.setter
    def backend(self, backend: str) -> None:
        SpikingNeuron.backend.fset(self, _BACKENDS.get(backend, backend))  # type: ignore[attr-defined]

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run ``T`` steps, or one, by which ``v_seq`` then grows until ``reset()``."""
        before = self.state_seqs
        outputs = super().forward(*inputs)
        if self.store_v_seq and self.step_mode == "s" and self.states is not None:
            now = tuple(state.unsqueeze(0) for state in self.states)
            if before is not None and before[0].shape[1:] == now[0].shape[1:]:
                now = tuple(torch.cat(pair) for pair in zip(before, now, strict=True))
            self.state_seqs = now
        return outputs


class SimpleBaseNode(base_node.SimpleBaseNode, BaseNode):
    """:class:`flexsn.neurons.SimpleBaseNode`."""


class AdaptBaseNode(base_node.AdaptBaseNode, BaseNode):
    """:class:`flexsn.neurons.AdaptBaseNode`, with ``(1/tau_w) ·`` where that has ``/tau_w``."""

    def adapt(self, h: Tensor, w: Tensor) -> Tensor:
        new: Tensor = w + 1.0 / self.tau_w * (self.a * (h - self.v_rest) - w)
        return new


class IFNode(IF, BaseNode):
    """:class:`flexsn.neurons.IF`."""


class LIFNode(LIF, BaseNode):
    """:class:`flexsn.neurons.LIF`."""


class ParametricLIFNode(PLIF, BaseNode):
    """:class:`flexsn.neurons.PLIF`."""


class QIFNode(QIF, BaseNode):
    """:class:`flexsn.neurons.QIF`."""


class EIFNode(EIF, BaseNode):
    """:class:`flexsn.neurons.EIF`."""


class KLIFNode(KLIF, BaseNode):
    """:class:`flexsn.neurons.KLIF`."""


class LIAFNode(LIAF, BaseNode):  # type: ignore[misc]
    """:class:`flexsn.neurons.LIAF`; in multi-step mode too, where SpikingJelly's returns spikes instead."""


class RAFNode(ResonateFire, BaseNode):  # type: ignore[misc]
    """:class:`flexsn.neurons.ResonateFire`."""


class SimpleIFNode(SimpleBaseNode):
    """:class:`flexsn.neurons.IF`, with a membrane that starts at 0."""

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        return v + x


class SimpleLIFNode(SimpleBaseNode):
    """:class:`flexsn.neurons.LIF` in another order of operations, with a membrane that starts at 0.

    ``h = v + (v_reset − v + x)/tau`` if ``decay_input``, else ``h = v + (v_reset − v)/tau + x``. An absent
    ``v_reset`` counts as 0 (SpikingJelly raises a TypeError).
    """

    tau = Coefficient(above=1, closed=True)

    def __init__(
        self,
        tau: Number,
        decay_input: bool,
        v_threshold: Number = 1.0,
        v_reset: Number | None = 0.0,
        surrogate_function: SpikeFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        **options: Any,
    ) -> None:
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, tau=tau, **options)
        check_flag(self, decay_input=decay_input)
        self.decay_input = decay_input

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        v_reset = 0.0 if self.v_reset is None else self.v_reset
        pull = v_reset - v
        h: Tensor = v + (pull + x) / self.tau if self.decay_input else v + pull / self.tau + x
        return h

    def _options(self) -> dict[str, Any]:
        return {"decay_input": self.decay_input, **super()._options()}


class IzhikevichNode(Izhikevich, AdaptBaseNode):  # type: ignore[misc]
    """:class:`flexsn.neurons.Izhikevich`; ``detach_reset`` cuts the jump to ``v_reset`` too."""

    adapt = Izhikevich.adapt
    discharge = SpikingNeuron.discharge


class ILIFNode(ILIF, BaseNode):
    """:class:`flexsn.neurons.ILIF`, with ``D`` inside the surrogate."""

    def __init__(
        self,
        tau: Number = 4.0 / 3.0,
        v_threshold: Number = 1.0,
        surrogate_function: Callable[[Tensor], Tensor] | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            tau, 4, v_threshold, surrogate_function, detach_reset, step_mode, backend, store_v_seq, **options
        )


class ComplementaryLIFNode(CLIF, BaseNode):  # type: ignore[misc]
    """:class:`flexsn.neurons.CLIF`; ``store_state_seqs`` keeps ``v`` and ``m``."""

    def __init__(
        self,
        tau: Number = 2.0,
        v_threshold: Number = 1.0,
        surrogate_function: SpikeFunction | None = None,
        step_mode: str = "s",
        store_state_seqs: bool = False,
        backend: str = "auto",
        **options: Any,
    ) -> None:
        options |= {"backend": backend, "store_v_seq": store_state_seqs}
        super().__init__(tau, v_threshold, surrogate_function, step_mode, **options)


class CUBALIFNode(CubaLIF, BaseNode):  # type: ignore[misc]
    """:class:`flexsn.neurons.CubaLIF`; ``c_decay``, ``v_decay``, ``c`` are its ``alpha``, ``beta``, ``i``."""

    starts: ClassVar[Mapping[str, float | str]] = {"v": "v_reset", "c": 0.0}

    def __init__(
        self,
        c_decay: Number = 0.5,
        v_decay: Number = 0.75,
        v_threshold: Number = 0.5,
        v_reset: Number | None = 0.0,
        surrogate_function: SpikeFunction | None = None,
        **options: Any,
    ) -> None:
        spike = surrogate.Rect() if surrogate_function is None else surrogate_function
        super().__init__(c_decay, v_decay, v_threshold, v_reset, spike, **options)


class TernaryIFNode(TernaryIF, BaseNode):  # type: ignore[misc]
    """:class:`flexsn.neurons.TernaryIF`, with a hard reset by default."""

    def __init__(self, v_threshold: Number = 1.0, v_reset: Number | None = 0.0, *args: Any, **options: Any) -> None:
        super().__init__(v_threshold, v_reset, *args, **options)


class TernaryLIFNode(TernaryLIF, BaseNode):  # type: ignore[misc]
    """:class:`flexsn.neurons.TernaryLIF`, with a hard reset by default."""

    def __init__(
        self,
        tau: Number = 2.0,
        decay_input: bool = True,
        v_threshold: Number = 1.0,
        v_reset: Number | None = 0.0,
        *args: Any,
        **options: Any,
    ) -> None:
        super().__init__(tau, decay_input, v_threshold, v_reset, *args, **options)


class NonSpikingIFNode(NonSpikingIF):
    """:class:`flexsn.neurons.NonSpikingIF`, starting anew at every call."""

    def __init__(self, decode: str | None = None) -> None:
        super().__init__(decode)

    def forward(self, *inputs: Tensor) -> Tensor:
        self.reset()
        return super().forward(*inputs)


class NonSpikingLIFNode(NonSpikingLIF):
    """:class:`flexsn.neurons.NonSpikingLIF`, starting anew at every call."""

    def __init__(self, tau: Number = 2.0, decode: str | None = None) -> None:
        super().__init__(tau, decode)

    def forward(self, *inputs: Tensor) -> Tensor:
        self.reset()
        return super().forward(*inputs)
