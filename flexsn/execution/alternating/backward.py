"""The backward pass of a scan whose steps have products."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from flexsn.execution.alternating.stages import BoundStages, add_outer, step_tensor
from flexsn.execution.backward import ParameterSide, nowhere
from flexsn.execution.call import CallSpec
from flexsn.ir.graph import LeafKind, Node
from flexsn.ir.step import Product
from flexsn.planning.alternating import BackwardBranch, Key, in_place, plan_alternating_backward, source_key

__all__ = ["BoundAlternatingBackward"]


class BoundAlternatingBackward:
    """Walks back, for one pattern of present and wanted gradients.

    Args:
        spec, live, captured, grads, needs: as for :class:`~flexsn.execution.backward.BoundBackward`.
        interval: steps between checkpoints.

    Raises:
        GradientError: gradients came in, and none of them can flow back.
    """

    def __init__(
        self,
        spec: CallSpec,
        live: Sequence[int],
        interval: int,
        captured: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        needs: Sequence[bool],
    ) -> None:
        self.spec, self._live, self._interval = spec, live, interval
        self._split = len(spec.outputs)
        self._wanted = gradients = spec.gradients(grads, needs)
        self._graph = graph = spec.tracer.graph
        plan = plan_alternating_backward(graph, spec.tracer.vjp, spec.request, gradients)
        if plan is None:
            raise nowhere(spec)
        self.plan = plan
        self._operands = spec.operands(captured)
        kernels = [*plan.advance, *(stage for branch in plan.branches for stage in branch.stages)]
        self.lane_index = spec.lane_index([s for stage in kernels if stage.plan for s in stage.plan.slots])
        counts = ([len(b.vjp.grad_states[j]) for b in plan.branches] for j in range(spec.num_states))
        self.carried = [
            graph.builder.leaf(LeafKind.STATE_COTANGENT, j, graph.states[j].dtype, part)
            for j, count in enumerate(counts)
            for part in range(max(count) or 1)
        ]
        of_captured = spec.split(needs)[2]
        self._sides = [ParameterSide.of(spec, vjp, first, of_captured) for first, vjp in plan.groups]
        self._bound: dict[int, BoundStages] = {}  # by branch; -1: the way there

    def __call__(self, saved: Sequence[Tensor], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Gradients of inputs, states and captured tensors."""
        with torch.no_grad(), torch.autocast(self.spec.device.type, enabled=False):
            return _WalkBack(self, saved, grads).run()

    def stages(self, number: int, values: dict[Key, Tensor]) -> BoundStages:
        """The stages of a branch, built when they are first needed."""
        if number not in self._bound:
            kernels = self.plan.advance if number < 0 else self.plan.branches[number].stages
            self._bound[number] = BoundStages(self.spec, kernels, values)
        return self._bound[number]


class _WalkBack:
    """The tensors of one backward pass."""

    def __init__(
        self, bound: BoundAlternatingBackward, saved: Sequence[Tensor], grads: Sequence[Tensor | None]
    ) -> None:
        self._bound, self.spec, self.plan = bound, bound.spec, bound.plan
        spec, plan, axis = self.spec, self.plan, self.spec.options.time_dim
        self._steps, self._interval = spec.shape.num_steps, min(bound._interval, spec.shape.num_steps)
        inputs, self._initial, self._captured, self._checkpoints = spec.split(saved)
        self._xs = [x.unbind(axis) for x in inputs]
        self._gys = {k: g.unbind(axis) for k, g in enumerate(grads[: bound._split]) if g is not None}
        flows = {i for b in plan.branches for what, i, _ in b.results if what == "input"}
        fresh = {i: spec.shape.sequence(spec.request.input_dtypes[i]).make(spec.device) for i in flows}
        missing = {i for i in flows for b in plan.branches if b.vjp.grad_inputs[i] is None}
        self._grad_inputs = {i: g.zero_() if i in missing else g for i, g in fresh.items()}
        self._gxs = {i: g.unbind(axis) for i, g in self._grad_inputs.items()}
        graph, k = bound._graph, self._interval
        self._states = {j: step_tensor(spec, graph.states[j].dtype, k + 1) for j in plan.live}
        self._kept = {leaf: step_tensor(spec, leaf.dtype, k) for leaf in plan.kept}
        self._sums = [step_tensor(spec, leaf.dtype).zero_() for leaf in plan.accumulators]
        self._factors: dict[tuple[int, int], Tensor] = {}
        self._outers: dict[tuple[int, int], Tensor] = {}  # by group and outer product
        self._carried = {
            graph.builder.leaf(LeafKind.STATE_COTANGENT, j, s.dtype): step_tensor(spec, s.dtype).copy_(g)
            for j, (s, g) in enumerate(zip(graph.states, grads[bound._split :], strict=True))
            if g is not None
        }
        self._values: dict[Key, Tensor] = {("operand", i): v for i, v in enumerate(bound._operands(*self._captured))}
        self._values |= {("lane_index", i): lanes for i, lanes in enumerate(bound.lane_index)}
        for product in {*plan.products, *(p for b in plan.branches for p in b.products)}:
            self._make_room(product)

    def run(self) -> list[Tensor | None]:
        for start in reversed(range(0, self._steps, self._interval)):
            steps = range(start, min(start + self._interval, self._steps))
            self._advance(steps)
            for t in reversed(steps):
                self._step_back(t, t - start)
            self._add_outers(steps)
        spec, graph = self.spec, self._bound._graph
        of_inputs = [self._grad_inputs.get(i) for i in range(spec.num_inputs)]
        of_states = [self._grad_state(j) if self._bound._wanted.states[j] else None for j in range(len(graph.states))]
        totals: list[Tensor | None] = [None] * len(self._captured)
        for number, side in enumerate(self._bound._sides):
            outers = [self._outers.get((number, k)) for k in range(len(self.plan.groups[number][1].outers))]
            if all(o is not None for o in outers):  # a group of steps that there were
                side.add(totals, self._captured, self._sums, [o for o in outers if o is not None])
        return [*of_inputs, *of_states, *totals]

    # ---- pieces -----------------------------------------------------------------------------------------------

    def _make_room(self, product: Product) -> None:
        self._values[product.leaf] = step_tensor(self.spec, product.leaf.dtype)
        if not in_place(product.source):
            self._values[source_key(product)] = step_tensor(self.spec, product.source.dtype)

    def _advance(self, steps: range) -> None:
        """Compute the states before every step, and the kept products of every step."""
        plan = self.plan
        chunk = steps.start // self._bound._interval
        for j, rows in self._states.items():
            place = list(self._bound._live).index(j)
            rows[0].copy_(self._checkpoints[place][chunk - 1] if chunk else self._initial[j])
        for i, t in enumerate(steps if plan.kept else steps[:-1]):
            values = self._values
            self._read(values, t, i)
            for number, j in enumerate(plan.live):
                values["root", number] = self._states[j][i + 1]
            self._bound.stages(-1, values)(values)

    def _read(self, values: dict[Key, Tensor], t: int, row: int) -> None:
        graph = self._bound._graph
        for leaf, x in zip(graph.inputs, self._xs, strict=True):
            values[leaf] = x[t]
        for j, rows in self._states.items():
            values[graph.states[j]] = rows[row]
        for leaf, rows in self._kept.items():
            values[leaf] = rows[row]

    def _step_back(self, t: int, row: int) -> None:
        number = min(self._steps - 1 - t, len(self.plan.branches) - 1)
        branch, values, graph = self.plan.branches[number], self._values, self._bound._graph
        self._read(values, t, row)
        for k, output in enumerate(graph.outputs):
            if k in self._gys:
                values[graph.builder.leaf(LeafKind.COTANGENT, k, output.dtype)] = self._gys[k][t]
        for leaf in self._bound.carried:
            values[leaf] = self._carried[leaf] if leaf in self._carried else self._nothing(leaf)
        for leaf, total in zip(self.plan.accumulators, self._sums, strict=True):
            values[leaf] = total
        following = self._place_results(branch, t, row)
        self._bound.stages(number, values)(values)
        self._carried = following

    def _place_results(self, branch: BackwardBranch, t: int, row: int) -> dict[Node, Tensor]:
        """Give every result its memory; returns what the next step is given."""
        spec, graph, following = self.spec, self._bound._graph, dict[Node, Tensor]()
        for number, (what, i, part) in enumerate(branch.results):
            if what == "input":
                place = self._gxs[i][t]
            elif what == "state":
                leaf = graph.builder.leaf(LeafKind.STATE_COTANGENT, i, graph.states[i].dtype, part)
                place = following[leaf] = step_tensor(spec, leaf.dtype)
            elif what == "sum":
                place = self._sums[i] = step_tensor(spec, self._sums[i].dtype)
            else:
                outer = branch.vjp.outers[i]
                factor = outer.right if part else outer.left
                if (i, part) not in self._factors:
                    self._factors[i, part] = step_tensor(spec, factor.dtype, self._interval)
                place = self._factors[i, part][row]
            self._values["root", number] = place
        return following

    def _add_outers(self, steps: range) -> None:
        def group(t: int) -> int:
            return self.plan.branches[min(self._steps - 1 - t, len(self.plan.branches) - 1)].group

        for number, run in groupby(steps, group):
            rows = [t - steps.start for t in run]
            for k, outer in enumerate(self.plan.groups[number][1].outers):
                factors = [
                    (self._states[node.index] if node.op is LeafKind.STATE else self._factors[k, side])[
                        rows[0] : rows[-1] + 1
                    ]
                    for side, node in enumerate((outer.left, outer.right))
                ]
                so_far = self._outers.get((number, k))
                self._outers[number, k] = add_outer(self.spec, outer, factors, self._values, so_far)

    def _nothing(self, leaf: Node) -> Tensor:
        return step_tensor(self.spec, leaf.dtype).zero_()

    def _grad_state(self, j: int) -> Tensor | None:
        parts = [g for leaf, g in self._carried.items() if leaf.index == j]
        return None if not parts else sum(parts[1:], start=parts[0])
