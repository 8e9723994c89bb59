"""What Norse's neurons share: parameters in a tuple, the state as argument and result, the spike by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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

__all__ = ["NorseNeuron", "Value", "spike_function"]

Value = float | Tensor


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


class NorseNeuron(FlexSN):
    """A FlexSN whose coefficients come in a named tuple and whose state goes in and out of every call.

    Args:
        p: the parameters; each becomes an attribute of the neuron: a buffer, or a parameter if it is one. Norse's
            own instances, with the same fields, work as well.
        dt: length of a step, in seconds.
        record_states: return the states of all steps instead of the last ones.
        step_mode: ``"m"``: inputs are sequences ``[T, ...]``; ``"s"``: single steps, as in Norse's cells.
        backend: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"torch"``.

    Shapes:
        input ``[T, *step]`` (``"m"``) or ``[*step]`` (``"s"``), spikes alike; states ``[*step]``.

    Returns:
        ``(spikes, state)``, the state a named tuple.

    Raises:
        ValueError: ``dt <= 0``, a parameter that is neither number nor tensor or is missing, an unknown method.

    Attributes:
        parameter_type: the named tuple of the parameters; its defaults count where ``p`` is not given.
        state_type: the named tuple of the states.
        starts: the parameter that a state starts from; 0 for the others.
        constants: whether numbers stay Python numbers; else they become tensors, as in Norse, which rounds
            their products to the precision of the tensor.
    """

    integers_as_floats: ClassVar[bool] = True
    parameter_type: ClassVar[Any]
    state_type: ClassVar[Any]
    starts: ClassVar[Mapping[str, str]] = {}
    constants: ClassVar[bool] = False

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
        self.dt = dt
        self.method, self.alpha = p.method, p.alpha
        self.spike = spike_function(p.method, p.alpha)
        for name in made._fields:
            if name not in ("method", "alpha"):
                self._hold(name, getattr(p, name))

    def _hold(self, name: str, value: Any) -> None:
        tensor = float_tensor(self, name, value)
        if isinstance(value, nn.Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Tensor) or not self.constants:
            self.register_buffer(name, tensor)
        else:
            setattr(self, name, value)

    @property
    def p(self) -> Any:
        """The parameters as they are now."""
        return self.parameter_type(*(getattr(self, name) for name in self.parameter_type._fields))

    def init_states(  # type: ignore[override]
        self, num_states: int, step_mode: str, *args: Tensor
    ) -> Sequence[Tensor]:
        """Each state at the parameter it starts from, without gradient; else at 0."""
        zeros = FlexSN.init_states(num_states, step_mode, *args)
        return [
            getattr(self, self.starts[name]).detach().to(zero.dtype) if name in self.starts else zero
            for name, zero in zip(self.state_names, zeros, strict=True)
        ]

    def forward(  # type: ignore[override]
        self, input_tensor: Tensor, state: Any = None, **masks: Unpack[MaskArguments]
    ) -> tuple[Tensor, Any]:
        """Run all steps (``"m"``) or one (``"s"``) from ``state``, or from the initial state."""
        self.states = None if state is None else tuple(state)
        spikes: Tensor = super().forward(input_tensor, **masks)  # type: ignore[assignment]
        return spikes, self.state_type(*((self.state_seqs if self.store_state_seqs else self.states) or ()))

    def extra_repr(self) -> str:
        parameters = ", ".join(f"{name}={shown(value)}" for name, value in self.p._asdict().items())
        return f"{parameters}, dt={self.dt}, step_mode={self.step_mode!r}, backend={self.backend!r}"
