"""The context a core is traced in, whatever that of the call is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

__all__ = ["clean_context"]


class clean_context:
    """Gradients on, autocast and inference mode off: the caller's context must not leak into the trace."""

    def __enter__(self) -> None:
        self._contexts: list[AbstractContextManager[Any]] = [torch.inference_mode(False), torch.enable_grad()]
        self._contexts += [torch.autocast(kind, enabled=False) for kind in _autocast_devices()]
        for context in self._contexts:
            context.__enter__()

    def __exit__(self, *error: Any) -> None:
        for context in reversed(self._contexts):
            context.__exit__(*error)


def _autocast_devices() -> list[str]:
    return [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
