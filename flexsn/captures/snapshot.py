"""Snapshot: what a core reads as it is now, to be put back later."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from flexsn.captures.containers import HOLDERS, content_of, refill, same_content
from flexsn.captures.guards import Captures
from flexsn.captures.source import WRITING
from flexsn.errors import call_for_user

__all__ = ["Snapshot", "SnapshotCore", "tensors_kept"]

_MOST_KEPT = 1 << 24  # elements of a tensor that is copied before the core runs on examples


class Snapshot:
    """What every source and every container holds now.

    Args:
        captures: of the core.
        others: also what is not watched, as far as it can be put back.
    """

    def __init__(self, captures: Captures, *, others: bool = False) -> None:
        self._captures = captures
        self._values = [source.read() for source in captures.sources]
        self._holders = list(captures.containers)
        if others:
            self._holders += [(name, held) for name, held in captures.others if issubclass(type(held), HOLDERS)]
        self._contents = [content_of(held) for _, held in self._holders]

    def put_back(self) -> list[tuple[str, Callable[[], None]]]:
        """Put back what is no longer the same.

        Returns:
            For each difference its name and a function that undoes the putting back.
        """
        changed: list[tuple[str, Callable[[], None]]] = []
        for source, value in zip(self._captures.sources, self._values, strict=True):
            now = source.read()
            if now is not value:
                changed.append((source.name, partial(source.write, now)))
                source.write(value)
        for (name, held), content in zip(self._holders, self._contents, strict=True):
            current = content_of(held)
            if not same_content(current, content):
                changed.append((name, partial(refill, held, current)))
                refill(held, content)
        return changed

    def replacing(self, replaced: dict[int, Tensor]) -> Snapshot:
        """The same with other tensors, given by the ids of those they replace."""
        other = Snapshot(self._captures)
        other._values = [replaced.get(id(value), value) for value in self._values]
        other._contents = [[replaced.get(id(item), item) for item in content] for content in self._contents]
        return other


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
        self._snapshot = Snapshot(captures)

    def __call__(self, *args: Tensor) -> Any:
        with WRITING:
            changed = self._snapshot.put_back()
            try:
                return call_for_user(self._core, *args)
            finally:
                for _, undo in changed:
                    undo()

    def reading(self, captured: Sequence[Tensor], instead: Sequence[Tensor]) -> SnapshotCore:
        """The same core with other tensors in the places of the captured ones."""
        other = SnapshotCore(self._core, self._captures)
        replaced = {id(old): new for old, new in zip(captured, instead, strict=True)}
        other._snapshot = self._snapshot.replacing(replaced)
        return other


@contextmanager
def tensors_kept(captures: Captures) -> Iterator[None]:
    """Undo, at the end, what was written in place into tensors that a core reads."""
    held = {id(t): t for t in (source.read() for source in captures.tensors) if t.numel() <= _MOST_KEPT}
    before = [(t, t.detach().clone()) for t in held.values() if t.layout is torch.strided and _has_values(t)]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in before:
                if not torch.equal(tensor, value):  # versions do not tell: a trace raises before they count
                    tensor.copy_(value)


def _has_values(tensor: Tensor) -> bool:
    """Whether it is more than a shape, such as a module's parameters are during an export."""
    return not tensor.is_meta and not isinstance(tensor, FakeTensor)
