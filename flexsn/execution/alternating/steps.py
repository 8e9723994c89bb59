"""One step in the alternating way, again and again on other tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from flexsn.execution.call import CallSpec
from flexsn.ir.graph import Node
from flexsn.ir.layout import CallShape, TensorSpec
from flexsn.ir.plan import ForwardPlan
from flexsn.ir.step import Outer, Product
from flexsn.kernels.backend import Launch
from flexsn.planning.stages import Key, StageKernel, StepPlan, source_key

__all__ = [
    "BoundStep",
    "add_outer",
    "bind_steps",
    "in_rows",
    "numbered",
    "rows",
    "same_at_every_step",
    "step_by_step",
    "step_indices",
]

Multiplication = Callable[[list[Tensor]], None]


def rows(spec: CallSpec, dtype: torch.dtype, *count: int) -> Tensor:
    """A fresh tensor of a step, or of so many, as torch multiplies it: a row per sample."""
    return spec.shape.rows(dtype, *count).make(spec.device)


def in_rows(spec: CallSpec) -> bool:
    """Whether every step of a fresh sequence lies in memory row by row."""
    shape = spec.shape
    return shape.time_dim == 0 and shape.order == tuple(range(len(shape.order)))


def same_at_every_step(
    spec: CallSpec, operands: Sequence[Tensor], lane_index: Sequence[Tensor], captured: Sequence[Tensor]
) -> dict[Key, Tensor]:
    """The tensors that stay the same through a call, which has captured these."""
    lengths, initial, _ = spec.read_once(captured)
    keys = numbered(operand=operands, lane_index=lane_index, length=lengths, initial=initial)
    return dict(zip(keys, (*operands, *lane_index, *lengths, *initial), strict=True))


def numbered(**tensors: Sequence[Tensor]) -> list[Key]:
    """The keys of tensors of these names."""
    return [(name, i) for name, of_name in tensors.items() for i in range(len(of_name))]


def step_indices(spec: CallSpec) -> Sequence[Tensor]:
    """The number of every step, as kernels of one step read it."""
    return torch.arange(spec.shape.num_steps, device=spec.device).unbind(0)


def step_by_step(sequences: Sequence[Sequence[Tensor]], num_steps: int) -> Iterator[tuple[Tensor, ...]]:
    """What all of them have at each step."""
    return zip(*sequences, strict=True) if sequences else iter([()] * num_steps)


class BoundStep:
    """The stages of one step, on a list of tensors with a place for each.

    Args:
        spec: the kind of call.
        plan: the kernels and products.
        per_step: what has another tensor at every step; what the step has a use for is in the first places.

    Attributes:
        memory: what it needs for what no one else needs.
    """

    def __init__(self, spec: CallSpec, plan: StepPlan, per_step: Sequence[Key]) -> None:
        self.spec, self._plan = spec, plan
        products = [p for stage in plan.stages for p in stage.products]
        used = dict.fromkeys(self.same(key) for stage in plan.stages for key in stage.keys)
        used |= dict.fromkeys(self.same(key) for p in products for key in _touched(p))
        changing: dict[Key, Key] = {}
        for key in per_step:
            if self.same(key) in used:
                changing.setdefault(self.same(key), key)
        self.per_step = tuple(changing.values())
        self._places = {key: place for place, key in enumerate(dict.fromkeys([*changing, *used]))}
        own = {
            self.same(key): node.dtype for p in products for key, node in ((source_key(p), p.source), (p.leaf, p.leaf))
        }
        self.memory = {key: spec.shape.rows(dtype) for key, dtype in own.items() if key not in changing}
        self._multiply = [[self._multiplication(p) for p in stage.products] for stage in plan.stages]
        self._order = [[self.place(key) for key in stage.keys] for stage in plan.stages]
        self._run: list[tuple[Launch | None, list[int], list[Multiplication]]] | None = None

    def place(self, key: Key) -> int:
        """Where a tensor stands; what the step has no use for gets a place as well."""
        return self._places.setdefault(self.same(key), len(self._places))

    def reads(self, leaf: Node) -> bool:
        """Whether the step has a use for a leaf."""
        return leaf in self._places

    def tensors(self, same: Mapping[Key, Tensor]) -> list[Tensor]:
        """The list: what stays the same is there, and memory for what no one else needs."""
        found = [torch.empty(0)] * len(self._places)
        for key, tensor in same.items():
            if key in self._places:
                found[self._places[key]] = tensor
        for key, fresh in self.memory.items():
            found[self._places[key]] = fresh.make(self.spec.device)
        return found

    def lacking(self, keys: Sequence[Key]) -> dict[Key, TensorSpec]:
        """The memory it needs beside what has one of these keys."""
        there = set(map(self.same, keys))
        return {key: fresh for key, fresh in self.memory.items() if key not in there}

    def order(self, keys: Sequence[Key]) -> list[int]:
        """Which of the tensors of these keys stands at each place."""
        named = {self.same(key): i for i, key in enumerate(keys)}
        return [named.get(key, 0) for key in self._places]

    def bind(self, tensors: Sequence[Tensor]) -> None:
        """Build the kernels, for tensors laid out like these.

        Raises:
            BackendError: a kernel cannot be built here.
        """
        stages = zip(self._plan.stages, self._order, self._multiply, strict=True)
        run = [(self._launch(stage, order, tensors), order, multiply) for stage, order, multiply in stages]
        self._run = [stage for stage in run if stage[0] or stage[2]]

    def run(self, tensors: list[Tensor]) -> None:
        """Run on these: what is read is there, what is written has memory."""
        if self._run is None:
            self.bind(tensors)
        for launch, order, products in self._run or ():
            if launch is not None:
                launch([tensors[place] for place in order])
            for multiply in products:
                multiply(tensors)

    def same(self, key: Key) -> Key:
        return self._plan.same.get(key, key)

    def _launch(self, stage: StageKernel, order: Sequence[int], tensors: Sequence[Tensor]) -> Launch | None:
        if stage.plan is None:
            return None
        given = [tensors[place] for place in order]
        roles = [slot.role.per_step for slot in stage.plan.slots]
        like = [t[None] if per_step else t for t, per_step in zip(given, roles, strict=True)]
        return bind_steps(self.spec, stage.plan, 1, like)

    def _multiplication(self, product: Product) -> Multiplication:
        """What computes a product into its place."""
        source, leaf, call = self.place(source_key(product)), self.place(product.leaf), product.call
        operands = [self.place(("operand", i)) for i in product.operands]
        if call is None:
            (matrix,) = operands

            def multiply(tensors: list[Tensor]) -> None:
                torch.mm(tensors[source], tensors[matrix], out=tensors[leaf])

            return multiply

        def run(tensors: list[Tensor]) -> None:
            given = [_samples(self.spec, tensors[source]), *(tensors[place] for place in operands)]
            tensors[leaf].copy_(call(given).view(tensors[leaf].shape))

        return run


def bind_steps(spec: CallSpec, plan: ForwardPlan, num_steps: int, tensors: Sequence[Tensor]) -> Launch | None:
    """A kernel over so many steps, of tensors with time in front; none where there are no lanes."""
    step = spec.shape.step_shape
    if 0 in step:
        return None
    shape = CallShape(num_steps, step, 0, tuple(range(len(step) + 1)))
    like = [
        TensorSpec.of(_of_steps(t, step) if slot.role.per_step else t)
        for slot, t in zip(plan.slots, tensors, strict=True)
    ]
    return spec.backend.bind(plan, shape.layout(plan.slots, like))


def _of_steps(sequence: Tensor, step: tuple[int, ...]) -> Tensor:
    count = len(sequence)
    if sequence.dim() == 1:  # the step index, the same for all lanes
        return sequence.view(count, *(1 for _ in step)).expand(count, *step)
    return sequence if sequence.shape[1:] == step else sequence.view(count, *step)


def _touched(product: Product) -> list[Key]:
    return [source_key(product), product.leaf, *(("operand", i) for i in product.operands)]


def add_outer(
    spec: CallSpec, outer: Outer, factors: Sequence[Tensor], operands: Sequence[Tensor], total: Tensor | None
) -> Tensor:
    """The sum of outer products of several steps, added to ``total``."""
    if outer.call is None:
        left, right = (f if f.dim() == 2 else f.view(-1, f.shape[-1]) for f in factors)
        return torch.mm(left.t(), right) if total is None else total.addmm_(left.t(), right)
    found = outer.call([*(_samples(spec, f) for f in factors), *(operands[i] for i in outer.operands)])
    return found if total is None else total.add_(found)


def _samples(spec: CallSpec, value: Tensor) -> Tensor:
    """A value of one step or several as a batch of samples of the shape that the core was traced with."""
    return value.reshape(-1, *spec.shape.step_shape[-len(spec.tracer.param_shape) :])
