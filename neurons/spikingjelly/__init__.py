"""SpikingJelly's neurons by their own names: change one import and an existing model moves over.

.. code-block:: python

    from spikingjelly.activation_based import neuron      # before
    from flexsn.neurons import spikingjelly as neuron     # after

Class names, argument order, defaults, comparison (``≥``), state names, ``v_seq`` and spike trains are those
of SpikingJelly 2.0; the classes are thin layers over the canonical ones, so every one is compiled. Surrogates
may be those of either library: ``flexsn.surrogate`` has them with the same arguments, except that its
``SquarewaveFourierSeries`` sums ``n`` terms; the one here sums ``n − 1``, as SpikingJelly's.
Also accepted, from earlier versions: ``backend="cupy"`` and ``"inductor"`` (here ``"auto"``, the fastest there
is), and overriding ``neuronal_charge``, ``neuronal_fire`` or ``neuronal_reset`` in a subclass.

A subclass may override ``multi_step_forward``, and ``single_step_forward``, which then is every step in either mode.
Where SpikingJelly is installed, its tools take these neurons for its own, and what this module has not, such as
``DSRLIFNode``, is SpikingJelly's.

Different on purpose: ``NonSpiking*Node`` return one tensor instead of a list and know ``"last-mem"`` as well as
``"last_mem"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from flexsn.neurons.adaptive import Izhikevich
from flexsn.neurons.adaptive_threshold import CLIF
from flexsn.neurons.arguments import Number, SpikeFunction, check_flag, with_arguments_of
from flexsn.neurons.base import SpikingNeuron
from flexsn.neurons.coefficient import Coefficient
from flexsn.neurons.graded import LIAF
from flexsn.neurons.integrate import IF, PLIF
from flexsn.neurons.nonlinear import EIF, KLIF, QIF
from flexsn.neurons.parallel import PSN, MaskedPSN, SlidingPSN
from flexsn.neurons.peer_class import from_peer
from flexsn.neurons.second_order import CubaLIF, ResonateFire
from flexsn.neurons.spikingjelly import layer as layer
from flexsn.neurons.spikingjelly import surrogate as surrogate
from flexsn.neurons.spikingjelly.base import AdaptBaseNode, BaseNode, FlexSN, LIFNode, SimpleBaseNode
from flexsn.neurons.spikingjelly.gated import GatedLIFNode
from flexsn.neurons.spikingjelly.graded import (
    ILIFNode,
    NonSpikingBaseNode,
    NonSpikingIFNode,
    NonSpikingLIFNode,
    TernaryIFNode,
    TernaryLIFNode,
)
from flexsn.neurons.spikingjelly.online import OTTTLIFNode, SLTTLIFNode
from flexsn.neurons.spikingjelly.spike_functions import MultiLevelSpikeCount, SquarewaveFourierSeries

__all__ = [
    "PSN",
    "AdaptBaseNode",
    "BaseNode",
    "CUBALIFNode",
    "ComplementaryLIFNode",
    "EIFNode",
    "FlexSN",
    "GatedLIFNode",
    "IFNode",
    "ILIFNode",
    "IzhikevichNode",
    "KLIFNode",
    "LIAFNode",
    "LIFNode",
    "MaskedPSN",
    "MultiLevelSpikeCount",
    "NonSpikingBaseNode",
    "NonSpikingIFNode",
    "NonSpikingLIFNode",
    "OTTTLIFNode",
    "ParametricLIFNode",
    "QIFNode",
    "RAFNode",
    "SLTTLIFNode",
    "SimpleBaseNode",
    "SimpleIFNode",
    "SimpleLIFNode",
    "SlidingPSN",
    "SquarewaveFourierSeries",
    "TernaryIFNode",
    "TernaryLIFNode",
]


class IFNode(IF, BaseNode):
    """:class:`flexsn.neurons.IF`.

    Example:
        >>> import torch
        >>> IFNode(step_mode="m")(torch.tensor([0.75, 0.75, 0.5])).tolist()
        [0.0, 1.0, 0.0]
    """


class ParametricLIFNode(PLIF, BaseNode):
    """:class:`flexsn.neurons.PLIF`.

    Example:
        >>> import torch
        >>> ParametricLIFNode(step_mode="m")(torch.tensor([1.5, 1.5, 0.0])).tolist()
        [0.0, 1.0, 0.0]
    """


class QIFNode(QIF, BaseNode):
    """:class:`flexsn.neurons.QIF`.

    Example:
        >>> import torch
        >>> QIFNode(step_mode="m")(torch.tensor([2.5, 0.0, 0.5])).tolist()
        [1.0, 0.0, 0.0]
    """


class EIFNode(EIF, BaseNode):
    """:class:`flexsn.neurons.EIF`.

    Example:
        >>> import torch
        >>> EIFNode(step_mode="m")(torch.tensor([2.5, 0.0, 0.5])).tolist()
        [1.0, 0.0, 0.0]
    """


class KLIFNode(KLIF, BaseNode):
    """:class:`flexsn.neurons.KLIF`.

    Example:
        >>> import torch
        >>> KLIFNode(step_mode="m")(torch.tensor([2.5, 0.0, 0.5])).tolist()
        [1.0, 0.0, 0.0]
    """


class LIAFNode(LIAF, BaseNode):  # type: ignore[misc]
    """:class:`flexsn.neurons.LIAF`; in multi-step mode too, where SpikingJelly's returns spikes instead.

    Example:
        >>> import torch
        >>> LIAFNode(torch.relu, threshold_related=False, step_mode="m")(torch.tensor([1.5, 1.5, 0.0])).tolist()
        [0.75, 1.125, 0.0]
    """


class RAFNode(ResonateFire, BaseNode):  # type: ignore[misc]
    """:class:`flexsn.neurons.ResonateFire`.

    Example:
        >>> import torch
        >>> RAFNode(step_mode="m")(torch.tensor([1.0, 1.0, 0.0])).tolist()
        [0.0, 0.0, 1.0]
    """


class SimpleIFNode(SimpleBaseNode):
    """:class:`flexsn.neurons.IF`, with a membrane that starts at 0.

    Example:
        >>> import torch
        >>> SimpleIFNode(step_mode="m")(torch.tensor([0.75, 0.75, 0.5])).tolist()
        [0.0, 1.0, 0.0]
    """

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        return v + x


class SimpleLIFNode(SimpleBaseNode):
    """:class:`flexsn.neurons.LIF` in another order of operations, with a membrane that starts at 0.

    ``h = v + (v_reset − v + x)/tau`` if ``decay_input``, else ``h = v + (v_reset − v)/tau + x``. An absent
    ``v_reset`` counts as 0 (SpikingJelly raises a TypeError).

    Example:
        >>> import torch
        >>> SimpleLIFNode(tau=2.0, decay_input=True, step_mode="m")(torch.tensor([1.5, 1.5, 0.0])).tolist()
        [0.0, 1.0, 0.0]
    """

    tau = Coefficient(above=1, closed=True)

    @with_arguments_of(SpikingNeuron)
    def __init__(self, tau: Number, decay_input: bool, *common: Any, **options: Any) -> None:
        super().__init__(tau=tau, **options)
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
    """:class:`flexsn.neurons.Izhikevich`; ``detach_reset`` cuts the jump to ``v_reset`` too.

    Example:
        >>> import torch
        >>> IzhikevichNode(step_mode="m")(torch.tensor([4.0, 0.0, 0.5])).tolist()
        [1.0, 0.0, 0.0]
    """

    adapt = Izhikevich.adapt
    discharge = SpikingNeuron.discharge


class ComplementaryLIFNode(CLIF, BaseNode):  # type: ignore[misc]
    """:class:`flexsn.neurons.CLIF`; ``store_state_seqs`` keeps ``v`` and ``m``.

    Example:
        >>> import torch
        >>> ComplementaryLIFNode(step_mode="m")(torch.tensor([0.75, 0.75, 0.5])).tolist()
        [0.0, 1.0, 0.0]
    """

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
    """:class:`flexsn.neurons.CubaLIF`; ``c_decay``, ``v_decay``, ``c`` are its ``alpha``, ``beta``, ``i``.

    Example:
        >>> import torch
        >>> CUBALIFNode(step_mode="m")(torch.tensor([0.25, 0.25, 0.25])).tolist()
        [0.0, 1.0, 0.0]
    """

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


def __getattr__(name: str) -> Any:
    return from_peer(__name__, name)
