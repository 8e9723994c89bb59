"""Outputs reduced over time: an accumulator is a state, so a kernel writes one value per lane instead of T."""

from __future__ import annotations

from dataclasses import replace

import torch

from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.step import StepGraph, StepVjp
from flexsn.ir.substitute import Substitution
from flexsn.planning.request import Vjp
from flexsn.planning.rules import SequenceRules, accumulator_dtype

__all__ = ["with_reductions"]


def with_reductions(step: StepGraph, vjp: Vjp, rules: SequenceRules) -> tuple[StepGraph, Vjp]:
    """The step whose accumulators are its last states; what is reduced is no output any more."""
    builder, num_states = step.builder, len(step.states)
    num_outputs = len(step.outputs) - len(rules.wanted_states)
    dropped = num_outputs if rules.time_reduction else 0
    accumulators = [
        _Accumulator(builder, num_states + i, how, step.outputs[k])
        for i, (k, how) in enumerate(rules.accumulated(num_outputs))
    ]
    of_output = [k for k, _ in rules.accumulated(num_outputs)]

    def vjp_of_reduced(outputs: tuple[bool, ...], states: tuple[int, ...], apart: bool, last: bool) -> StepVjp:
        comes = [
            bool(n) and a.state.dtype.is_floating_point for n, a in zip(states[num_states:], accumulators, strict=True)
        ]
        given: dict[int, list[Node]] = {k: [] for k in range(len(step.outputs))}
        for k, there in enumerate(outputs, start=dropped):
            if there:
                given[k] = [builder.leaf(LeafKind.COTANGENT, k - dropped, step.outputs[k].dtype)]
        added = [(k, a) for k, a, there in zip(of_output, accumulators, comes, strict=True) if there]
        own = vjp(tuple(bool(g) or k in dict(added) for k, g in given.items()), states[:num_states], apart, last)
        incoming = _incoming(step, given, added, states[:num_states] if last else (), together=not rules.lengths)
        own = own.copied(Substitution(builder, incoming))
        carried = (a.grad_before() if there else () for a, there in zip(accumulators, comes, strict=True))
        return replace(own, grad_states=(*own.grad_states, *carried))

    changed = replace(
        step,
        states=(*step.states, *(a.state for a in accumulators)),
        outputs=step.outputs[dropped:],
        new_states=(*step.new_states, *(a.following() for a in accumulators)),
    )
    return changed, vjp_of_reduced


def _incoming(
    step: StepGraph,
    given: dict[int, list[Node]],
    added: list[tuple[int, _Accumulator]],
    finals: tuple[int, ...],
    together: bool,
) -> dict[Node, Node]:
    """What stands for the cotangents of outputs, and for sums of them where one value is several outputs.

    The loop adds what a value receives as a result first, then of the youngest use first: stacks, then accumulators.

    Args:
        step: without accumulators.
        given: per output, its own cotangent.
        added: which output goes into which accumulator that has a cotangent.
        finals: which final states have cotangents, if the step is the last.
        together: whether outputs that are one value receive their gradients as one; not if each ends by itself.
    """
    builder = step.builder
    results = [(k, a.grad_output()) for k, a in added if a.is_output]
    uses = [(k, a.grad_output()) for k, a in reversed(added) if not a.is_output]

    def leaf(k: int) -> Node:
        return builder.leaf(LeafKind.COTANGENT, k, step.outputs[k].dtype)

    def received(outputs: list[int], before: list[Node]) -> Node:
        summands = [g for k, g in results if k in outputs] + before
        summands += [g for k in outputs for g in given[k]]
        return _sum(builder, summands + [g for k, g in uses if k in outputs])

    present = [k for k in reversed(given) if given[k] or k in dict(added)]
    incoming = {leaf(k): received([k], []) for k in present}
    for value in dict.fromkeys(step.outputs[k] for k, _ in added) if together else ():
        outputs = [k for k in present if step.outputs[k] is value]
        ends = [j for j, comes in enumerate(finals) if comes and step.new_states[j] is value]
        before = [builder.leaf(LeafKind.STATE_COTANGENT, j, value.dtype) for j in ends]
        if len(before) + len(outputs) > 1:
            incoming[_sum(builder, before + [leaf(k) for k in outputs])] = received(outputs, before)
    return incoming


class _Accumulator:
    """A state that an output goes into, step by step, from 0."""

    def __init__(self, builder: Builder, index: int, how: str, output: Node) -> None:
        self._builder, self._how = builder, how
        dtype = accumulator_dtype(how, output.dtype)
        self.state = builder.leaf(LeafKind.STATE, index, dtype)
        self._output, self._value = output, builder.cast(output, dtype)
        self.is_output = how == "last"  # of the last step, there and then

    def following(self) -> Node:
        """The accumulator after the step."""
        if self._how == "last":
            return self._value
        if self._how == "sum":
            return self._builder.op("add", self.state, self._value, dtype=self.state.dtype)
        return self._where(self._value, self.state)

    def grad_output(self) -> Node:
        """The gradient of the output, from that of the accumulator after the step."""
        grad = self._grad
        if self._how == "max":
            grad = self._where(grad, self._builder.const(0, grad.dtype))
        return self._builder.cast(grad, self._output.dtype)

    def grad_before(self) -> tuple[Node, ...]:
        """The gradient of the accumulator before the step."""
        if self._how == "last":
            return ()
        grad = self._grad
        return (grad if self._how == "sum" else self._where(self._builder.const(0, grad.dtype), grad),)

    @property
    def _grad(self) -> Node:
        return self._builder.leaf(LeafKind.STATE_COTANGENT, self.state.index, self.state.dtype)

    def _where(self, a: Node, b: Node) -> Node:
        """``a`` where the step is the first that holds the maximum so far; NaN is larger than any number."""
        builder, state = self._builder, self.state
        zero = builder.const(0, torch.int64)
        first = builder.op("eq", builder.coordinate(LeafKind.STEP_INDEX), zero, dtype=torch.bool)
        larger = builder.op("gt", self._value, state, dtype=torch.bool)
        if state.dtype.is_floating_point:
            new_nan, old_nan = (builder.op("isnan", n, dtype=torch.bool) for n in (self._value, state))
            was_number = builder.op("logical_not", old_nan, dtype=torch.bool)
            larger = _or(builder, larger, builder.op("logical_and", new_nan, was_number, dtype=torch.bool))
        return builder.op("where", _or(builder, first, larger), a, b, dtype=a.dtype)


def _or(builder: Builder, a: Node, b: Node) -> Node:
    return builder.op("logical_or", a, b, dtype=torch.bool)


def _sum(builder: Builder, nodes: list[Node]) -> Node:
    total, *others = nodes
    for node in others:
        total = builder.op("add", total, node, dtype=node.dtype)
    return total
