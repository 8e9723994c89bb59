"""flexsn: write one time step of a spiking neuron, get fused, trainable multi-step kernels."""

from flexsn.errors import (
    BackendError,
    CoreError,
    FallbackWarning,
    FlexSNError,
    GradientError,
    UnsupportedOpError,
)
from flexsn.execution.scan import scan
from flexsn.execution.spike_tensor import SpikeTensor
from flexsn.modules.explain import explain
from flexsn.modules.flexsn import FlexSN
from flexsn.modules.kernel import FlexSNKernel
from flexsn.modules.warmup import warmup

__all__ = [
    "BackendError",
    "CoreError",
    "FallbackWarning",
    "FlexSN",
    "FlexSNError",
    "FlexSNKernel",
    "GradientError",
    "SpikeTensor",
    "UnsupportedOpError",
    "explain",
    "scan",
    "warmup",
]
