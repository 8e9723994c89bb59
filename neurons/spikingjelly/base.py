"""The SpikingJelly preset's base classes, for those who subclass them."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import Unpack

from flexsn import FlexSN as Scanned
from flexsn.neurons import base_node
from flexsn.neurons.arguments import MaskArguments, step_shape
from flexsn.neurons.integrate import LIF
from flexsn.neurons.peer_class import PeerClass
from flexsn.neurons.spikingjelly.memory import MemoryModule

__all__ = ["AdaptBaseNode", "BaseNode", "FlexSN", "LIFNode", "SimpleBaseNode"]

_BACKENDS = {"cupy": "auto", "inductor": "auto", "hop": "auto"}


class _Backends(Scanned):
    """SpikingJelly's names of backends are welcome."""

    @property
    def backend(self) -> str:
        """What runs the scan; SpikingJelly's ``"cupy"``, ``"inductor"`` and ``"hop"`` mean ``"auto"``."""
        return super().backend

    @backend.setter
    def backend(self, backend: str) -> None:
        Scanned.backend.fset(self, _BACKENDS.get(backend, backend))  # type: ignore[attr-defined]

    @property
    def supported_backends(self) -> tuple[str, ...]:
        """The backends of this machine, and the names that mean ``"auto"``."""
        return *super().supported_backends, *_BACKENDS


class FlexSN(_Backends, metaclass=PeerClass):
    """:class:`flexsn.FlexSN`, with SpikingJelly's backends."""


class BaseNode(base_node.BaseNode, _Backends, MemoryModule):
    """:class:`flexsn.neurons.BaseNode` with SpikingJelly's backends, memories, and its ``v_seq`` of single steps.

    A batch of another shape starts anew.

    Example:
        >>> class Square(BaseNode):
        ...     def neuronal_charge(self, x):
        ...         self.v = self.v + x * x
        >>> Square(step_mode="m")(torch.tensor([0.75, 0.75, 0.5])).tolist()
        [0.0, 1.0, 0.0]
    """

    def forward(self, *inputs: Tensor, **masks: Unpack[MaskArguments]) -> Tensor | tuple[Tensor, ...]:
        """Run ``T`` steps, or one, by which ``v_seq`` then grows until ``reset()``."""
        single, held, before = self.step_mode == "s", self.states, self.state_seqs
        if held is not None and inputs and held[0].shape != step_shape(self, inputs[0]):
            self.states = None
        outputs = super().forward(*inputs, **masks)
        if self.store_v_seq and single and self.states is not None:
            now = tuple(state.unsqueeze(0) for state in self.states)
            if before is not None and before[0].shape[1:] == now[0].shape[1:]:
                now = tuple(torch.cat(pair) for pair in zip(before, now, strict=True))
            self.state_seqs = now
        return outputs

    _advance = forward

    @property
    def v_seq(self) -> Tensor | None:
        """The membrane after each step, of the last call or, in single steps, since ``reset()``."""
        return super().v_seq

    @v_seq.setter
    def v_seq(self, v_seq: Tensor | None) -> None:
        others = {} if self.state_seqs is None else dict(zip(self.state_names, self.state_seqs, strict=True))
        seqs = {**dict.fromkeys(self.state_names, v_seq), **others, "v": v_seq}
        self.state_seqs = None if v_seq is None else tuple(seq for seq in seqs.values() if seq is not None)


class SimpleBaseNode(base_node.SimpleBaseNode, BaseNode):
    """:class:`flexsn.neurons.SimpleBaseNode`.

    Example:
        >>> class Square(SimpleBaseNode):
        ...     def neuronal_charge(self, x):
        ...         self.v = self.v + x * x
        >>> Square(step_mode="m")(torch.tensor([0.75, 0.75, 0.5])).tolist()
        [0.0, 1.0, 0.0]
    """


class AdaptBaseNode(base_node.AdaptBaseNode, BaseNode):
    """:class:`flexsn.neurons.AdaptBaseNode`, with ``(1/tau_w) ·`` where that has ``/tau_w``."""

    def adapt(self, h: Tensor, w: Tensor) -> Tensor:
        new: Tensor = w + 1.0 / self.tau_w * (self.a * (h - self.v_rest) - w)
        return new


class LIFNode(LIF, BaseNode):
    """:class:`flexsn.neurons.LIF`.

    Example:
        >>> import torch
        >>> LIFNode(step_mode="m")(torch.tensor([1.5, 1.5, 0.0])).tolist()
        [0.0, 1.0, 0.0]
    """
