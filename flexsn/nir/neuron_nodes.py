"""From a neuron of flexsn.neurons, which counts in steps, to nodes of NIR, which know time constants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flexsn import FlexSN
from flexsn.nir.dynamics import Neuron
from flexsn.nir.layer_nodes import array, node_of, unsayable
from flexsn.nir.package import nir_package

__all__ = ["nodes_of"]

SAYABLE = ("IF", "LIF", "PLIF", "CubaLIF", "NonSpikingIF", "NonSpikingLIF")


def nodes_of(name: str, neuron: FlexSN, shape: torch.Size, dt: float | None, method: str) -> list[tuple[str, Any]]:
    """``(suffix, node)`` of the nodes, one behind the other, that compute what the neuron does.

    Raises:
        ValueError: NIR has no such neuron.
    """
    if isinstance(neuron, Neuron):
        return [("", node_of(name, neuron, shape))]
    kind = _kind(neuron)
    if kind is None:
        raise unsayable(name, neuron, f"of the neurons of flexsn it knows {', '.join(SAYABLE)}")
    if dt is None:
        raise ValueError(f"module {name!r} ({type(neuron).__name__}) counts in steps; say how long one is: dt=")
    if neuron.time_reduction is not None:
        raise unsayable(name, neuron, f"its outputs have all steps, not time_reduction={neuron.time_reduction!r}")
    return _Steps(name, neuron, shape, dt, method).nodes(kind)


def _kind(neuron: FlexSN) -> str | None:
    """The neuron of flexsn.neurons that this one steps like, whoever gave it its name."""
    from flexsn import neurons

    for kind in SAYABLE:
        known = getattr(neurons, kind)
        methods = ("core", "charge", "fire", "discharge")
        if isinstance(neuron, known) and all(
            getattr(type(neuron), method, None) is getattr(known, method, None) for method in methods
        ):
            return kind
    return None


class _Steps:
    """Steps of a neuron as differential equations, for one duration of a step."""

    def __init__(self, name: str, neuron: Any, shape: torch.Size, dt: float, method: str) -> None:
        self.name, self.neuron, self.shape, self.dt, self.method = name, neuron, shape, dt, method

    def nodes(self, kind: str) -> list[tuple[str, Any]]:
        """The nodes of a neuron of this kind."""
        nir, neuron = nir_package(), self.neuron
        if kind == "IF":
            return [("", nir.IF(r=self._array(1.0 / self.dt), **self._spikes()))]
        if kind == "NonSpikingIF":
            return [("", nir.I(r=self._array(1.0 / self.dt)))]
        if kind == "NonSpikingLIF":
            return [("", nir.LI(**self._leak(1.0 / self._number(neuron.tau), divided=True)))]
        if kind == "CubaLIF":
            return self._current_based()
        share = 1.0 / self._number(neuron.tau)
        return [("", nir.LIF(**self._leak(share, neuron.decay_input, neuron.v_reset), **self._spikes()))]

    def _current_based(self) -> list[tuple[str, Any]]:
        """``i' = alpha·i + x``, ``h = beta·v + i'``: what the current is now acts at once, as of two nodes in a row."""
        nir = nir_package()
        current, membrane = (1.0 - self._number(kept) for kept in (self.neuron.alpha, self.neuron.beta))
        leak = self._leak(membrane, divided=False)
        if self.method == "exact":
            return [(".current", nir.LI(**self._leak(current, divided=False))), ("", nir.LIF(**leak, **self._spikes()))]
        leak["tau_mem"] = leak.pop("tau")
        leak["tau_syn"] = self._array(self._tau(current))
        return [("", nir.CubaLIF(**leak, w_in=self._array(1.0 / current), **self._spikes()))]

    def _leak(self, share: Tensor, divided: bool, rest: Any = None) -> dict[str, Any]:
        """``v + share·(rest − v) + x``, ``x`` times ``share`` as well if it is divided by the time constant."""
        return {
            "tau": self._array(self._tau(share)),
            "r": self._array(1.0 if divided else 1.0 / share),
            "v_leak": self._array(0.0 if rest is None else rest),
        }

    def _tau(self, share: Tensor) -> Tensor:
        """The time constant with which a step goes this share of the way."""
        if self.method == "euler":
            return self.dt / share
        if bool((share >= 1.0).any()):
            raise unsayable(
                self.name,
                self.neuron,
                'no time constant > 0 forgets all in a step that is solved exactly, use method="euler"',
            )
        return -self.dt / torch.log1p(-share)

    def _spikes(self) -> dict[str, Any]:
        v_reset = self.neuron.v_reset
        return {
            "v_threshold": self._array(self.neuron.v_threshold),
            "v_reset": self._array(0.0 if v_reset is None else v_reset),
        }

    def _number(self, value: Any) -> Tensor:
        return torch.as_tensor(value).detach().double().cpu()

    def _array(self, value: Any) -> Any:
        return array(self._number(value).float(), self.shape)
