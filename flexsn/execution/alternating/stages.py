"""The stages of a step, bound to tensors of one layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from flexsn.execution.call import CallSpec
from flexsn.ir.layout import CallShape, TensorSpec
from flexsn.ir.step import Outer, Product
from flexsn.kernels.backend import Launch
from flexsn.planning.alternating import Key, StageKernel, source_key

__all__ = ["BoundStages", "Values", "add_outer", "step_tensor"]

Values = Mapping[Key, Tensor]
"""The tensors of one step."""


def step_tensor(spec: CallSpec, dtype: torch.dtype, *count: int) -> Tensor:
    """A fresh dense tensor of one step, or of so many."""
    return torch.empty((*count, *spec.shape.step_shape), dtype=dtype, device=spec.device)


class BoundStages:
    """Runs the stages of a step.

    Args:
        spec: the kind of call.
        stages: the kernels and products.
        like: tensors laid out like those of every step.

    Raises:
        BackendError: a kernel cannot be built here.
    """

    def __init__(self, spec: CallSpec, stages: Sequence[StageKernel], like: Values) -> None:
        step = spec.shape.step_shape
        one = CallShape(1, step, 0, tuple(range(len(step) + 1)))
        self._runs: list[tuple[Launch | None, tuple[Key, ...], list[Callable[[Values], None]]]] = []
        for stage in stages:
            launch = None
            if stage.plan is not None and 0 not in step:
                tensors = [
                    _with_time(TensorSpec.of(like[k])) if s.role.per_step else TensorSpec.of(like[k])
                    for s, k in zip(stage.plan.slots, stage.keys, strict=True)
                ]
                launch = spec.backend.bind(stage.plan, one.layout(stage.plan.slots, tensors))
            self._runs.append((launch, stage.keys, [_multiplication(spec, p) for p in stage.products]))

    def __call__(self, values: Values) -> None:
        """Run on the tensors of a step: those read are there, those written are memory."""
        for launch, keys, products in self._runs:
            if launch is not None:
                launch([values[key] for key in keys])
            for multiply in products:
                multiply(values)


def _with_time(tensor: TensorSpec) -> TensorSpec:
    return TensorSpec((1, *tensor.shape), (0, *tensor.strides), tensor.dtype)


def _multiplication(spec: CallSpec, product: Product) -> Callable[[Values], None]:
    """What computes a product into its place."""
    source, leaf, call = source_key(product), product.leaf, product.call
    operands: list[Key] = [("operand", i) for i in product.operands]
    if call is None:
        shape, (matrix,) = _rows(spec), operands

        def multiply(values: Values) -> None:
            torch.mm(values[source].view(shape), values[matrix], out=values[leaf].view(shape))

        return multiply

    def run(values: Values) -> None:
        given = [_samples(spec, values[source]), *(values[key] for key in operands)]
        values[leaf].copy_(call(given).view(values[leaf].shape))

    return run


def add_outer(spec: CallSpec, outer: Outer, factors: Sequence[Tensor], values: Values, total: Tensor | None) -> Tensor:
    """The sum of outer products of several steps, added to ``total``."""
    if outer.call is None:
        left, right = (f.view(-1, spec.shape.step_shape[-1]) for f in factors)
        return torch.mm(left.t(), right) if total is None else total.addmm_(left.t(), right)
    found = outer.call([*(_samples(spec, f) for f in factors), *(values["operand", i] for i in outer.operands)])
    return found if total is None else total.add_(found)


def _rows(spec: CallSpec) -> tuple[int, int]:
    *samples, size = spec.shape.step_shape
    return torch.Size(samples).numel(), size


def _samples(spec: CallSpec, value: Tensor) -> Tensor:
    """A value of one step or several as a batch of samples of the shape that the core was traced with."""
    return value.reshape(-1, *spec.shape.step_shape[-len(spec.tracer.param_shape) :])
