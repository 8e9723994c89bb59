"""Faults planted into kernels: what a launch leaves in its tensors is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor

from flexsn.ir.layout import Layout
from flexsn.ir.plan import Holds, Plan
from flexsn.kernels.backend import Launch
from flexsn.kernels.backend import backend as named

Change = Callable[[Tensor], Any]


@contextmanager
def planted(backend: str, holds: Holds, change: Change, training: bool | None = None) -> Iterator[None]:
    """A context in which every kernel of a backend does something to the tensors that hold such values.

    Args:
        backend, holds: which.
        change: in place.
        training: only to kernels for it, or only to those for inference.
    """
    kind = type(named(backend))
    bind = kind.bind

    def wrong(self: Any, plan: Plan, layout: Layout) -> Launch:
        launch = bind(self, plan, layout)

        def run(tensors: Sequence[Tensor]) -> None:
            launch(tensors)
            if training is None or training == (plan.interval is not None):
                for slot, tensor in zip(plan.slots, tensors, strict=True):
                    if slot.holds is holds:
                        change(tensor)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "bind", wrong)
        yield
