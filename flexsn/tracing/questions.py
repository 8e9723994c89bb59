"""What a core's Python asks of tensors while it is recorded.

The recorder sees operators. It does not see a question that is answered without one: a shape, a flag, an address, a
value turned into text. Each answer would become a constant of the kernel. A function mode sees them all, in the core's
own Python, and each is one of four kinds:

- *of dtype and device*: the same for every call the trace is for.
- *of shape*: true of the call the core is traced for, so it is answered with that call's own step shape, and the trace
  holds for calls of that shape alone. Functions that are given that shape get the one that is traced at.
- *of a captured tensor's* shape and flags: part of what the trace is for.
- *anything else*: refused, with its line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from flexsn.errors import UnsupportedOpError, call_for_user, core_line

__all__ = ["AsksShape", "LargerThanExample", "Questions"]

_OF_DTYPE = {
    *("dtype", "device", "layout", "is_floating_point", "is_complex", "is_signed", "element_size", "itemsize"),
    *("is_cuda", "is_cpu", "is_sparse", "is_quantized", "is_meta", "get_device", "is_nested", "names", "is_mkldnn"),
    *("result_type", "can_cast", "promote_types", "is_neg", "is_conj", "is_inference", "is_xpu", "is_mps"),
}
_OF_SHAPE = {"shape", "size", "numel", "nelement", "dim", "ndim", "ndimension", "__len__", "is_same_size"}
_OF_FLAGS = {"requires_grad", "is_leaf"}
_WRITES = {"__setitem__"}  # return nothing, and are operators
_GIVEN_SHAPES = {
    *("view", "reshape", "expand", "broadcast_to", "zeros", "ones", "empty", "full"),
    *("new_zeros", "new_ones", "new_empty", "new_full"),
}
_PUTS_NUMBERS_IN = {"tensor", "as_tensor", "new_tensor", "asarray"}


class AsksShape(Exception):
    """The core asks for the shape of the step, so it has to be traced for one."""


class LargerThanExample(Exception):
    """The core asks for the shape of a value that is larger than the examples."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__(f"a value of shape {tuple(shape)}")
        self.shape = shape


class Questions(TorchFunctionMode):
    """Sees every question; refuses what no trace can answer.

    Args:
        is_shaped: whether a tensor's shape may be the step's.
        example: the step shape that is traced at.
        answer: the step shape of the call; ``None`` if the trace shall hold for any.
        growing: the example may still be too small, and whoever asks says how large a value is.

    Raises:
        LargerThanExample: the example is too small.
        AsksShape: the core asks for the shape of a step value, and there is no answer.
        UnsupportedOpError: it asks for anything else that would become a constant.
    """

    def __init__(
        self,
        is_shaped: Callable[[Tensor], bool],
        example: torch.Size,
        answer: torch.Size | None,
        growing: bool = False,
    ) -> None:
        super().__init__()
        self._is_shaped, self._example, self._answer, self._growing = is_shaped, example, answer, growing
        # made now: nothing that is made later goes unrecorded
        self._answering = None if answer is None else torch.empty(answer, device="meta")

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, (name, sets) = kwargs or {}, _name(func)
        tensors = [a for a in _leaves((args, kwargs)) if isinstance(a, Tensor)]
        shaped = any(map(self._is_shaped, tensors))
        if sets:
            raise _refusal(f"sets {name} of a tensor")
        if _is_replaced(func):
            raise _refusal(f"calls {name}, put in the place of a function of torch")
        if name in _OF_DTYPE or (name in _OF_SHAPE | _OF_FLAGS and not shaped):
            return call_for_user(func, *args, **kwargs)
        if name in _OF_SHAPE:
            return call_for_user(func, *tree_map_only(Tensor, self._shaped, args), **kwargs)
        if name in _PUTS_NUMBERS_IN and any(isinstance(a, Tensor) for a in _inside(args, kwargs)):
            raise _refusal(f"puts the values of tensors into {name}(...)")
        if self._answer is not None and name in _GIVEN_SHAPES:
            args, kwargs = self._at_example(args), self._at_example(kwargs)
        out = call_for_user(func, *args, **kwargs)
        if tensors and name not in _WRITES and not any(isinstance(o, Tensor) for o in _leaves(out)):
            raise _refusal(f"asks for {name.strip('_')} of a tensor")
        return out

    def _shaped(self, value: Tensor) -> Tensor:
        """A tensor with the shape a step value has in the call."""
        if self._answering is None:
            raise AsksShape
        if value.shape != self._example:
            if self._growing:
                raise LargerThanExample(value.shape)
            raise _refusal(f"asks for the shape {tuple(value.shape)} of a value that is not of the step's shape")
        return self._answering

    def _at_example(self, value: Any) -> Any:
        """The same arguments with the shape that is traced at in the place of the call's."""
        if isinstance(value, dict):
            return {key: self._at_example(item) for key, item in value.items()}
        if not isinstance(value, (list, tuple)):
            return value
        for first in (0, 1):  # x.view(2, 4) has the tensor first
            if all(type(n) is int for n in value[first:]) and tuple(value[first:]) == self._answer:
                return (*value[:first], *self._example)
        return type(value)(map(self._at_example, value)) if type(value) in (list, tuple) else value


def _is_replaced(func: Callable[..., Any]) -> bool:
    """Whether a function of torch written in Python was replaced: a mode gets what stands there, and it ran twice."""
    if type(func) is not FunctionType or func.__globals__["__name__"].startswith("torch."):
        return False
    return any(func is there for module in (torch.functional, torch.nn.functional) for there in vars(module).values())


def _name(func: Callable[..., Any]) -> tuple[str, bool]:
    """What a function or property is called, and whether the property is set."""
    name = getattr(func, "__name__", str(func))
    if name in ("__get__", "__set__", "__delete__"):
        return str(getattr(func, "__self__", func).__name__), name != "__get__"
    return name, False


def _inside(args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """What is inside the lists among some arguments."""
    lists = [a for a in (*args, *kwargs.values()) if isinstance(a, (list, tuple))]
    return list(_leaves(lists))


def _leaves(value: Any) -> Iterator[Any]:
    """What is in a list, tuple or dict, and in those inside it; anything else is a leaf."""
    if isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    else:
        yield value


def _refusal(what: str) -> UnsupportedOpError:
    return UnsupportedOpError(
        f"the core {what}",
        where=core_line(),
        why="the answer is one of Python's, for the examples the core is traced on, not of every step and call",
        hint="compute with tensors alone, or keep it a number or a buffer of the core",
    )
