"""Which backend a call gets."""

from __future__ import annotations

import torch

from flexsn.errors import BackendError
from flexsn.kernels.backend import BACKENDS, Backend, backend

__all__ = ["CHOICES", "check_backend", "choose", "supported_backends", "target_backend"]

CHOICES = ("auto", *BACKENDS, "torch")


def check_backend(name: str) -> str:
    """Return ``name`` if it names a backend, else raise ``ValueError``."""
    if name not in CHOICES:
        raise ValueError(f"backend must be one of {', '.join(map(repr, CHOICES))}, got {name!r}")
    return name


def supported_backends() -> tuple[str, ...]:
    """The backends that can run on this machine, fastest first."""
    return (*(name for name in BACKENDS if backend(name).problem() is None), "torch")


def choose(name: str, device: torch.device) -> tuple[Backend | None, BackendError | None]:
    """The backend for tensors on ``device``, ``None`` for the loop; and why ``"auto"`` did not get a faster one.

    Raises:
        BackendError: a backend asked for by name cannot run on that device or machine.
    """
    if name == "torch":
        return None, None
    if name != "auto":
        chosen = backend(name)
        problem = chosen.problem(device)
        if problem:
            raise problem
        return chosen, None
    native = [name for name, (kind, _) in BACKENDS.items() if kind == device.type]
    problems = []
    for chosen in map(backend, native or BACKENDS):
        problem = chosen.problem(device)
        if problem is None:
            return chosen, None
        problems.append(problem)
    return None, problems[0]


def target_backend(target: str) -> Backend:
    """The backend that prints kernels for ``target``.

    Raises:
        BackendError: none does.
    """
    for found in map(backend, BACKENDS):
        if target in found.targets:
            return found
    targets = [target for found in map(backend, BACKENDS) for target in found.targets if target != found.name]
    raise BackendError(f"no offline target {target!r}", hint=f"one of {', '.join(targets)}")
