"""A scan in a graph of ``torch.compile`` or ``torch.export``: the part of a call that Dynamo traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import flexsn.graphs.operators  # noqa: F401  registers them
from flexsn.captures.binding import NOTHING_BOUND, ParameterBinding
from flexsn.captures.guards import Captures
from flexsn.execution.dispatch import ScanDispatcher, constant_to_compile
from flexsn.execution.loop import Results
from flexsn.execution.masks import Masks
from flexsn.execution.options import ScanOptions
from flexsn.graphs.cores import GivenCore, is_one
from flexsn.graphs.describe import Described, described, parameter_paths
from flexsn.modules.internals import Internals

__all__ = ["InGraph", "core_in_graph", "neuron_in_graph"]

Tensors = tuple[Tensor, ...]


class InGraph(nn.Module):
    """A module whose core graphs scan."""

    _flexsn_internal: ClassVar[frozenset[str]] = frozenset()

    _flexsn: Internals

    def _dispatcher(self) -> ScanDispatcher:
        raise NotImplementedError

    def _binding(self, captures: Captures) -> ParameterBinding:
        raise NotImplementedError

    @contextmanager
    def _scanned(self) -> Iterator[ScanDispatcher]:
        """The dispatcher, for the length of a call, in which the core reads what is registered."""
        binding = self._binding(self._dispatcher().captures()) if self._flexsn.bound_names else None
        with binding.applied(self) if binding else NOTHING_BOUND:
            yield self._dispatcher()

    def _bound_anew(self, handed: Mapping[str, Tensor]) -> str | None:
        """The name of a variable that is bound to a tensor that is not the neuron's."""
        bound, (captures, tensors) = self._flexsn.bound_names, self._dispatcher().read()
        name = self._binding(captures).bound_anew(self) if bound else None
        unbound = {n: t for n, t in handed.items() if n not in bound.values()}
        if name is not None or not unbound:
            return name
        read = {source.name: tensor for source, tensor in zip(captures.tensors, tensors, strict=True)}
        other = [n for n, t in unbound.items() if n in read and not is_one(t, read[n])]
        owned = {id(t) for t in (*self.parameters(), *self.buffers())} if other else set()
        return next((n for n in other if id(read[n]) not in owned), None)


def neuron_in_graph(
    neuron: InGraph, inputs: Tensors, states: Tensors, options: ScanOptions, masks: Masks | None
) -> Results | None:
    """What the neuron's dispatcher returns, as one node of the graph; ``None`` where there can be none."""
    paths = None if torch._C._are_functorch_transforms_active() else _paths_of_neuron(neuron)
    if paths is None:
        return None
    parameters = [_attribute(neuron, path) for _, path in paths]
    groups = [list(inputs), list(states), _tensors_of(masks), parameters]
    learning = any(t.requires_grad for group in groups for t in group)
    found = _described(neuron, options, tuple([name for name, _ in paths]), *_kind(groups, masks, learning))
    return None if found is None else _node(found, len(options.wanted_states), groups)


def core_in_graph(
    core: Callable[..., Any],
    dispatcher_of: Callable[..., ScanDispatcher],
    inputs: Tensors,
    states: Tensors,
    asked: tuple[Any, ...],
    masks: Masks | None,
) -> Results | None:
    """The same for a core given to ``scan``, with the options asked for."""
    if torch._C._are_functorch_transforms_active():
        return None
    id(core)  # the graph is for this very function
    names = _names_of_core(core, dispatcher_of, len(states))
    parameters = [_tensor_of_core(core, dispatcher_of, len(states), name) for name in names]
    groups = [list(inputs), list(states), _tensors_of(masks), parameters]
    learning = len(names) > 0 or any(t.requires_grad for group in groups[:3] for t in group)
    found = _core_described(core, dispatcher_of, asked, names, *_kind(groups, masks, learning))
    return None if found is None else _node(found, len(asked[4]), groups)


def _tensors_of(masks: Masks | None) -> list[Tensor]:
    return [] if masks is None else list(masks.tensors)


def _kind(groups: list[list[Tensor]], masks: Masks | None, learning: bool) -> tuple[Any, ...]:
    """The fields of :class:`~flexsn.graphs.describe.Kind`."""
    inputs, states, _, _ = groups
    given = () if masks is None else (("lengths", masks.lengths), ("reset_mask", masks.reset_mask))
    training = learning and torch.is_grad_enabled() and not torch.compiler.is_exporting()
    return (
        tuple([x.dtype for x in inputs]),
        tuple([s.dtype for s in states]),
        max([x.dim() for x in inputs]),
        inputs[0].device,
        tuple([name for name, mask in given if mask is not None]),
        training,
        () if masks is None else tuple([j for j, i in enumerate(masks.initial) if i.requires_grad]),
    )


def _node(found: tuple[str, str, int, tuple[int, ...]], num_wanted: int, groups: list[list[Tensor]]) -> Results:
    key, call, num_outputs, packed = found
    everything = torch.ops.flexsn.scan(key, call, *groups)
    stand_ins, results = everything[: len(packed)], everything[len(packed) :]
    a, b = num_outputs, num_outputs + num_wanted
    outputs = list(results[:a])
    for stand_in, i in zip(stand_ins, packed, strict=True):
        outputs[i] = _Unpacked.apply(stand_in, outputs[i])  # type: ignore[no-untyped-call]
    return tuple(outputs), tuple(results[b : b + len(groups[1])]), tuple(results[a:b])


class _Unpacked(torch.autograd.Function):
    """An output stored in integers, as the floats it stands for."""

    @staticmethod
    def forward(ctx: Any, stand_in: Tensor, stored: Tensor) -> Tensor:
        return stored.to(stand_in.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _attribute(neuron: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), neuron)


# ---- constants of a graph -------------------------------------------------------------------------------------

_described = constant_to_compile(described)


@constant_to_compile
def _paths_of_neuron(neuron: InGraph) -> tuple[tuple[str, str], ...] | None:
    named = {**dict(neuron.named_parameters()), **dict(neuron.named_buffers())}
    return parameter_paths(neuron, named, neuron._flexsn.bound_names)


@constant_to_compile
def _names_of_core(core: Any, dispatcher_of: Callable[..., ScanDispatcher], num_states: int) -> tuple[str, ...]:
    read = {id(t): s.name for s in dispatcher_of(core, num_states).captures().tensors if (t := s.read()).requires_grad}
    return tuple(read.values())


@constant_to_compile
def _tensor_of_core(core: Any, dispatcher_of: Callable[..., ScanDispatcher], num_states: int, name: str) -> Any:
    return next(s.read() for s in dispatcher_of(core, num_states).captures().tensors if s.name == name)


@constant_to_compile
def _core_described(
    core: Any, dispatcher_of: Callable[..., ScanDispatcher], asked: tuple[Any, ...], names: Any, *kind: Any
) -> Described:
    given = GivenCore.of(dispatcher_of(core, len(kind[1])))
    return described(given, ScanOptions(*asked), names, *kind)
