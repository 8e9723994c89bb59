"""Stateful: the states of a neuron, kept from call to call, as attributes of an ``nn.Module``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from flexsn.execution.arguments import compute_dtype
from flexsn.modules.monitor import Recording

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Shapes", "Stateful"]

Shapes = tuple[tuple[int, ...], ...]


class Stateful(nn.Module):
    """Holds states between calls: readable and settable by name, forgotten by ``reset``, cut off by ``detach``.

    Attributes:
        num_inputs, num_states: how many arguments of the core are which.
        state_names: the core's own names for its states.
        state_seqs: the states after every step of the last call, if asked for.
    """

    _flexsn_internal: ClassVar[frozenset[str]] = frozenset()
    num_inputs: int
    num_states: int
    state_names: tuple[str, ...]
    state_seqs: tuple[Tensor, ...] | None

    def _name_states(self, num_inputs: int, state_names: tuple[str, ...]) -> None:
        mine = self.__dict__  # past nn.Module's slow bookkeeping, and past the states' own names
        mine["num_inputs"], mine["num_states"], mine["state_names"] = num_inputs, len(state_names), state_names
        mine["state_seqs"] = mine["_recording"] = None
        self._keep(None, None)

    @staticmethod
    def init_states(num_states: int, step_mode: str, *args: Tensor) -> Sequence[Tensor]:
        """The states before the first step; override for anything but zeros.

        Args:
            num_states: how many.
            step_mode: ``"m"`` if ``args`` are sequences ``[T, ...]``, ``"s"`` if single steps.
            args: the inputs of the call, time first.

        Returns:
            ``num_states`` tensors that broadcast against the step shape.
        """
        x = args[0]
        zero = torch.zeros((), dtype=compute_dtype(x.dtype), device=x.device)
        shapes = [a.shape[1:] if step_mode == "m" else a.shape for a in args]
        shape = shapes[0] if len(shapes) == 1 else torch.Size(np.broadcast_shapes(*shapes))
        return [zero.expand(shape)] * num_states

    @property
    def states(self) -> tuple[Tensor, ...] | None:
        """The states after the last step, or ``None`` before the first call. Settable."""
        states: tuple[Tensor, ...] | None = self.__dict__["_states"]
        return states

    @states.setter
    def states(self, states: Sequence[Tensor] | Tensor | None) -> None:
        if isinstance(states, Tensor):
            states = (states,)
        if states is not None and len(states) != self.num_states:
            raise ValueError(f"expected {self.num_states} states {self.state_names}, got {len(states)}")
        for state in states or ():
            if not isinstance(state, Tensor):
                raise ValueError(f"a state is a tensor, got {type(state).__name__}")
        self._keep(None if states is None else tuple(states), None)

    def _keep(self, states: tuple[Tensor, ...] | None, input_shapes: Shapes | None) -> None:
        mine = self.__dict__
        mine["_states"], mine["_input_shapes"] = states, input_shapes
        mine["_in_transform"] = torch._C._are_functorch_transforms_active()

    def reset(self) -> None:
        """Forget the states; the next call starts from ``init_states``."""
        self._keep(None, None)
        self.__dict__["state_seqs"] = None

    def detach(self) -> None:
        """Cut the graph at the current states (truncated BPTT)."""
        states, input_shapes = self.__dict__["_states"], self.__dict__["_input_shapes"]
        if states is not None:
            self._keep(tuple(state.detach() for state in states), input_shapes)

    def record(self, *names: str, every: int = 1) -> None:
        """Record states by name in multi-step calls from now on; without names, no longer.

        After a call ``neuron.recorded[name]`` has the state after steps ``0, every, 2 every, ...`` of that call,
        ``[ceil(T / every), *step]``. The kernel writes every step of a recorded state, and nothing of the others;
        ``every`` thins the sequence out after the call: it saves memory from then on, not the kernel's writing.

        Args:
            names: of states, as in ``neuron.state_names``.
            every: keep one step in so many.

        Raises:
            ValueError: there is no state of that name, or ``every < 1``.

        Example:
            >>> from flexsn import FlexSN
            >>> neuron = FlexSN(lambda x, v: (v + x, v + x))
            >>> neuron.record("v", every=2)
            >>> _ = neuron(torch.ones(4, 1))
            >>> neuron.recorded["v"].tolist()
            [[1.0], [3.0]]
        """
        self.__dict__["_recording"] = Recording.of(self.state_names, names, every) if names else None

    @property
    def recorded(self) -> dict[str, Tensor]:
        """What :meth:`record` asked for, of the last call."""
        recording: Recording | None = self.__dict__["_recording"]
        return {} if recording is None else recording.taken

    def __getattr__(self, name: str) -> Any:
        names = self.__dict__.get("state_names", ())
        if name in names:
            states = self.__dict__["_states"]
            return None if states is None else states[names.index(name)]
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        names = self.__dict__.get("state_names", ())
        if name in names and isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            states = self.__dict__["_states"]
            if states is None:
                states = self._starts_like(value)
            position = names.index(name)
            self._keep((*states[:position], value, *states[position + 1 :]), None)
        else:
            super().__setattr__(name, value)

    def _starts_like(self, step: Tensor) -> tuple[Tensor, ...]:
        """The initial states for a step of that shape."""
        inputs = (step if step.is_floating_point() else step.to(torch.get_default_dtype()),) * self.num_inputs
        return tuple(self.init_states(self.num_states, "s", *inputs))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        states = self.__dict__["_states"]
        if states is not None:
            moved = [(state, fn(state)) for state in states]
            # .half() and .bfloat16() leave states in fp32, as calls with such inputs do
            kept = tuple(n if compute_dtype(n.dtype) is n.dtype else o.to(n.device) for o, n in moved)
            self._keep(kept, self.__dict__["_input_shapes"])
        return self
