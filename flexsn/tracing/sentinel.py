"""The sentinel: the step shape a core is traced at, which tells by shapes alone what every value is.

It is the smallest shape the core's parameters allow, with every free dimension a different prime and one more prime in
front. Of the sentinel shape, a value belongs to the step; of a parameter's, it is computed once per call; anything
else mixes lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from flexsn.captures.contract import argument_names
from flexsn.errors import FlexSNError
from flexsn.tracing.products import PRODUCTS, is_across, is_kept
from flexsn.tracing.questions import AsksShape, LargerThanExample, Questions
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
        step_shape: of the calls, for a core that asks for it.
    """

    shape: torch.Size
    free: tuple[bool, ...]
    param_shape: torch.Size
    step_shape: torch.Size | None = None


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
    shape, exact = torch.Size(()), None
    sizes: set[int] = set()
    for _ in range(_MAX_PROBES):
        # one lane has a dimension: torch takes h[mask] of 0-d tensors for an if
        grown, tried = _grow(core, dtypes, device, shape or torch.Size((1,)), sizes, step_shape)
        exact = tried or exact
        if grown == shape or len(grown) > _MAX_DIMS:  # a core that adds a dimension each time mixes lanes
            break
        shape = grown
    dims = exact or max(2, len(shape)) + 1 if step_shape is None else len(step_shape)
    padded = (1,) * (dims - len(shape)) + tuple(shape)
    primes = iter(p for p in _PRIMES if p not in sizes)  # so that a prime in a shape means the step
    full = torch.Size(next(primes) if size == 1 else size for size in padded)
    return Sentinel(full, tuple(size == 1 for size in padded), shape, step_shape)


def _grow(
    core: Callable[..., Any],
    dtypes: Sequence[torch.dtype],
    device: torch.device,
    shape: torch.Size,
    sizes: set[int],
    step_shape: torch.Size | None,
) -> tuple[torch.Size, int | None]:
    """The shape the core returns for arguments of ``shape``; if it fails, what its captured tensors ask for.

    A matrix or a convolution asks for its own number of features in the right place, and some functions, such as
    ``torch.mm``, for a number of dimensions, which is returned too.
    """
    _, grown, asked, _ = _probe(core, dtypes, device, shape, sizes, step_shape)
    for features in asked:
        candidates = [features, torch.Size((1, *features))]
        for candidate in candidates:  # grows
            if features != grown and len(candidate) >= len(shape):
                runs, held, returned, multiplies = _probe(core, dtypes, device, candidate, sizes, step_shape)
                if runs and [held] == returned and _spans(held, features):
                    return held, None if len(candidate) == len(features) else len(candidate)
                if multiplies and held not in candidates:  # what it fails at has more dimensions
                    candidates.append(held)
    return grown, None


def _probe(
    core: Callable[..., Any],
    dtypes: Sequence[torch.dtype],
    device: torch.device,
    shape: torch.Size,
    sizes: set[int],
    step_shape: torch.Size | None,
) -> tuple[bool, torch.Size, list[torch.Size], bool]:
    """Run the core on arguments of ``shape``.

    The sizes of all dimensions met on the way are added to ``sizes``.

    Returns:
        Whether it runs; the smallest shape that holds all values of the step, or, if it fails, all captured tensors, or
        behind a product those of the function that failed;
        the shape of what it returns, or the shapes that a product keeps with each tensor of the function that failed;
        whether it failed behind a product.
    """
    examples = {str(i): torch.ones(shape, dtype=d, device=device) for i, d in enumerate(dtypes)}
    recorder = Recorder(examples, shape, is_kept, argument_names(core, len(examples)))
    tape = recorder.tape
    questions, latest = Questions(recorder.is_shaped, shape, step_shape, growing=True), _Latest()
    runs, multiplies = True, False
    try:
        with clean_context(), torch.no_grad(), questions, latest, recorder:
            returned = core(*examples.values())
        values = returned if isinstance(returned, (tuple, list)) else (returned,)
        across = {r.index for call in tape.calls if is_across(call.name) for r in call.results}
        own = [v.shape for v in values if isinstance(v, Tensor)]
        shapes = own + [tape.tensors[i].shape for i in tape.live | tape.shaped if i not in across]
        asked = [_holding(own, shape)]
    except (FlexSNError, AsksShape):
        raise
    except Exception as error:  # it needs larger arguments, or is wrong: recording at the sentinel shape says how
        multiplies = any(call.name in PRODUCTS for call in tape.calls)  # a matrix is no part of the step
        runs, reads = False, latest.tensors if multiplies else tape.captured.values()
        shapes = [shape, *(t.shape for t in reads)]
        features = [torch.Size((t.shape[0],) + (1,) * (t.dim() - 2)) for t in latest.tensors if t.dim() > 1]
        asked = [error.shape] if isinstance(error, LargerThanExample) else features
    sizes.update(size for tensor in (*tape.tensors, *latest.tensors) for size in tensor.shape)
    return runs, _holding(shapes, shape), asked, multiplies


def _holding(shapes: Sequence[torch.Size], otherwise: torch.Size) -> torch.Size:
    """The smallest shape that holds all of them, if there is one."""
    with suppress(ValueError):
        otherwise = torch.Size(np.broadcast_shapes(*shapes))  # torch.broadcast_shapes imports sympy: half a second
    while otherwise and otherwise[0] == 1:
        otherwise = otherwise[1:]
    return otherwise


def _spans(shape: torch.Size, features: torch.Size) -> bool:
    """Whether a shape ends in these features; those of a convolution leave its places open, as 1."""
    ends = shape[len(shape) - len(features) :]
    return len(ends) == len(features) and all(
        feature in (1, size) for feature, size in zip(features, ends, strict=True)
    )


class _Latest(TorchFunctionMode):
    """Holds the tensors of the function that ran last."""

    tensors: Sequence[Tensor] = ()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.tensors = [t for t in (*args, *(kwargs or {}).values()) if isinstance(t, Tensor)]
        return func(*args, **(kwargs or {}))
