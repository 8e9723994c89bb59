"""SpikeTensor: spikes that take a byte each in memory and are a float tensor to everybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

__all__ = ["SpikeTensor"]

_aten = torch.ops.aten
_REARRANGING = {  # these move values about, and so what is stored
    *(_aten.alias, _aten.clone, _aten.detach, _aten.expand, _aten.permute, _aten.select, _aten.slice, _aten.split),
    *(_aten.split_with_sizes, _aten.squeeze, _aten.t, _aten.transpose, _aten.unbind, _aten.unsqueeze, _aten.view),
    *(_aten._reshape_alias, _aten._unsafe_view),
}


class SpikeTensor(Tensor):
    """A float tensor that is kept in a smaller dtype, for spikes and other values that fit there.

    It has the dtype and the gradients of the float tensor it stands for. Whatever reads it gets the floats, made
    anew each time; layers that keep their input for the backward pass keep the small tensor. Views and copies
    stay small. It cannot be changed in place.

    Attributes:
        stored: the plain tensor of the smaller dtype.

    Raises:
        RuntimeError: an operator would change it in place.

    Example:
        >>> import torch, flexsn
        >>> neuron = flexsn.FlexSN(lambda x, v: ((x > v).float(), x), output_dtype=torch.bool)
        >>> s = neuron(torch.tensor([[1.0], [0.5]]))
        >>> s.dtype, s.stored.dtype, s.sum().item()
        (torch.float32, torch.bool, 1.0)
    """

    stored: Tensor

    @staticmethod
    def __new__(cls, stored: Tensor, dtype: torch.dtype) -> SpikeTensor:
        make: Callable[..., Tensor] = Tensor._make_wrapper_subclass
        spikes = make(cls, stored.shape, strides=stored.stride(), dtype=dtype, device=stored.device)
        spikes.stored = stored  # type: ignore[attr-defined]
        return cast(SpikeTensor, spikes)

    @staticmethod
    def of(values: Tensor, dtype: torch.dtype) -> Tensor:
        """``values`` kept in ``dtype``; the gradient is as if nothing had been done."""
        packed: Tensor = _Pack.apply(values, dtype)  # type: ignore[no-untyped-call]
        return packed

    def dense(self) -> Tensor:
        """The plain float tensor, differentiable."""
        plain: Tensor = _Dense.apply(self)  # type: ignore[no-untyped-call]
        return plain

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """As of any tensor."""
        return self.dense().numpy(force=force)

    def tolist(self) -> Any:
        """As of any tensor."""
        return self.dense().tolist()

    def share_memory_(self) -> SpikeTensor:
        """As of any tensor: what is stored moves to shared memory."""
        self.stored.share_memory_()  # type: ignore[no-untyped-call]
        return self

    def is_shared(self) -> bool:
        """As of any tensor."""
        return bool(self.stored.is_shared())  # type: ignore[no-untyped-call]

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        with torch.no_grad():
            return f"SpikeTensor({self.dense()}, stored={self.stored.dtype})"

    def __tensor_flatten__(self) -> tuple[list[str], torch.dtype]:
        return ["stored"], self.dtype

    @staticmethod
    def __tensor_unflatten__(inner: Mapping[str, Tensor], dtype: torch.dtype, size: Any, stride: Any) -> SpikeTensor:
        return SpikeTensor(inner["stored"], dtype)

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if isinstance(first, SpikeTensor):
            same_dtype = func.overloadpacket is _aten._to_copy and kwargs.get("dtype") in (None, first.dtype)
            if same_dtype or func.overloadpacket in _REARRANGING:
                kwargs.pop("dtype", None)
                moved = func(first.stored, *args[1:], **kwargs)
                return tree_map_only(Tensor, lambda t: SpikeTensor(t, first.dtype), moved)
        _refuse_to_change(func, args, kwargs)
        args, kwargs = tree_map_only(SpikeTensor, lambda s: s.stored.to(s.dtype), (tuple(args), kwargs))
        return func(*args, **kwargs)


def _refuse_to_change(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    given = {**dict(zip((a.name for a in func._schema.arguments), args, strict=False)), **kwargs}
    for argument in func._schema.arguments:
        written = argument.alias_info is not None and argument.alias_info.is_write
        if written and isinstance(given.get(argument.name), SpikeTensor):
            raise RuntimeError(
                f"{func.overloadpacket.__name__} would change spikes that are stored as "
                f"{given[argument.name].stored.dtype} in place; use the form that returns a new tensor, "
                "or change a copy: spikes.dense().clone()"
            )


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, dtype: torch.dtype) -> SpikeTensor:
        return SpikeTensor(values.to(dtype), values.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spikes: SpikeTensor) -> Tensor:
        return spikes.stored.to(spikes.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]
