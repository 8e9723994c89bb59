"""Torch's half of a device that is not here: tensors that lie in ordinary memory and say they are on it.

Kernels of torch run on the CPU; kernels of flexsn are written down by the recording driver. What the device would have
to wait for is noted, and what torch would refuse (operands on two devices) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["Elsewhere"]

_CPU = torch.device("cpu")
_READS = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero"}


class Elsewhere(TorchDispatchMode):
    """Places what is made on ``cuda`` devices.

    Attributes:
        current: the device that torch has set.
        waits: what made the host wait for a device, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current = 0
        self.waits: list[str] = []
        self._places: dict[int, torch.device] = {}  # by storage

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Have torch answer as if there were such devices."""
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "current_device", lambda: self.current)
        patch.setattr(torch.cuda, "_exchange_device", self._exchange)
        patch.setattr(torch.cuda, "_maybe_exchange_device", self._exchange)
        patch.setattr(torch.cuda, "synchronize", lambda device=None: self.waits.append("synchronize"))
        patch.setattr(Tensor, "device", property(self.device_of), raising=False)
        patch.setattr(Tensor, "get_device", lambda t: self.device_of(t).index, raising=False)
        depth = torch._C._len_torch_dispatch_stack
        patch.setattr(torch._C, "_len_torch_dispatch_stack", lambda: depth() - 1)  # this mode is no one's trace
        for name in ("cpu", "numpy", "tolist", "to"):
            patch.setattr(Tensor, name, self._noted(name, getattr(Tensor, name)), raising=False)

    def device_of(self, tensor: Tensor) -> torch.device:
        """Where it says it is."""
        with torch._C.DisableTorchFunction():  # a core that is traced has not asked
            return self._places.get(tensor.untyped_storage()._cdata, _CPU)

    @contextmanager
    def none_waits(self) -> Iterator[None]:
        """As a capture of a CUDA graph, which fails where the host would wait."""
        del self.waits[:]
        yield
        assert not self.waits

    def _exchange(self, device: int) -> int:
        before, self.current = self.current, self.current if device < 0 else device
        return before

    def _noted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if args and isinstance(args[0], Tensor):  # as that one
                args = (self.device_of(args[0]), args[0].dtype)
            target = torch._C._nn._parse_to(*args, **kwargs)[0] if name == "to" else _CPU
            if target == _CPU and self.device_of(tensor) != _CPU:
                self.waits.append(name)
                if name in ("to", "cpu"):
                    tensor = tensor.clone()
                    self._places.pop(tensor.untyped_storage()._cdata)
            return method(tensor, *args, **kwargs)

        return call

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, dict(kwargs or {})
        given = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        places = {self.device_of(t) for t in given if t.dim()} or {self.device_of(t) for t in given}
        wanted = kwargs.get("device")
        if wanted is not None:
            kwargs["device"] = _CPU
            if wanted == _CPU and given:  # torch's C++ asks for where it takes the tensors to be
                wanted = None
        if name in _READS and places != {_CPU}:
            self.waits.append(name)
        if name == "_to_copy" and wanted is not None and {wanted} != places and not kwargs.get("non_blocking"):
            self.waits.append(f"copy from {places.pop()} to {wanted}")
        elif name not in ("_to_copy", "copy_") and len(places) > 1:
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, found {places}")
        out = func(*args, **kwargs)
        old = {t.untyped_storage()._cdata for t in given}
        place = wanted if wanted is not None else next(iter(places), _CPU)

        def put(result: Any) -> None:
            if isinstance(result, Tensor) and (key := result.untyped_storage()._cdata) not in old:
                self._places[key] = place

        tree_map(put, out)
        return out
