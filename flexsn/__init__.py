"""flexsn: write one time step of a spiking neuron, get fused, trainable multi-step kernels."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from flexsn.errors import (
    BackendError,
    CoreError,
    FallbackWarning,
    FlexSNError,
    GradientError,
    UnsupportedOpError,
)
from flexsn.execution.spike_tensor import SpikeTensor
from flexsn.modules.explain import explain
from flexsn.modules.flexsn import FlexSN
from flexsn.modules.kernel import FlexSNKernel
from flexsn.modules.recurrent import Recurrent
from flexsn.modules.scan import scan
from flexsn.modules.warmup import warmup

if TYPE_CHECKING:
    from flexsn import functional, kernels, neurons, nir, plot, surrogate
    from flexsn.checking import check

    __version__: str

__all__ = [
    "BackendError",
    "CoreError",
    "FallbackWarning",
    "FlexSN",
    "FlexSNError",
    "FlexSNKernel",
    "GradientError",
    "Recurrent",
    "SpikeTensor",
    "UnsupportedOpError",
    "check",
    "explain",
    "functional",
    "kernels",
    "neurons",
    "nir",
    "plot",
    "scan",
    "surrogate",
    "warmup",
]

if not TYPE_CHECKING:  # a type checker would take any name to be there
    _ROOMS = ("functional", "kernels", "neurons", "nir", "plot", "surrogate")

    def __getattr__(name: str) -> object:
        """A room of its own, or what no call needs, loaded when first used."""
        if name in _ROOMS:
            return import_module(f"flexsn.{name}")
        if name == "__version__":
            return import_module("importlib.metadata").version("flexsn")  # pyproject.toml alone has it
        if name == "check":
            return import_module("flexsn.checking").check
        module = sys.modules[__name__]  # from which Python makes its "Did you mean"
        raise AttributeError(f"module 'flexsn' has no attribute {name!r}", name=name, obj=module)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_ROOMS, "__version__", "check"})
