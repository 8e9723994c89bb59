"""SnapshotCore: a core that runs again later exactly as it was when it was traced."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from flexsn.captures.guards import Captures
from flexsn.captures.source import WRITING

__all__ = ["SnapshotCore"]


class SnapshotCore:
    """Calls a core with everything it reads put back, for the length of the call, to what it is now.

    The backward half of a core is traced when a gradient is asked for the first time, and a second derivative runs
    the core anew. By then numbers may have changed and parameters may have been replaced.

    Args:
        core: the one-step function.
        captures: what it reads.
    """

    def __init__(self, core: Callable[..., Any], captures: Captures) -> None:
        functools.update_wrapper(self, core, updated=())
        self._core, self._captures = core, captures
        self._snapshot = captures.snapshot()

    def __call__(self, *args: Tensor) -> Any:
        with WRITING:
            undo = self._captures.install(self._snapshot)
            try:
                return self._core(*args)
            finally:
                for _, put_back in undo:
                    put_back()

    def reading(self, captured: Sequence[Tensor], instead: Sequence[Tensor]) -> SnapshotCore:
        """The same core with other tensors in the places of the captured ones."""
        replaced = {id(old): new for old, new in zip(captured, instead, strict=True)}
        other = SnapshotCore(self._core, self._captures)
        values, contents = self._snapshot
        other._snapshot = (
            [replaced.get(id(value), value) for value in values],
            [[replaced.get(id(item), item) for item in content] for content in contents],
        )
        return other
