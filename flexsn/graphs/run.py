"""GraphRun: what runs a call in a graph, forward and backward, with what the core read when it ran forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flexsn.captures.snapshot import Snapshot
from flexsn.captures.source import WRITING
from flexsn.errors import FlexSNError, GradientError
from flexsn.execution.autograd import CallEntry, gradients
from flexsn.execution.dispatch import ScanDispatcher
from flexsn.graphs.call import GraphCall
from flexsn.graphs.cores import Scanned, number_of, scanned
from flexsn.graphs.kernel_call import KernelCall, pulled_back
from flexsn.ir.layout import TensorSpec

__all__ = ["GraphRun", "find", "pulled_back", "ran"]

Tensors = Sequence[Tensor]
Groups = Sequence[Tensors]
Gradients = Sequence[Tensor | None]


@dataclass(frozen=True, eq=False)
class GraphRun:
    """What runs a call: kernels of its kind, or, with ``entry`` ``None``, the dispatcher as it runs every call.

    Attributes:
        call: the call.
        entry: kernels that keep checkpoints.
        dispatcher: of the core.
        snapshot: what the core read.
        tensors: those it read, by name.
        read: the tensors in the places of the graph's parameters.
        captured: the tensors the kernels are given.
        places: which of the parameters each of these is; ``None`` for one the graph does not hand in.
        number: the token, equal for equal constants.
    """

    call: GraphCall
    entry: CallEntry | None
    dispatcher: ScanDispatcher
    snapshot: Snapshot
    tensors: dict[str, Tensor]
    read: tuple[Tensor, ...]
    captured: tuple[Tensor, ...]
    places: tuple[int | None, ...]
    number: int

    def forward(self, groups: Groups) -> tuple[Tensors, Tensors]:
        """Outputs, sequences of wanted states and final states; and checkpoints."""
        if self.entry is None:
            return self.replay(groups), []
        given = self._given(groups)
        captured = (*given.once, *self._captured(groups[-1]))
        results, kept = self.entry.bound.forward(given.inputs, given.states, captured)
        return given.finish(results, self.entry.num_outputs), kept

    def backward(self, groups: Groups, kept: Tensors, grads: Gradients, needs: Sequence[bool]) -> Gradients:
        """Gradients of all arguments; ``None`` where none is needed or none flows."""
        flat = [t for group in groups for t in group]
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_(need) for t, need in zip(flat, needs, strict=True)]
            split = _grouped(leaves, groups)
            if self.entry is None:
                results = self.replay(split)
            else:
                given = self._given(split)
        if self.entry is None:
            return pulled_back(leaves, results, grads, needs)
        count = len(flat) - len(groups[-1])
        of_given, of_parameters = self._by_kernels(given, groups[-1], kept, grads, needs[count:])
        arguments = _through(leaves[:count], (*given.inputs, *given.states), of_given, needs[:count])
        return [*arguments, *of_parameters]

    def replay(self, groups: Groups, backend: str | None = None) -> tuple[Tensor, ...]:
        """The results, as of a call outside of graphs, with the core reading what it read."""
        inputs, states, masks, parameters = groups
        options = self.call.options if backend is None else replace(self.call.options, backend=backend)
        with self._reading(parameters):
            outputs, finals, seqs = self.dispatcher(inputs, states, options, self.call.masked(masks))
        return (*outputs, *seqs, *finals)

    @contextmanager
    def _reading(self, parameters: Tensors) -> Iterator[None]:
        instead = {id(old): new for old, new in zip(self.read, parameters, strict=True) if old is not new}
        with WRITING:
            changed = (self.snapshot.replacing(instead) if instead else self.snapshot).put_back()
            try:
                yield
            finally:
                for _, undo in changed:
                    undo()

    def _given(self, groups: Groups) -> KernelCall:
        assert self.entry is not None
        return KernelCall.of(self.call, groups, self.entry.traced.tracer.graph)

    def _captured(self, parameters: Tensors) -> list[Tensor]:
        """The captured tensors, those the graph hands in as it does."""
        pairs = zip(self.captured, self.places, strict=True)
        return [t if place is None else _laid_out_as(t, parameters[place]) for t, place in pairs]

    def _by_kernels(
        self, given: KernelCall, parameters: Tensors, kept: Tensors, grads: Gradients, needs: Sequence[bool]
    ) -> tuple[Gradients, Gradients]:
        """Gradients of what the kernels are given, and of the parameters that need one."""
        assert self.entry is not None
        inputs, states = ([t.detach() for t in group] for group in (given.inputs, given.states))
        captured, bound = (*given.once, *self._captured(parameters)), self.entry.bound
        promised = [TensorSpec.of(t) for t in kept[: len(bound.checkpoints)]]
        if promised != bound.checkpoints or self.call.read_again != bound.read_again:
            kept = bound.forward(inputs, states, captured)[1]
        wanted = [t.requires_grad for t in (*given.inputs, *given.states)]
        wanted += [*(False for _ in given.once), *(place is not None and needs[place] for place in self.places)]
        grads = given.before_finish(grads, bound.results(), self.entry.num_outputs)
        found = gradients(self.entry, (*inputs, *states, *captured, *kept), grads, wanted)
        of_parameters: list[Tensor | None] = [None] * len(parameters)
        for place, gradient in zip(self.places, found[len(found) - len(self.places) :], strict=True):
            if place is not None:
                of_parameters[place] = gradient
        return found[: len(inputs) + len(states)], of_parameters


def find(core: str, call: GraphCall, groups: Groups, training: bool) -> GraphRun:
    """What runs such a call now."""
    inputs, states, masks, parameters = groups
    of = scanned(core, len(states))
    _check_current(of, core, call, parameters)
    with of._scanned() as dispatcher, torch.enable_grad():
        ruled = call.ruled(inputs, states, masks)
        if ruled is not None:
            inputs, states = ruled.inputs, ruled.states
        entry = dispatcher.prepare(inputs, states, call.options, ruled, training)[0]
        captures, tensors = dispatcher.read()
        named = {source.name: tensor for source, tensor in zip(captures.tensors, tensors, strict=True)}
        run: GraphRun | None = None if entry is None else entry.in_graphs.get(call)
        if run is None or any(t is not run.tensors.get(name) for name, t in named.items()):
            read = _read(named, call, training)
            place = {id(t): i for i, t in enumerate(read)}
            captured = () if entry is None else tuple(entry.traced.captured(tensors))
            places = tuple(place.get(id(t)) for t in captured)
            number = number_of(captures)
            run = GraphRun(call, entry, dispatcher, Snapshot(captures), named, read, captured, places, number)
            if entry is not None:
                entry.in_graphs[call] = run
    return run


def _check_current(of: Scanned, core: str, call: GraphCall, parameters: Tensors) -> None:
    """A graph hands in what a variable held when it was made, or what is registered: is that what the core reads?"""
    if "#" not in core:  # a program has parameters of its own
        return
    name = of._bound_anew(dict(zip(call.parameters, parameters, strict=True)))
    if name is not None:
        raise FlexSNError(
            f"a compiled graph hands in the parameter that {name} was when the graph was made; by now it is another",
            why="which tensors a core reads is fixed when a graph is made; their values and its numbers are not",
            hint="write into the parameter, replace the one a neuron has registered (neuron.name = ...), or call "
            "torch.compiler.reset()",
        )


def ran(core: str, call: GraphCall, groups: Groups, kept: Tensors) -> GraphRun:
    """What ran forward, and kept these."""
    run: GraphRun | None = getattr(kept[-1], "run", None) if kept else None
    if run is not None:
        return run
    run = find(core, call, groups, True)  # the graph keeps nothing, or hooks made copies of it
    if kept and int(kept[-1]) != run.number:
        raise GradientError(
            "what the core reads was changed between a forward pass and its backward pass",
            why="the tensors kept for the backward pass were copied meanwhile, and what ran is forgotten",
            hint="change constants after the backward pass",
        )
    return run


def _read(named: dict[str, Tensor], call: GraphCall, training: bool) -> tuple[Tensor, ...]:
    """The tensors in the places of the graph's parameters."""
    read = tuple(named[name] for name in call.parameters if name in named)
    known = {id(t) for t in read}
    if len(read) < len(call.parameters) or any(
        training and t.requires_grad and id(t) not in known for t in named.values()
    ):
        raise FlexSNError(
            f"a compiled graph hands in {', '.join(call.parameters) or 'no parameters'}, "
            f"and now the core reads {', '.join(named) or 'none'}",
            why="which tensors a core reads is fixed when a graph is made; their values and its numbers are not",
            hint="torch.compiler.reset() compiles anew",
        )
    return read


def _grouped(flat: Tensors, like: Groups) -> list[Tensors]:
    rest = iter(flat)
    return [[next(rest) for _ in group] for group in like]


def _laid_out_as(like: Tensor, given: Tensor) -> Tensor:
    """A tensor with the strides of the one a kernel was bound to."""
    return given if given.stride() == like.stride() else torch.empty_like(like).copy_(given)


def _through(leaves: Tensors, given: Tensors, grads: Gradients, needs: Sequence[bool]) -> Gradients:
    """Gradients of arguments, of those of what kernels are given."""
    if len(leaves) == len(given) and all(a is b for a, b in zip(leaves, given, strict=True)):
        return grads
    return pulled_back(leaves, given, grads, needs)
