"""ParameterBinding: parameters that live in a closure, an object or a global, registered on the neuron that uses them.

The registered tensor and the one its source holds are kept the same: whichever of the two was replaced last wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from operator import is_
from typing import Any

from torch import Tensor, nn

from flexsn.captures.guards import Captures
from flexsn.captures.source import WRITING, Source

__all__ = ["NOTHING_BOUND", "ParameterBinding", "register_parameters"]

NOTHING_BOUND: AbstractContextManager[None] = nullcontext()


def register_parameters(neuron: nn.Module, captures: Captures, names: dict[str, str]) -> None:
    """Register every parameter of the captures that the neuron does not own yet.

    Args:
        neuron: gets them, each under its variable name, dots turned to underscores.
        captures: of the neuron's core.
        names: extended by ``registered name -> name of the source``.
    """
    owned = {id(parameter) for parameter in neuron.parameters()}
    named = set(names.values())  # what is registered may have been replaced meanwhile, by a shard of it, say
    for path, parameter in captures.parameters():
        if id(parameter) not in owned and path not in named:
            name = _free_name(neuron, path)
            neuron.register_parameter(name, parameter)
            names[name] = path


def _free_name(neuron: nn.Module, path: str) -> str:
    wanted = re.sub(r"\W+", "_", path).strip("_")
    if not wanted.isidentifier():
        wanted = f"parameter_{wanted}".strip("_")
    name, count = wanted, 1
    while hasattr(neuron, name):
        name, count = f"{wanted}_{count}", count + 1
    return name


@dataclass
class _Bound:
    name: str
    sources: list[Source]
    agreed: Any  # what was registered and read when both were last the same


class ParameterBinding:
    """The registered parameters of one neuron and where its core reads them.

    Args:
        captures: of the neuron's core.
        names: ``registered name -> name of the source``.
        previous: the binding to earlier captures of the same core.
    """

    def __init__(self, captures: Captures, names: Mapping[str, str], previous: ParameterBinding | None = None) -> None:
        self.captures = captures
        same: dict[int, list[Source]] = {}
        sources: dict[str, list[Source]] = {}
        for source in captures.tensors:
            sources[source.name] = same.setdefault(id(source.read()), [])
            sources[source.name].append(source)
        agreed = {} if previous is None else {bound.name: bound.agreed for bound in previous._bound}
        self._bound: list[_Bound] = [
            _Bound(name, sources[path], agreed.get(name, sources[path][0].read()))
            for name, path in names.items()
            if path in sources
        ]
        self._names = [bound.name for bound in self._bound]
        self._places = [captures.tensors.index(bound.sources[0]) for bound in self._bound]

    def holds(self, neuron: nn.Module, read: Sequence[Tensor]) -> bool:
        """Whether what the core reads is what is registered."""
        registered = map(neuron._parameters.get, self._names)
        return all(map(is_, map(read.__getitem__, self._places), registered))

    def applied(self, neuron: nn.Module) -> AbstractContextManager[None]:
        """A context in which the core reads what is registered.

        What was put there for its length only, by ``torch.func.functional_call``, a parametrization, or a copy that
        reads a global, is taken back at the end.
        """
        read = [source.read() for source in self.captures.tensors]
        return NOTHING_BOUND if self.holds(neuron, read) else self._written(neuron)

    def bound_anew(self, neuron: nn.Module) -> str | None:
        """The name of a source that holds another parameter by now, which is not registered yet."""
        for bound in self._bound:
            read, registered = bound.sources[0].read(), neuron._parameters.get(bound.name)
            if read is not registered and read is not bound.agreed and isinstance(read, nn.Parameter):
                return bound.sources[0].name
        return None

    @contextmanager
    def _written(self, neuron: nn.Module) -> Iterator[None]:
        with WRITING, ExitStack() as undo:
            for bound in self._bound:
                self._write(bound, neuron, undo)
            yield

    @staticmethod
    def _write(bound: _Bound, neuron: nn.Module, undo: ExitStack) -> None:
        registered: dict[str, Any] = neuron._parameters
        current = registered.get(bound.name)
        if current is None:
            current = getattr(neuron, bound.name, None)  # parametrized, pruned, or a DataParallel replica
        read = bound.sources[0].read()
        if read is current or not isinstance(current, Tensor):
            return
        if read is not bound.agreed:
            if isinstance(read, nn.Parameter) and bound.name in registered:
                registered[bound.name] = bound.agreed = read  # the variable was bound to another parameter
            return
        lasting = isinstance(current, nn.Parameter) and not bound.sources[0].shared
        for source in bound.sources:
            if not lasting:
                undo.callback(source.write, read)
            source.write(current)
        if lasting:
            bound.agreed = current
