"""Captures: what a core reads from outside, found once and watched cheaply.

Numbers a core reads are constants of its kernels and tensors are its parameters. Both are checked at every call,
so changing ``neuron.tau``, a closure cell or a global takes effect at the next one.
"""

from __future__ import annotations

import numbers
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from operator import getitem, is_
from types import CellType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flexsn.captures.discovery import Walk
from flexsn.captures.source import MISSING, Source

__all__ = ["Captures"]

Snapshot = tuple[list[Any], list[list[Any]]]
_MOST_KEPT = 1 << 24  # elements of a tensor that is copied before the core runs on examples
_VALUES = (numbers.Number, str, bytes, type(None), torch.dtype, torch.device)


class Captures:
    """The places one core reads.

    Args:
        core: the one-step function.

    Attributes:
        tensors: the sources that hold tensors, the core's parameters.
        sources: all sources.
    """

    def __init__(self, core: Callable[..., Any]) -> None:
        walk = Walk(core)
        self.sources: list[Source] = walk.sources
        values = [source.read() for source in self.sources]
        pairs = list(zip(self.sources, values, strict=True))
        self.tensors = [s for s, v in pairs if isinstance(v, Tensor)]
        # tensors may be replaced by tensors; everything else has to stay the very same object
        self._tensor_dicts = [s for s in self.tensors if s.in_dict]
        self._tensor_others = [s for s in self.tensors if not s.in_dict]
        self._tensor_holders = [s.holder for s in self._tensor_dicts]
        self._tensor_keys = [s.key for s in self._tensor_dicts]
        constants = [(s, v) for s, v in pairs if not isinstance(v, Tensor)]
        in_dicts = [(s, v) for s, v in constants if s.in_dict and v is not MISSING]
        in_cells = [(s, v) for s, v in constants if type(s.holder) is CellType and v is not MISSING]
        quick = {id(s) for s, _ in (*in_dicts, *in_cells)}
        self._holders, self._keys = [s.holder for s, _ in in_dicts], [s.key for s, _ in in_dicts]
        self._cells = [s.holder for s, _ in in_cells]
        self._values = [v for _, v in (*in_dicts, *in_cells)]
        self._others = [(s, v) for s, v in constants if id(s) not in quick]
        self._containers = [(name, held, _content(held)) for name, held in walk.containers]
        self._slow = bool(self._tensor_others or self._others or self._containers)
        flat = [v for _, v in constants] + [v for _, _, content in self._containers for v in content]
        self._key = (
            tuple((type(v), v if isinstance(v, _VALUES) else id(v)) for v in flat),
            repr([v for v in flat if isinstance(v, (float, complex))]),
        )

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal keys mean equal constants (-0.0 differs from 0.0, 1 from 1.0), as long as both environments live."""
        return self._key

    def unchanged(self) -> bool:
        """Whether every constant is still the object it was and every tensor source still holds a tensor."""
        try:
            now: Iterable[Any] = map(getitem, self._holders, self._keys)
            if self._cells:
                now = [*now, *[cell.cell_contents for cell in self._cells]]
            if not all(map(is_, now, self._values)):
                return False
            if not all(map(isinstance, map(getitem, self._tensor_holders, self._tensor_keys), repeat(Tensor))):
                return False
        except (KeyError, ValueError):  # a key or a cell's content is gone
            return False
        return not self._slow or self._slow_unchanged()

    def _slow_unchanged(self) -> bool:
        return (
            all(isinstance(source.read(), Tensor) for source in self._tensor_others)
            and all(source.read() is value for source, value in self._others)
            and all(_same(_content(held), before) for _, held, before in self._containers)
        )

    def parameters(self) -> Iterator[tuple[str, list[Source], nn.Parameter]]:
        """The ``nn.Parameter`` objects the core can reach, each with a name and every source that holds it."""
        found: dict[int, tuple[str, list[Source], nn.Parameter]] = {}
        for source in self.tensors:
            value = source.read()
            if isinstance(value, nn.Parameter):
                found.setdefault(id(value), (source.name, [], value))[1].append(source)
        yield from found.values()

    # ---- as it was -----------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """What every source and container holds now."""
        return [source.read() for source in self.sources], [_content(held) for _, held, _ in self._containers]

    @contextmanager
    def tensors_kept(self) -> Iterator[None]:
        """Undo, at the end, what was written into tensors in place."""
        held = {id(t): t for t in (source.read() for source in self.tensors) if t.numel() <= _MOST_KEPT}
        before = [(t, t.detach().clone()) for t in held.values() if not t.is_meta]
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in before:
                    if not torch.equal(tensor, value):  # versions do not tell: a trace raises before they count
                        tensor.copy_(value)

    def install(self, snapshot: Snapshot) -> list[tuple[str, Callable[[], None]]]:
        """Put back what differs from ``snapshot``.

        Returns:
            For each difference its name and a function that undoes the putting back.
        """
        values, contents = snapshot
        changed: list[tuple[str, Callable[[], None]]] = []
        for source, value in zip(self.sources, values, strict=True):
            now = source.read()
            if now is not value:
                changed.append((source.name, partial(source.write, now)))
                source.write(value)
        for (name, held, _), content in zip(self._containers, contents, strict=True):
            current = _content(held)
            if not _same(current, content):
                changed.append((name, partial(_refill, held, current)))
                _refill(held, content)
        return changed


def _content(container: Any) -> list[Any]:
    """A container's content as a flat list; equal lists of identical objects mean nothing was changed."""
    if isinstance(container, np.ndarray):
        return [repr(container.shape).encode(), container.tobytes()]
    if isinstance(container, dict):
        return [*container, *container.values()]
    return list(container)


def _same(now: list[Any], before: list[Any]) -> bool:
    pairs = zip(now, before, strict=False)
    return len(now) == len(before) and all(a is b or (type(a) is bytes and a == b) for a, b in pairs)


def _refill(container: Any, content: list[Any]) -> None:
    if isinstance(container, np.ndarray):
        container[...] = np.frombuffer(content[1], container.dtype).reshape(container.shape)
        return
    container.clear()
    if isinstance(container, dict):
        half = len(content) // 2
        container.update(zip(content[:half], content[half:], strict=True))
    elif isinstance(container, set):
        container.update(content)
    elif isinstance(container, (list, deque)):
        container.extend(content)
