"""Stateful: an ``nn.Module`` that holds states from call to call, as attributes, and is copied with them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from flexsn.captures.copying import copy_core
from flexsn.errors import CoreError, GradientError, defined_at
from flexsn.execution.arguments import complaint, fit
from flexsn.ir.dtypes import compute_dtype
from flexsn.modules.internals import Internals, Shapes
from flexsn.modules.monitor import Monitor
from flexsn.modules.pickled_core import PickledCore

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Stateful"]


class Stateful(nn.Module):
    """Holds states between calls: readable and settable by name, forgotten by ``reset``, cut off by ``detach``.

    Attributes:
        _flexsn: all that is kept beside core and parameters.
    """

    # a neuron's machinery, no core reads it: see captures.origin
    _flexsn_internal: ClassVar[frozenset[str]] = frozenset({"_flexsn"})
    _flexsn: Internals

    # ---- states -------------------------------------------------------------------------------------------

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
        same = all(shape == shapes[0] for shape in shapes[1:])
        shape = shapes[0] if same else torch.Size(np.broadcast_shapes(*shapes))
        return [torch.broadcast_to(zero, shape)] * num_states  # half of what expand takes

    @property
    def states(self) -> tuple[Tensor, ...] | None:
        """The states after the last step, or ``None`` before the first call. Settable."""
        return self._flexsn.states

    @states.setter
    def states(self, states: Sequence[Tensor] | Tensor | None) -> None:
        if isinstance(states, Tensor):
            states = (states,)
        if states is not None and len(states) != self.num_states:
            raise ValueError(f"expected {self.num_states} states {self.state_names}, got {len(states)}")
        for state in states or ():
            if not isinstance(state, Tensor):
                raise ValueError(f"a state is a tensor, got {type(state).__name__}")
        self._flexsn.hold(None if states is None else tuple(states))

    @property
    def num_states(self) -> int:
        """How many arguments of the core are states."""
        return len(self._flexsn.state_names)

    @property
    def state_names(self) -> tuple[str, ...]:
        """The core's own names for its states."""
        return self._flexsn.state_names

    @state_names.setter
    def state_names(self, names: Sequence[str]) -> None:
        self._flexsn.change(state_names=tuple(names), dispatcher=None, binding=None)

    def _initial_states(
        self, inputs: tuple[Tensor, ...], seqs: tuple[Tensor, ...], time_dim: int
    ) -> tuple[Tensor, ...]:
        own = self._flexsn
        try:
            time_first = tuple(x.movedim(time_dim, 0) for x in inputs) if time_dim else inputs
            count = len(own.state_names)
            made = self.init_states(count, own.step_mode, *time_first)
            states = () if made is None else tuple(made)
            if len(states) != count or [s for s in states if not isinstance(s, Tensor)]:
                raise CoreError(
                    f"init_states returned {len(states)} value(s) {tuple(type(s).__name__ for s in states)}, "
                    f"expected {count} tensor(s) for the states {self.state_names}",
                    where=defined_at(self.init_states),
                    hint="return a list, one tensor per state",
                )
            if own.example_dtypes is not None:
                dtypes = own.example_dtypes[own.num_inputs :]
                states = tuple(s.to(compute_dtype(d)) for s, d in zip(states, dtypes, strict=True))
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            if wrong := complaint(partial(fit, seqs, (), time_dim)):
                raise wrong from None  # the inputs are to blame
            raise
        return self._started(states) if own.starts else states

    def _check_states(self, input_shapes: Shapes) -> None:
        """Do the held states fit inputs of these step shapes, and are they still alive?"""
        own, name = self._flexsn, type(self).__name__
        if own.input_shapes not in (None, input_shapes):
            before, now = (", ".join(map(str, shapes or ())) for shapes in (own.input_shapes, input_shapes))
            raise ValueError(
                f"the step shape changed from {before} to {now} "
                f"while {name} still holds states; call reset() before a batch of another shape"
            )
        if torch._C._current_graph_task_id() not in (-1, own.in_backward):
            raise GradientError(
                f"{name} runs again during a backward pass, from states that a later call left",
                why="activation checkpointing computes a call anew, which has to start where the call started",
                hint="call reset() at the start of the checkpointed block, or set states there to an argument of it",
            )
        if own.in_transform and not torch._C._are_functorch_transforms_active():
            raise ValueError(f"{name} holds states of a vmap, grad or jvp that has ended; call reset() before it ends")

    def reset(self) -> None:
        """Forget the states; the next call starts from ``init_states``."""
        self._flexsn.hold(None)
        self._flexsn.state_seqs = self._flexsn.rate = None

    def detach(self) -> None:
        """Cut the graph at the current states, their sequences and what is recorded (truncated BPTT)."""
        self._flexsn.detach()

    # ---- sequences of states ------------------------------------------------------------------------------

    @property
    def store_state_seqs(self) -> bool:
        """Whether calls leave the states of every step in ``state_seqs``."""
        return self._flexsn.store_state_seqs

    @store_state_seqs.setter
    def store_state_seqs(self, store: bool) -> None:
        self._flexsn.change(store_state_seqs=store)

    @property
    def state_seqs(self) -> tuple[Tensor, ...] | None:
        """The states after every step of the last call, if asked for by ``store_state_seqs``."""
        return self._flexsn.state_seqs

    @state_seqs.setter
    def state_seqs(self, state_seqs: tuple[Tensor, ...] | None) -> None:
        self._flexsn.state_seqs = state_seqs

    def record(self, *names: str, every: int = 1) -> None:
        """Record states by name in multi-step calls from now on; without names, no longer.

        After a call ``neuron.recorded[name]`` has the state after steps ``0, every, 2 every, ...`` of that call,
        ``[ceil(T / every), *step]``. The kernel writes every step of a recorded state, and nothing of the others;
        ``every`` thins the sequence out after the call: it saves memory from then on, not the kernel's writing.

        Args:
            names: of states, as in ``neuron.state_names``.
            every: record one step in so many.

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
        self._flexsn.change(monitor=Monitor.of(self.state_names, names, every) if names else None)

    @property
    def recorded(self) -> dict[str, Tensor]:
        """What :meth:`record` asked for, of the last call."""
        monitor = self._flexsn.monitor
        return {} if monitor is None else monitor.recorded

    # ---- what nn.Module does with attributes, devices and copies -------------------------------------------

    def __getattr__(self, name: str) -> Any:
        own: Internals | None = self.__dict__.get("_flexsn")
        if own is not None and name in own.state_names:
            return own.starts.get(name) if own.states is None else own.states[own.state_names.index(name)]
        if name == "rate" and own is not None and own.options.rate:  # no property: a core may have a rate of its own
            return own.rate
        if own is None and "_parameters" not in self.__dict__:
            raise AttributeError(
                f"{type(self).__name__} has no {name} yet: its __init__ has to call super().__init__() first"
            )
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            if name != "rate":
                raise
            raise AttributeError(f"{error}; rate=True, when it is made, keeps one") from None

    def __setattr__(self, name: str, value: Any) -> None:
        own: Internals | None = self.__dict__.get("_flexsn")
        if own is None or name not in own.state_names:
            super().__setattr__(name, value)
        elif isinstance(value, Tensor):
            states = self._starts_like(value) if own.states is None else own.states
            own.hold(_replaced(states, own.state_names.index(name), value))
        elif self._reads_constant(name):
            super().__setattr__(name, value)
        elif not isinstance(value, (bool, int, float, np.number, np.bool_)):
            raise ValueError(f"the state {name} must be a tensor or a number, got {type(value).__name__}")
        elif isinstance(value, np.generic):
            setattr(self, name, value.item())
        elif own.states is None:
            own.starts = {**own.starts, name: value}
        else:
            position = own.state_names.index(name)
            number = torch.full_like(own.states[position], value, requires_grad=False)
            own.hold(_replaced(own.states, position, number), own.input_shapes)

    def _reads_constant(self, name: str) -> bool:
        """Whether the core is a method that reads an attribute of that name: then it is not the state."""
        code = getattr(getattr(type(self), "core", None), "__code__", None)
        return code is not None and name in code.co_names

    def _starts_like(self, step: Tensor) -> tuple[Tensor, ...]:
        """The initial states for a step of that shape."""
        inputs = (step if step.is_floating_point() else step.to(torch.get_default_dtype()),) * self._flexsn.num_inputs
        return self._started(tuple(self.init_states(self.num_states, "s", *inputs)))

    def _started(self, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Initial states, those that were set to a number at that number."""
        own = self._flexsn
        for name, number in own.starts.items():
            position = own.state_names.index(name)
            zero = states[position]
            states = _replaced(states, position, torch.full((), number, dtype=zero.dtype, device=zero.device))
        return states

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        own = self._flexsn
        if own.states is not None:
            moved = [(state, fn(state)) for state in own.states]
            if any(old.is_meta and not new.is_meta for old, new in moved):
                own.hold(None)  # they never had a value
                return self
            # .half() and .bfloat16() leave states in fp32, as calls with such inputs do
            states = tuple(n if compute_dtype(n.dtype) is n.dtype else o.to(n.device) for o, n in moved)
            own.hold(states, own.input_shapes)
        return self

    def _replicate_for_data_parallel(self) -> Self:
        replica: Self = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica.__dict__["_flexsn"] = self._flexsn.without_kernels()
        return replica

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_flexsn": self._flexsn.without_graph()}
        if "core" in state:
            state["core"] = PickledCore(state["core"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        core = state.get("core")
        super().__setstate__({**state, "core": core.core} if isinstance(core, PickledCore) else state)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        clone = self.__class__.__new__(self.__class__)
        memo[id(self)] = clone
        state = Stateful.__getstate__(self)  # a parametrized module forbids its own
        core = state.pop("core", None)
        if core is not None:
            clone.__dict__["core"] = copy_core(core.core, memo)
        clone.__dict__.update({name: copy.deepcopy(value, memo) for name, value in state.items()})
        return clone


def _replaced(states: tuple[Tensor, ...], position: int, state: Tensor) -> tuple[Tensor, ...]:
    return (*states[:position], state, *states[position + 1 :])
