"""The sentinel: the step shape a core is traced at, which tells by shapes alone what every value is.

It is the smallest shape the core's parameters allow, with every free dimension a different prime and one more prime in
front. Of the sentinel shape, a value belongs to the step; of a parameter's, it is computed once per call; anything
else mixes lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flexsn.captures.contract import argument_names
from flexsn.errors import FlexSNError
from flexsn.tracing.lowering import is_known
from flexsn.tracing.questions import AsksShape, Questions
from flexsn.tracing.recorder import Recorder, clean_context

__all__ = ["Sentinel", "find_sentinel"]

_MAX_DIMS = 6  # of a parameter; the sentinel shape has one more, and grows with the product of the primes
_MAX_PROBES = 8
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79)


@dataclass(frozen=True, eq=False)
class Sentinel:
    """A step shape to trace at.

    Attributes:
        shape: the shape.
        free: per dimension, whether it is no parameter's.
        param_shape: the smallest step shape the captured tensors allow.
    """

    shape: torch.Size
    free: tuple[bool, ...]
    param_shape: torch.Size


def find_sentinel(
    core: Callable[..., Any],
    dtypes: Sequence[torch.dtype],
    device: torch.device,
    step_shape: torch.Size | None = None,
) -> Sentinel:
    """Run the core on examples of growing shape until they hold its parameters.

    Args:
        core: the one-step function.
        dtypes: of its arguments.
        device: where the captured tensors live.
        step_shape: of the call, for a core that asks for it; the sentinel then has as many dimensions.

    Raises:
        AsksShape: the core asks for it, and it was not given.
    """
    shape = torch.Size(())
    sizes: set[int] = set()
    for _ in range(_MAX_PROBES):
        # one lane has a dimension: torch takes h[mask] of 0-d tensors for an if
        grown = _probe(core, dtypes, device, shape or torch.Size((1,)), sizes, step_shape)
        while grown and grown[0] == 1:
            grown = grown[1:]
        if grown == shape or len(grown) > _MAX_DIMS:  # a core that adds a dimension each time mixes lanes
            break
        shape = grown
    dims = max(2, len(shape)) + 1 if step_shape is None else len(step_shape)
    padded = (1,) * (dims - len(shape)) + tuple(shape)
    primes = iter(p for p in _PRIMES if p not in sizes)  # so that a prime in a shape means the step
    full = torch.Size(next(primes) if size == 1 else size for size in padded)
    return Sentinel(full, tuple(size == 1 for size in padded), shape)


def _probe(
    core: Callable[..., Any],
    dtypes: Sequence[torch.dtype],
    device: torch.device,
    shape: torch.Size,
    sizes: set[int],
    step_shape: torch.Size | None,
) -> torch.Size:
    """The shape the core returns for arguments of ``shape``; if it fails, what its captured tensors ask for.

    The sizes of all dimensions met on the way are added to ``sizes``.
    """
    examples = {str(i): torch.ones(shape, dtype=d, device=device) for i, d in enumerate(dtypes)}
    recorder = Recorder(examples, shape, is_known, argument_names(core, len(examples)))
    tape = recorder.tape
    questions = Questions(recorder.is_live, shape, step_shape, growing=True)
    try:
        with clean_context(), torch.no_grad(), questions, recorder:
            returned = core(*examples.values())
        values = returned if isinstance(returned, (tuple, list)) else (returned,)
        shapes = [v.shape for v in values if isinstance(v, Tensor)] + [tape.tensors[i].shape for i in tape.live]
    except (FlexSNError, AsksShape):
        raise
    except Exception:  # it needs larger arguments, or is wrong: recording at the sentinel shape says how
        shapes = [shape, *(t.shape for t in tape.captured.values())]
    sizes.update(size for tensor in tape.tensors for size in tensor.shape)
    try:
        return torch.Size(np.broadcast_shapes(*shapes))  # torch.broadcast_shapes imports sympy: half a second
    except ValueError:
        return shape
