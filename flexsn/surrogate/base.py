"""What every surrogate shares: the step forward, the stated slope backward, checked coefficients."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["FINITE", "POSITIVE", "Coefficient", "Rule", "Surrogate", "heaviside", "magnitude"]

Coefficient: TypeAlias = float | Tensor
PointwiseFunction: TypeAlias = Callable[..., Any]


class Rule(NamedTuple):
    """What a coefficient has to satisfy, in words and as a test of a number or, elementwise, of a tensor."""

    words: str
    holds: Callable[[Any], Any]


FINITE = Rule("a finite number", lambda value: value == value)
POSITIVE = Rule("a finite number > 0", lambda value: value > 0)


def heaviside(x: Tensor, strict: bool = False) -> Tensor:
    """The step function, in the dtype of ``x``: 1 where ``x >= 0`` (``x > 0`` if ``strict``), else 0.

    NaN gives 0, and ``-0.0`` counts as 0. Nothing flows back through it.

    >>> heaviside(torch.tensor([-1.0, -0.0, 0.0, 2.0]))
    tensor([0., 1., 1., 1.])
    """
    return (x > 0 if strict else x >= 0).to(x)


def magnitude(x: Tensor) -> Tensor:
    """``|x|`` whose autograd derivative at 0 is 1 instead of 0.

    A primitive that is smooth across 0 but written with ``abs`` would lose its slope at exactly 0.
    """
    return torch.where(x < 0, -x, x)


class _Spike(torch.autograd.Function):
    """Forward the step of ``x``; backward ``g * f(x)`` to ``x``, and ``g`` as it is to ``smooth``.

    ``smooth`` is None, or the primitive of the detached ``x``: through it, and only through it, a learnable
    coefficient sees its gradient. Its value is not used.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        smooth: Tensor | None,
        derivative: PointwiseFunction,
        strict: bool,
        *coefficients: Coefficient,
    ) -> Tensor:
        return heaviside(x, strict)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, ctx.derivative, _, *coefficients = inputs
        ctx.constants = [None if isinstance(c, Tensor) else c for c in coefficients]
        ctx.save_for_backward(x, *(c for c in coefficients if isinstance(c, Tensor)))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (grad_output,) = grad_outputs
        x, *saved = ctx.saved_tensors
        tensors = iter(saved)
        coefficients = [next(tensors) if c is None else c for c in ctx.constants]
        grad_x = None
        if ctx.needs_input_grad[0]:
            slope = ctx.derivative(x, *coefficients)
            grad_x = grad_output if isinstance(slope, float) and slope == 1.0 else grad_output * slope
        grad_smooth = grad_output if ctx.needs_input_grad[1] else None
        return grad_x, grad_smooth, None, None, *(None for _ in coefficients)


class Surrogate(nn.Module):
    r"""Base of all spike functions: a step forward, a smooth slope backward.

    .. math:: s = \Theta(x), \qquad \frac{\partial L}{\partial x} := \frac{\partial L}{\partial s}\, f(x)

    A subclass names its coefficients with their rules and states two pure, pointwise functions of
    ``(x, *coefficients)``: ``derivative_function``, ``f``, and ``primitive_function``, ``F`` with ``F' = f``.

    Args:
        spiking: ``False`` computes the smooth primitive ``F(x)`` instead of the step, so that ordinary
            autograd and ``gradcheck`` apply.
        strict: ``True`` fires at ``x > 0``, ``False`` at ``x >= 0``.
        coefficients: by name; a number, or a tensor (``nn.Parameter`` included) whose shape broadcasts
            into the shape of ``x``. A tensor that requires grad receives the gradient of the primitive,
            ``sum(grad_s * dF(x)/d coefficient)``.

    Shapes:
        input and output the same, any shape. dtype: that of the input, any floating type.

    Raises:
        ValueError: a coefficient that is out of range or neither a real number nor a floating-point tensor, a flag
            that is not a bool; with the value and the rule.

    Example:
        >>> class Cosine(Surrogate):
        ...     rules = {"alpha": POSITIVE}
        ...     def __init__(self, alpha=1.0, spiking=True, *, strict=False):
        ...         super().__init__(spiking, strict, alpha=alpha)
        ...     @staticmethod
        ...     def derivative_function(x, alpha):
        ...         return torch.cos(x * alpha) * alpha
        ...     @staticmethod
        ...     def primitive_function(x, alpha):
        ...         return torch.sin(x * alpha)
        >>> x = torch.tensor([-1.0, 0.0], requires_grad=True)
        >>> s = Cosine(alpha=2.0)(x)
        >>> s.sum().backward()
        >>> s.tolist(), x.grad
        ([0.0, 1.0], tensor([-0.8323,  2.0000]))
    """

    rules: ClassVar[dict[str, Rule]] = {}
    derivative_function: PointwiseFunction
    primitive_function: PointwiseFunction

    def __init__(self, spiking: bool = True, strict: bool = False, **coefficients: Any) -> None:
        super().__init__()
        for name, flag in {"spiking": spiking, "strict": strict}.items():
            if type(flag) is not bool:
                raise ValueError(f"{type(self).__name__}({name}={flag!r}): {name} must be True or False")
        self.spiking = spiking
        self.strict = strict
        for name, rule in self.rules.items():
            value = self._checked(name, coefficients[name], rule)
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def _checked(self, name: str, value: Any, rule: Rule) -> Any:
        call = f"{type(self).__name__}({name}={value!r})"
        if isinstance(value, bool) or not isinstance(value, (Tensor, numbers.Real)):
            raise ValueError(f"{call}: {name} must be a number or a tensor, got {type(value).__name__}")
        if isinstance(value, Tensor):
            if not value.is_floating_point():
                raise ValueError(f"{call}: {name} must be a floating-point tensor, got {value.dtype}")
            seen = value.detach()
            holds = seen.is_meta or bool((torch.isfinite(seen) & rule.holds(seen)).all())
        else:
            value = float(value)
            holds = math.isfinite(value) and rule.holds(value)
        if not holds:
            raise ValueError(f"{call}: {name} must be {rule.words}")
        return value

    def _coefficients(self) -> tuple[Coefficient, ...]:
        return tuple(getattr(self, name) for name in self.rules)

    def derivative(self, x: Tensor) -> Tensor | float:
        """``f(x)``, the slope used in the backward pass (a plain ``1.0`` where it is constant)."""
        slope: Tensor | float = self.derivative_function(x, *self._coefficients())
        return slope

    def primitive(self, x: Tensor) -> Tensor:
        """``F(x)``, the smooth function whose derivative is ``f``."""
        y: Tensor = self.primitive_function(x, *self._coefficients())
        return y

    def set_spiking_mode(self, spiking: bool) -> None:
        """Switch between the step (``True``) and the smooth primitive (``False``)."""
        self.spiking = spiking

    def forward(self, x: Tensor) -> Tensor:
        if not self.spiking:
            return self.primitive(x)
        coefficients = self._coefficients()
        smooth = None
        if torch.is_grad_enabled() and any(isinstance(c, Tensor) and c.requires_grad for c in coefficients):
            smooth = self.primitive_function(x.detach(), *coefficients)
        spike: Tensor = _Spike.apply(  # type: ignore[no-untyped-call]
            x, smooth, self.derivative_function, self.strict, *coefficients
        )
        return spike

    def extra_repr(self) -> str:
        parts = [f"{name}={_shown(getattr(self, name))}" for name in self.rules]
        parts += ["spiking=False"] * (not self.spiking) + ["strict=True"] * self.strict
        return ", ".join(parts)


def _shown(value: Coefficient) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    kind = "learnable" if value.requires_grad else "tensor"
    shown = tuple(value.shape) if value.dim() or value.is_meta else f"{value.item():.6g}"
    return f"{kind} {shown}"
