"""A surrogate whose slope is a function of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from flexsn.surrogate.base import Surrogate

__all__ = ["Custom", "custom"]


class Custom(Surrogate):
    """A surrogate made of one's own functions; see :func:`custom`."""

    def __init__(
        self,
        derivative: Callable[[Tensor], Any],
        primitive: Callable[[Tensor], Tensor] | None = None,
        spiking: bool = True,
        *,
        strict: bool = False,
    ) -> None:
        super().__init__(spiking, strict)
        for name, function in (("derivative", derivative), ("primitive", primitive)):
            if not callable(function) and not (name == "primitive" and function is None):
                raise ValueError(
                    f"custom({name}={function!r}): {name} must be a function of one tensor, "
                    f"got {type(function).__name__}"
                )
        self.derivative_function = derivative
        self.primitive_function = primitive or _no_primitive
        self.has_primitive = primitive is not None
        if not spiking and primitive is None:
            raise ValueError(
                "custom(primitive=None, spiking=False): spiking=False needs a primitive, and none was given"
            )

    def extra_repr(self) -> str:
        named = {"derivative": self.derivative_function}
        if self.has_primitive:
            named["primitive"] = self.primitive_function
        parts = [f"{name}={getattr(f, '__name__', type(f).__name__)}" for name, f in named.items()]
        return ", ".join([*parts, *filter(None, [super().extra_repr()])])


def _no_primitive(x: Tensor) -> Tensor:
    raise ValueError("custom(primitive=None): spiking=False needs a primitive, and none was given")


def custom(
    derivative: Callable[[Tensor], Any],
    primitive: Callable[[Tensor], Tensor] | None = None,
    spiking: bool = True,
    *,
    strict: bool = False,
) -> Custom:
    """A spike function whose backward multiplies the gradient by ``derivative(x)``.

    Args:
        derivative: ``f(x)``, made of pointwise torch operations; the result has the shape of ``x``.
            Tensors it closes over are constants: for a learnable coefficient, subclass :class:`Surrogate`.
        primitive: ``F(x)`` with ``F' = f``; needed for ``spiking=False`` only.
        spiking: ``False`` computes ``primitive(x)`` instead of the step.
        strict: ``True`` fires at ``x > 0``, ``False`` at ``x >= 0``.

    Raises:
        ValueError: something that cannot be called; ``spiking=False`` without a primitive.

    Example:
        >>> import torch
        >>> spike = custom(lambda x: 1 / (1 + 10 * x.abs()) ** 2)
        >>> x = torch.tensor([-0.1, 0.0, 0.4], requires_grad=True)
        >>> s = spike(x)
        >>> s.sum().backward()
        >>> s.tolist(), x.grad
        ([0.0, 1.0, 1.0], tensor([0.2500, 1.0000, 0.0400]))
    """
    return Custom(derivative, primitive, spiking, strict=strict)
