"""What Norse's neurons share: parameters in a tuple, the state as argument and result, the spike by name."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from flexsn import FlexSN, surrogate
from flexsn.neurons.arguments import (
    MaskArguments,
    SequenceOptions,
    SpikeFunction,
    check_flag,
    check_number,
    float_tensor,
    shown,
    wrong,
)
from flexsn.neurons.norse.parameters import Value
from flexsn.neurons.peer_class import PeerClass

__all__ = ["Cell", "NorseNeuron", "per_step", "spike_function"]


def _tanh_slope(x: Tensor, alpha: float) -> Tensor:
    t = torch.tanh(x * alpha)
    return 1 - t * t


def _circ_slope(x: Tensor, alpha: float) -> Tensor:
    r = torch.sqrt(x * x + alpha * alpha)
    return alpha**3 / (r * r * r)


def _erfc_slope(x: Tensor, alpha: float) -> Tensor:
    t = x * alpha
    return torch.exp(t * -t) * (2 / math.sqrt(math.pi))


METHODS: Mapping[str, Callable[[float], SpikeFunction]] = {
    "heaviside": lambda alpha: partial(surrogate.heaviside, strict=True),
    "super": lambda alpha: surrogate.SuperSpike(1.0, strict=True),
    "triangle": lambda alpha: surrogate.SpikeLinear(alpha, strict=True),
    "tanh": lambda alpha: surrogate.custom(partial(_tanh_slope, alpha=alpha), strict=True),
    "circ": lambda alpha: surrogate.custom(partial(_circ_slope, alpha=alpha), strict=True),
    "heavi_erfc": lambda alpha: surrogate.custom(partial(_erfc_slope, alpha=alpha), strict=True),
}


def spike_function(method: str, alpha: Value) -> SpikeFunction:
    """The spike function that Norse calls ``method``.

    Raises:
        ValueError: another name, with the names there are.
    """
    if method not in METHODS:
        names = ", ".join(map(repr, METHODS))
        hint = "; the gradient of a scan is exact already" if method == "adjoint" else ""
        raise ValueError(f"method={method!r}: method must be one of {names}{hint}")
    return METHODS[method](float(alpha))


class NorseNeuron(FlexSN, metaclass=PeerClass):
    """A FlexSN whose coefficients come in a named tuple and whose state goes in and out of every call.

    Args:
        p: the parameters; each becomes an attribute of the neuron: a number, a buffer, or a parameter if it is one.
            Norse's own instances, with the same fields, work as well. Buffers are no part of ``state_dict()``.
        dt: length of a step, in seconds.
        record_states: return the states of all steps instead of the last ones.
        step_mode: ``"m"``: inputs are sequences ``[T, ...]``; ``"s"``: single steps, as in Norse's cells.
        backend: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"torch"``.

    Shapes:
        input ``[T, *step]`` (``"m"``) or ``[*step]`` (``"s"``), spikes alike; states ``[*step]``. Integers, bools and
        sparse tensors count as the floats they stand for. The membrane of an initial state takes a gradient.

    Returns:
        ``(spikes, state)``, the state a named tuple.

    Raises:
        ValueError: ``dt <= 0``, a parameter that is neither number nor tensor or is missing, an unknown method.

    Attributes:
        parameter_type: the named tuple of the parameters; its defaults count where ``p`` is not given.
        state_type: the named tuple of the states.
        starts: the parameter that a state starts from; 0 for the others.
        exact_numbers: whether numbers are taken as they are; else as the tensors that Norse makes of them, rounded.
        sparse_spikes: whether spikes of a sparse input are sparse.
        single_precision: whether what numbers stand for are tensors of float32; changed by ``to()``.
    """

    integers_as_floats: ClassVar[bool] = True
    parameter_type: ClassVar[Any]
    state_type: ClassVar[Any]
    starts: ClassVar[Mapping[str, str]] = {}
    exact_numbers: ClassVar[bool] = False
    sparse_spikes: ClassVar[bool] = False

    def __init__(
        self,
        p: Any = None,
        dt: float = 0.001,
        *,
        record_states: bool = False,
        step_mode: str = "m",
        backend: str = "auto",
        **options: Unpack[SequenceOptions],
    ) -> None:
        super().__init__(step_mode=step_mode, backend=backend, store_state_seqs=record_states, **options)
        check_flag(self, record_states=record_states)
        check_number(self, above=0, dt=dt)
        made = self.parameter_type
        p = made() if p is None else p
        missing = [name for name in made._fields if not hasattr(p, name)]
        if missing:
            raise wrong(self, f"p must be {made.__name__}(...), it has no {missing[0]}", p=p)
        self.dt, self.single_precision = dt, torch.get_default_dtype() == torch.float32
        values = dict(self.values_of(p))
        self._names = tuple(values)
        if "method" in values:
            self.spike = spike_function(values["method"], values["alpha"])
        for name, value in values.items():
            self._hold(name, value)

    def _hold(self, name: str, value: Any) -> None:
        if name in ("method", "alpha") or callable(value):
            setattr(self, name, value)
            return
        tensor = float_tensor(self, name, value)
        if isinstance(value, nn.Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Tensor):
            self.register_buffer(name, tensor, persistent=False)
        else:
            setattr(self, name, value if self.exact_numbers else tensor.item())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NorseNeuron:
        held = torch.float32 if self.single_precision else torch.float64
        self.single_precision = fn(torch.zeros(1, dtype=held)).dtype == torch.float32
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self._names:  # of checkpoints from when all of them were saved
            if name not in self._parameters and prefix + name in state_dict:
                saved = state_dict.pop(prefix + name)
                if isinstance(held := getattr(self, name), Tensor):
                    held.copy_(saved)
                else:
                    setattr(self, name, saved.item())
        super()._load_from_state_dict(state_dict, prefix, *args)

    # ---- the tuples -----------------------------------------------------------------------------------------

    @classmethod
    def values_of(cls, p: Any) -> Iterator[tuple[str, Any]]:
        """The parameters of a tuple by name."""
        yield from ((name, getattr(p, name)) for name in cls.parameter_type._fields)

    @classmethod
    def parameters_of(cls, values: list[Any]) -> Any:
        """The tuple of these parameters."""
        return cls.parameter_type(*values)

    @staticmethod
    def states_of(state: Any) -> tuple[Any, ...]:
        """The states of a tuple, in the order of the core."""
        return tuple(state)

    @classmethod
    def state_of(cls, states: tuple[Any, ...]) -> Any:
        """The tuple of these states."""
        return cls.state_type(*states)

    @property
    def p(self) -> Any:
        """The parameters as they are now, numbers as tensors."""
        return self.parameters_of([self._shown_as(name) for name in self._names])

    def _shown_as(self, name: str) -> Any:
        value = getattr(self, name)
        return torch.as_tensor(value) if isinstance(value, float) and not self.exact_numbers else value

    def init_states(  # type: ignore[override]
        self, num_states: int, step_mode: str, *args: Tensor
    ) -> Sequence[Tensor]:
        """Each state at the parameter it starts from, else at 0; the membrane with a gradient."""
        zeros = FlexSN.init_states(num_states, step_mode, *args)
        states = [
            torch.as_tensor(getattr(self, self.starts[name])).detach().to(zero).expand_as(zero)
            if name in self.starts
            else zero
            for name, zero in zip(self.state_names, zeros, strict=True)
        ]
        return self._with_gradient(states)

    def _with_gradient(self, states: list[Tensor]) -> list[Tensor]:
        """The membrane as a leaf that takes a gradient, where any is taken."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # a graph cannot return one
            membrane = self.state_names.index("v")
            states[membrane] = states[membrane].clone().requires_grad_()
        return states

    def drive(self, x: Tensor) -> Tensor:
        """What the core is given of an input: here the input, in a layer what its weights make of it."""
        return x

    def initial_state(self, input_tensor: Tensor) -> Any:
        """The state that a call with this input and no state starts from."""
        return self.state_of(tuple(self.init_states(self.num_states, self.step_mode, self.drive(input_tensor))))

    def forward(  # type: ignore[override]
        self, input_tensor: Tensor, state: Any = None, **masks: Unpack[MaskArguments]
    ) -> tuple[Tensor, Any]:
        """Run all steps (``"m"``) or one (``"s"``) from ``state``, or from the initial state."""
        self.states = None if state is None else as_floats(*self.states_of(state))
        sparse = input_tensor.is_sparse
        drive = self.drive(input_tensor.to_dense() if sparse else input_tensor)
        spikes: Tensor = super().forward(drive, **masks)  # type: ignore[assignment]
        states = (self.state_seqs if self.store_state_seqs else self.states) or ()
        return spikes.to_sparse() if sparse and self.sparse_spikes else spikes, self.state_of(states)

    _advance = forward

    def extra_repr(self) -> str:
        parameters = ", ".join(f"{name}={shown(getattr(self, name))}" for name in self._names)
        return f"{parameters}, dt={self.dt}, step_mode={self.step_mode!r}, backend={self.backend!r}"


def per_step(neuron: Any, rate: Any) -> Any:
    """``dt·rate``, rounded where numbers stand for tensors, as their product is."""
    if isinstance(rate, Tensor) or not neuron.single_precision:
        return neuron.dt * rate
    return _single(_single(neuron.dt) * rate)


def _single(value: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def as_floats(*states: Any) -> tuple[Tensor, ...]:
    """States as tensors of floats: Norse's may be numbers, whole or sparse."""
    tensors = (torch.as_tensor(t.to_dense() if isinstance(t, Tensor) else t) for t in states)
    return tuple(t if t.is_floating_point() else t.to(torch.get_default_dtype()) for t in tensors)


class Cell(NorseNeuron):
    """A neuron that takes one step a call, unless it is told otherwise."""

    def __init__(self, p: Any = None, dt: float = 0.001, *, step_mode: str = "s", **options: Any) -> None:
        super().__init__(p, dt, step_mode=step_mode, **options)
