"""Coefficient: a number of a neuron's equation, checked when set, a tensor or learnable when asked for."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flexsn.neurons.arguments import Number, wrong

__all__ = ["Coefficient", "cos", "exp", "log", "sin"]


class Coefficient:
    """A class attribute that names one coefficient of a neuron and the range it lives in.

    ``neuron.tau`` reads as what the equation needs: a Python number (a constant of the kernel), a tensor that
    broadcasts against the step shape, or, if learnable, a tensor computed from a parameter.

    =====================  =========================  ==================================
    range                  learnable value            parameter
    =====================  =========================  ==================================
    any number             the parameter itself       ``name``
    ``above=a``            ``a + exp(raw)``           ``name_raw``
    ``below=b``            ``b − exp(raw)``           ``name_raw``
    ``above=a, below=b``   ``a + (b − a) σ(raw)``     ``name_raw``
    =====================  =========================  ==================================

    so no step of an optimizer leaves the range. With ``above=1`` this is PLIF's ``1/tau = sigmoid(−raw)``.

    Args:
        above: the value is greater than this.
        below: the value is less than this.
        closed: a constant may also sit on the bounds; a learnable value never does.
        optional: ``None`` is allowed.
    """

    name: str

    def __init__(
        self,
        above: float | None = None,
        below: float | None = None,
        *,
        closed: bool = False,
        optional: bool = False,
    ) -> None:
        self.above, self.below, self.closed, self.optional = above, below, closed, optional

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @property
    def bounded(self) -> bool:
        return self.above is not None or self.below is not None

    @property
    def raw_name(self) -> str:
        """The parameter behind a learnable coefficient."""
        return f"{self.name}_raw" if self.bounded else self.name

    def rule(self, closed: bool) -> str:
        """The range in words."""
        low, high = (">=", "<=") if closed else (">", "<")
        bounds = (low, self.above), (high, self.below)
        words = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
        return words or "a number, not NaN"

    # ---- reading: numbers sit in the neuron's __dict__, which Python looks into before it comes here ------

    def __get__(self, neuron: nn.Module | None, owner: type) -> Any:
        if neuron is None:
            return self
        for tensors in (neuron._parameters, neuron._buffers):
            if self.name in tensors:
                return tensors[self.name]
        raw = neuron._parameters.get(self.raw_name)
        if raw is None:
            raise AttributeError(f"{owner.__name__} has no {self.name} yet")
        return self._from_raw(raw)

    # ---- writing ------------------------------------------------------------------------------------------

    def start(self, neuron: nn.Module, value: Any, learnable: bool, shape: Sequence[int]) -> None:
        """Set the first value, as a constant, a buffer or a parameter of ``shape``."""
        value = self.checked(neuron, value, closed=self.closed and not learnable)
        if learnable:
            if value is None:
                raise wrong(neuron, "None cannot be learned", **{self.name: None})
            raw = self._to_raw(value)
            if shape or not isinstance(raw, Tensor):
                raw = torch.as_tensor(raw, dtype=_dtype_of(raw)).expand(tuple(shape))
            neuron.register_parameter(self.raw_name, nn.Parameter(raw.detach().clone()))
        elif isinstance(value, nn.Parameter):
            neuron.register_parameter(self.name, value)
        elif isinstance(value, Tensor):
            neuron.register_buffer(self.name, value)
        else:
            neuron.__dict__[self.name] = value

    def assign(self, neuron: nn.Module, value: Any) -> None:
        """Set a later value; a learnable coefficient stays learnable and takes it into its parameter."""
        raw = neuron._parameters.get(self.raw_name)
        learnable = raw is not None and not isinstance(value, nn.Parameter)
        value = self.checked(neuron, value, closed=self.closed and not learnable)
        if raw is not None and learnable:
            with torch.no_grad():
                raw.copy_(torch.as_tensor(self._to_raw(value)))
            return
        for tensors in (neuron.__dict__, neuron._buffers, neuron._parameters):
            tensors.pop(self.name, None)
        if isinstance(value, nn.Parameter):
            neuron._parameters.pop(self.raw_name, None)
            neuron.register_parameter(self.name, value)
        else:
            neuron.__dict__[self.name] = value

    def checked(self, neuron: nn.Module, value: Any, closed: bool = False) -> Any:
        """``value`` as a float, tensor or ``None``, or ``ValueError`` with the rule it breaks."""
        given = {self.name: value}
        if value is None and self.optional:
            return None
        if isinstance(value, Tensor):
            if not value.is_floating_point():
                raise wrong(neuron, f"{self.name} must have a floating dtype, got {value.dtype}", **given)
            holds = value.is_meta or not self.bounded or bool(self._holds(value.detach(), closed).all())
        elif type(value) is not bool and isinstance(value, numbers.Real):
            value = float(value)
            holds = not math.isnan(value) and bool(self._holds(value, closed))
        else:
            kinds = "a number, a tensor or None" if self.optional else "a number or a tensor"
            raise wrong(neuron, f"{self.name} must be {kinds}, got {type(value).__name__}", **given)
        if not holds:
            raise wrong(neuron, f"{self.name} must be {self.rule(closed)}", **given)
        return value

    def _holds(self, value: Any, closed: bool) -> Any:
        holds: Any = True
        if self.above is not None:
            holds = value >= self.above if closed else value > self.above
        if self.below is not None:
            holds = holds & (value <= self.below if closed else value < self.below)
        return holds

    def _from_raw(self, raw: Tensor) -> Tensor:
        if self.above is None:
            return raw if self.below is None else self.below - raw.exp()
        if self.below is None:
            return self.above + raw.exp()
        return self.above + (self.below - self.above) * raw.sigmoid()

    def _to_raw(self, value: Number) -> Any:
        if self.above is None:
            return value if self.below is None else log(self.below - value)
        if self.below is None:
            return log(value - self.above)
        return log((value - self.above) / (self.below - value))


def _dtype_of(value: Number) -> torch.dtype:
    return value.dtype if isinstance(value, Tensor) else torch.get_default_dtype()


def exp(value: Number) -> Any:
    """``e**value`` of a number, in double precision, or of a tensor."""
    return value.exp() if isinstance(value, Tensor) else math.exp(value)


def log(value: Number) -> Any:
    """Natural logarithm of a number or a tensor."""
    return value.log() if isinstance(value, Tensor) else math.log(value)


def sin(value: Number) -> Any:
    """Sine of a number or a tensor."""
    return value.sin() if isinstance(value, Tensor) else math.sin(value)


def cos(value: Number) -> Any:
    """Cosine of a number or a tensor."""
    return value.cos() if isinstance(value, Tensor) else math.cos(value)
