"""Backends: which exist, which can run here, and which one a call gets."""

from __future__ import annotations

import os
from functools import lru_cache

import torch

from flexsn.errors import BackendError
from flexsn.execution.forward import Runtime

__all__ = ["BACKENDS", "check_backend", "choose", "runtime", "supported_backends"]

BACKENDS = ("auto", "triton", "cpp", "torch")


def check_backend(backend: str) -> str:
    """Return ``backend`` if it names one, else raise ``ValueError``."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")
    return backend


def supported_backends() -> tuple[str, ...]:
    """The backends that can run on this machine, fastest first."""
    return (*(name for name in ("triton", "cpp") if _why_not(name) is None), "torch")


def choose(backend: str, device: torch.device) -> tuple[str, BackendError | None]:
    """The backend for tensors on ``device``, and why ``"auto"`` did not get a faster one.

    Raises:
        BackendError: a backend asked for by name cannot run on that device or machine.
    """
    if backend == "torch":
        return backend, None
    if backend == "auto":
        backend = "cpp" if device.type == "cpu" else "triton"
        problem = _why_not(backend) or _wrong_device(backend, device)
        return ("torch", problem) if problem else (backend, None)
    problem = _why_not(backend) or _wrong_device(backend, device)
    if problem:
        raise problem
    return backend, None


def runtime(backend: str) -> Runtime:
    """The module that compiles and launches kernels for ``"cpp"`` or ``"triton"``."""
    if backend == "cpp":
        from flexsn.kernels.cpp import runtime as cpp

        return cpp
    from flexsn.kernels.triton import runtime as triton

    return triton


def interpreting() -> bool:
    """Whether Triton kernels run on the CPU, by its interpreter."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


def _wrong_device(backend: str, device: torch.device) -> BackendError | None:
    fits = device.type == "cpu" if backend == "cpp" else device.type == "cuda" or interpreting()
    if fits:
        return None
    where = "CPU tensors" if backend == "cpp" else "CUDA and ROCm tensors, or the CPU under TRITON_INTERPRET=1"
    return BackendError(
        f'backend="{backend}" cannot run on {device}', why=f"it is for {where}", hint='use backend="auto"'
    )


def _why_not(backend: str) -> BackendError | None:
    if backend == "triton":
        return _why_not_triton()
    from flexsn.kernels.cpp.runtime import compiler

    try:
        compiler()
    except BackendError as error:
        return error
    return None


@lru_cache(maxsize=1)
def _why_not_triton() -> BackendError | None:
    try:
        import triton  # noqa: F401
    except Exception as error:
        return BackendError(f"Triton cannot be imported ({error})", hint='pip install "flexsn[triton]"')
    if not (torch.cuda.is_available() or interpreting()):
        return BackendError('backend="triton" needs a GPU', hint="or set TRITON_INTERPRET=1 before Python starts")
    return None
