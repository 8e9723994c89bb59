"""Triton's half of a device that is not here: a driver that compiles for it and writes every launch down.

The kernel is compiled as for a card of that kind; what would be loaded and started there is noted instead. Whatever
holds for every launch is checked at each.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from elsewhere import Elsewhere
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from flexsn.kernels.triton.offline import POINTERS, TARGETS

__all__ = ["Launch", "RecordingDriver"]


@dataclass(frozen=True)
class Module:
    """A kernel on a device.

    Attributes:
        device: it was loaded on.
        process: that loaded it.
        assembly: its text.
    """

    device: int
    process: int
    binary: bytes


@dataclass(frozen=True)
class Launch:
    """What a device was asked to do.

    Attributes:
        source: of the kernel, with what it was specialised for.
        metadata: of the compilation.
        module: the loaded kernel.
        grid: programs.
        device, stream: where it was started.
        arguments: by name.
    """

    source: Any
    metadata: Any
    module: Module
    grid: tuple[int, int, int]
    device: int
    stream: int
    arguments: dict[str, Any]

    @property
    def pointers(self) -> dict[str, int]:
        """Addresses of the tensors."""
        return {name: a.data_ptr() for name, a in self.arguments.items() if isinstance(a, Tensor)}

    @property
    def aligned(self) -> set[str]:
        """The arguments that the kernel takes for multiples of 16."""
        names = list(self.arguments)
        attributes = self.source.attrs.items()
        return {names[key[0]] for key, found in attributes if ["tt.divisibility", 16] in found}

    def check(self) -> None:
        """What the compiled kernel takes for granted, and what a device would fault at."""
        signature, constants = self.source.signature, self.source.constants
        assert list(signature) == list(self.arguments)
        for index, (name, kind) in enumerate(signature.items()):
            value = self.arguments[name]
            if isinstance(value, Tensor):
                assert kind == POINTERS[value.dtype], name
                assert value.get_device() == self.device, f"{name} is on {value.device}, the kernel on {self.device}"
            elif kind == "constexpr":
                assert constants[(index,)] == value, name
            else:
                bits = {"i32": 31, "i64": 63}[kind]
                assert type(value) is int and -(2**bits) <= value < 2**bits, name
        for name in self.aligned:
            value = self.arguments[name]
            assert (value.data_ptr() if isinstance(value, Tensor) else value) % 16 == 0, name
        assert self.module.device == self.device and self.module.process == os.getpid()
        for scratch in ("global_scratch_size", "profile_scratch_size"):  # nobody would allocate it
            assert not getattr(self.metadata, scratch, 0)
        x, y, z = self.grid
        assert 1 <= x < 2**31 and y == z == 1


class RecordingDriver(DriverBase):
    """Devices that write down.

    Args:
        target: which kind, a key of ``offline.TARGETS``.
        elsewhere: what torch thinks of them.

    Attributes:
        launches: all so far.
        loaded, unloaded: kernels brought to a device, and taken away.
        streams: the current one of a device, if it is not the default.
    """

    def __init__(self, target: str, elsewhere: Elsewhere) -> None:
        super().__init__()
        self.target, self.elsewhere = GPUTarget(*TARGETS[target]), elsewhere
        self.launches: list[Launch] = []
        self.loaded: list[Module] = []
        self.unloaded: list[Module] = []
        self.streams: dict[int, int] = {}
        self._functions: list[Any] = []
        self.utils = self
        self.launcher_cls = self._launcher

    def forget(self) -> None:
        """Leave nothing that a driver after this one would be asked to unload: Triton keeps kernels for good."""
        for function in self._functions:
            for kernels, *_ in function.device_caches.values():
                for kernel in kernels.values():
                    kernel.module = None
            function.device_caches.clear()

    # ---- what Triton asks a driver ---------------------------------------------------------------------------

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return int(torch.cuda.current_device())

    def get_current_stream(self, device: int) -> int:
        return self.streams.get(device, 0)

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 64 * 1024}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[Module, Module, int, int, int]:
        """Module, function, registers, spills, and the most threads of a block."""
        self.elsewhere.waits.append("a kernel is loaded")
        self.loaded.append(module := Module(device, os.getpid(), binary))
        return module, module, 32, 0, 1024

    def unload_module(self, module: Module) -> None:
        self.unloaded.append(module)

    def _launcher(self, source: Any, metadata: Any) -> Callable[..., None]:
        names = source.fn.arg_names
        self._functions.append(source.fn)

        def launch(x: int, y: int, z: int, stream: int, function: Module, packed: Any, *rest: Any) -> None:
            _extra, _enter, _leave, *arguments = rest
            device = self.get_current_device()
            assert len(arguments) == len(names), f"{len(arguments)} arguments for {len(names)} parameters"
            named = dict(zip(names, arguments, strict=True))
            found = Launch(source, metadata, function, (x, y, z), device, stream, named)
            found.check()
            self.launches.append(found)

        return launch

    # ---- what it asks one that autotunes; the kernels of flexsn do not ----------------------------------------

    def map_python_to_cpp_type(self, ty: str) -> str:
        raise NotImplementedError

    def get_active_torch_device(self) -> torch.device:
        raise NotImplementedError

    def get_benchmarker(self) -> Any:
        raise NotImplementedError
