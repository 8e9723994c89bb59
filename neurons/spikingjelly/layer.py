"""SpikingJelly's containers that feed a module its last output; its other layers are its own, where it is installed.

.. code-block:: python

    from spikingjelly.activation_based import layer         # before
    from flexsn.neurons.spikingjelly import layer           # after
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from flexsn import FlexSN
from flexsn.neurons.arguments import check_callable, check_flag, check_size, wrong
from flexsn.neurons.peer_class import PeerClass, from_peer
from flexsn.neurons.spikingjelly.memory import Memories, MemoryModule

__all__ = ["ElementWiseRecurrentContainer", "LinearRecurrentContainer"]


class _FedBack(FlexSN):
    """A neuron that is fed ``join(y, x)``, with ``y`` its last output, one more state."""

    def __init__(self, neuron: FlexSN, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(num_inputs=1, num_states=neuron.num_states + 1)
        self.neuron, self.join = neuron, join
        self.state_names = (*neuron.state_names, "y")

    def core(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        *own, y = states
        returned: Any = self.neuron.core(self.join(y, x), *own)
        return (*returned, returned[0])


class RecurrentContainer(nn.Module, metaclass=PeerClass):
    """What both have: ``y``, the output of the last step.

    All steps of a call are one scan where ``sub_module`` is a neuron of this package; else they run one by one.
    ``reset()`` forgets ``y`` alone, ``functional.reset_net`` the states of ``sub_module`` too.

    Args:
        sub_module: a module of single steps.
        step_mode: ``"s"``: inputs are single steps; ``"m"``: inputs are sequences ``[T, ...]``.
    """

    state_names: ClassVar[tuple[str, ...]] = ("y",)
    num_states: ClassVar[int] = 1
    y: Tensor | None

    def __init__(self, sub_module: nn.Module, step_mode: str) -> None:
        super().__init__()
        if step_mode not in ("s", "m"):
            raise wrong(self, 'step_mode must be "s" or "m"', step_mode=step_mode)
        if getattr(sub_module, "step_mode", "s") != "s":
            raise wrong(self, 'sub_module must have step_mode="s"', sub_module=sub_module)
        self.step_mode, self.sub_module, self.y = step_mode, sub_module, None
        self._scan: _FedBack | None = None

    def first(self, x: Tensor) -> Tensor:
        """``y`` before the step ``x``, the first."""
        return torch.zeros_like(x)

    def fed(self, x: Tensor, y: Tensor) -> Tensor:
        """What ``sub_module`` is given."""
        raise NotImplementedError

    def layers(self) -> list[nn.Module]:
        """What a scan can take of ``sub_module``: the neuron last."""
        return [self.sub_module]

    def drive(self, x_seq: Tensor) -> Tensor:
        """What the steps of a scan are given of the input."""
        return x_seq

    def join(self, y: Tensor, x: Tensor) -> Tensor:
        """What the neuron of a scan is given."""
        return self.fed(x, y)

    # ---- the call -----------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of one step or of all, as ``step_mode`` says."""
        return self.multi_step_forward(x) if self.step_mode == "m" else self.single_step_forward(x)

    def single_step_forward(self, x: Tensor) -> Tensor:
        """The output of one step."""
        y: Tensor = self.sub_module(self.fed(x, self._before(x)))
        self.y = y
        return y

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """The outputs of all steps."""
        y = self._before(x_seq[0])
        neuron = self.layers()[-1]
        if isinstance(neuron, FlexSN) and _is_its_core(neuron) and not _is_watched(self.sub_module):
            return self._scanned(neuron, x_seq, y)
        outputs = []
        for x in x_seq.unbind():
            y = self.y = self.sub_module(self.fed(x, y))
            outputs.append(y)
        return torch.stack(outputs)

    def _before(self, x: Tensor) -> Tensor:
        """``y`` before the step ``x``."""
        first = self.first(x)
        if self.y is None:
            return first
        if self.y.shape != first.shape:
            raise ValueError(
                f"the shape of y changed from {tuple(self.y.shape)} to {tuple(first.shape)}; "
                "call functional.reset_net(container) before a batch of another shape"
            )
        return self.y

    def _scanned(self, neuron: FlexSN, x_seq: Tensor, y: Tensor) -> Tensor:
        scan, drive = self._scan, self.drive(x_seq)
        if scan is None or scan.neuron is not neuron:
            scan = self.__dict__["_scan"] = _FedBack(neuron, self.join)  # as an attribute it would be a child
        scan.backend = neuron.scan_options.backend
        held = neuron.states or neuron._started(tuple(neuron.init_states(neuron.num_states, "s", drive[0])))
        scan.states = (*held, y)
        outputs: Tensor = scan(drive)
        assert scan.states is not None
        *states, self.y = scan.states
        neuron.states = tuple(states)
        return outputs

    # ---- y ------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget ``y``."""
        self.y = None

    def detach(self) -> None:
        """Cut the graph behind ``y``."""
        self.y = None if self.y is None else self.y.detach()

    @property
    def _memories(self) -> MutableMapping[str, Any]:
        return Memories(self)  # type: ignore[arg-type]  # y is all of the states it has

    @_memories.setter
    def _memories(self, memories: Mapping[str, Any]) -> None:
        self.y = memories["y"]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RecurrentContainer:
        self.y = None if self.y is None else fn(self.y)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_scan": None, "y": None if self.y is None else self.y.detach()}

    def extra_repr(self) -> str:
        return f"step_mode={self.step_mode}"


class ElementWiseRecurrentContainer(RecurrentContainer):
    """``sub_module`` is given ``element_wise_function(y[t-1], x[t])``, with ``y`` its output and ``y[-1] = 0``.

    Args:
        sub_module: a module of single steps, whose output has the shape of its input.
        element_wise_function: a pointwise function of two tensors.
        step_mode: ``"s"``: inputs are single steps; ``"m"``: inputs are sequences ``[T, ...]``.

    Example:
        >>> from flexsn.neurons.spikingjelly import IFNode
        >>> net = ElementWiseRecurrentContainer(IFNode(v_reset=None), lambda y, x: x + y, step_mode="m")
        >>> net(torch.tensor([[1.5], [0.0], [0.0]])).flatten().tolist()
        [1.0, 1.0, 1.0]
    """

    def __init__(
        self, sub_module: nn.Module, element_wise_function: Callable[[Tensor, Tensor], Tensor], step_mode: str = "s"
    ) -> None:
        super().__init__(sub_module, step_mode)
        check_callable(self, "lambda y, x: y + x", element_wise_function=element_wise_function)
        self.element_wise_function = element_wise_function

    def fed(self, x: Tensor, y: Tensor) -> Tensor:
        return self.element_wise_function(y, x)


class LinearRecurrentContainer(RecurrentContainer):
    """``sub_module`` is given ``rc([x[t], y[t-1]])``, with ``y`` its output, ``y[-1] = 0`` and ``rc`` an ``nn.Linear``.

    A scan where ``sub_module`` is a neuron, or ``nn.Sequential`` of linear layers and a neuron, which then are one
    matrix; what concerns the input is one product for all steps.

    Args:
        sub_module: a module of single steps.
        in_features, out_features: last dimension of its input, which is that of ``x``, and of its output.
        bias: of ``rc``.
        step_mode: ``"s"``: inputs are single steps; ``"m"``: inputs are sequences ``[T, ...]``.

    Shapes:
        input ``[..., in_features]``, output ``[..., out_features]``.

    Example:
        >>> from flexsn.neurons.spikingjelly import LIFNode
        >>> net = LinearRecurrentContainer(nn.Sequential(nn.Linear(4, 2), LIFNode()), 4, 2, step_mode="m")
        >>> net(torch.rand(8, 3, 4)).shape
        torch.Size([8, 3, 2])
    """

    def __init__(
        self, sub_module: nn.Module, in_features: int, out_features: int, bias: bool = True, step_mode: str = "s"
    ) -> None:
        super().__init__(sub_module, step_mode)
        check_size(self, in_features=in_features, out_features=out_features)
        check_flag(self, bias=bias)
        self.sub_module_out_features = out_features
        self.rc = nn.Linear(in_features + out_features, in_features, bias)

    def first(self, x: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:-1], self.sub_module_out_features)

    def fed(self, x: Tensor, y: Tensor) -> Tensor:
        fed: Tensor = self.rc(torch.cat((x, y), -1))
        return fed

    def layers(self) -> list[nn.Module]:
        layers = list(self.sub_module) if type(self.sub_module) is nn.Sequential else [self.sub_module]
        linear = all(type(layer).forward is nn.Linear.forward for layer in layers[:-1])
        return layers if linear else [self.sub_module]

    def drive(self, x_seq: Tensor) -> Tensor:
        driven = nnf.linear(x_seq, self.rc.weight[:, : self.rc.out_features], self.rc.bias)
        for layer in self.layers()[:-1]:
            driven = layer(driven)
        return driven

    def join(self, y: Tensor, x: Tensor) -> Tensor:
        matrix = self.rc.weight[:, self.rc.out_features :]
        for layer in self.layers()[:-1]:
            matrix = cast(Tensor, layer.weight) @ matrix
        return x + nnf.linear(y, matrix)


def _is_its_core(neuron: FlexSN) -> bool:
    """Whether a single step of a neuron is what its core says, and nothing besides."""
    made = type(neuron)
    if not (made.forward is FlexSN.forward or (isinstance(neuron, MemoryModule) and made.forward is made._advance)):
        return False
    plain = not (neuron.scan_options.has_rules or neuron.store_state_seqs or neuron._flexsn.monitor)
    return plain and neuron.num_inputs == 1 and neuron.num_outputs == 1


def _is_watched(module: nn.Module) -> bool:
    """Whether anyone wants to know when it is called."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def __getattr__(name: str) -> Any:
    return from_peer(__name__, name)
