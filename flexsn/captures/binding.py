"""ParameterBinding: parameters that live in a closure, an object or a global, registered on the neuron that uses them.

The registered tensor and the place it was found in are kept one: whichever of the two was replaced last wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from flexsn.captures.guards import Captures
from flexsn.captures.source import WRITING, Source

__all__ = ["ParameterBinding", "register_parameters"]


def register_parameters(neuron: nn.Module, captures: Captures, names: dict[str, str]) -> None:
    """Register every parameter of the captures that the neuron does not own yet.

    Args:
        neuron: gets them, each under its variable name, dots turned to underscores.
        captures: of the neuron's core.
        names: extended by ``registered name -> name of the source``.
    """
    owned = {id(parameter) for parameter in neuron.parameters()}
    for path, _, parameter in captures.parameters():
        if id(parameter) not in owned:
            name = _free_name(neuron, path)
            neuron.register_parameter(name, parameter)
            names[name] = path


def _free_name(neuron: nn.Module, path: str) -> str:
    wanted = re.sub(r"\W+", "_", path).strip("_") or "parameter"
    if wanted[0].isdigit():
        wanted = f"parameter_{wanted}"
    name, count = wanted, 1
    while hasattr(neuron, name):
        name, count = f"{wanted}_{count}", count + 1
    return name


@dataclass
class _Bound:
    name: str
    sources: list[Source]
    seen: Any  # what the place held when both were last the same


class ParameterBinding:
    """The registered parameters of one neuron and where its core reads them.

    Args:
        captures: of the neuron's core.
        names: ``registered name -> name of the source``.
        previous: the loans of an earlier captures of the same core.
    """

    def __init__(self, captures: Captures, names: Mapping[str, str], previous: ParameterBinding | None = None) -> None:
        self.captures = captures
        self._loans: list[_Bound]
        places: dict[str, list[Source]] = {}
        aliases: dict[int, list[Source]] = {}
        for source in captures.tensors:
            places[source.name] = together = aliases.setdefault(id(source.read()), [])
            together.append(source)
        seen = {} if previous is None else {loan.name: loan.seen for loan in previous._loans}
        self._loans = [
            _Bound(name, places[path], seen.get(name, places[path][0].read()))
            for name, path in names.items()
            if path in places
        ]

    def put(self, neuron: nn.Module) -> list[tuple[Source, Any]] | None:
        """Make the core read what is registered.

        Returns:
            ``None``, or what :meth:`take_back` has to undo after the call: tensors that were put there for its
            length only, by ``torch.func.functional_call``, a parametrization, or a copy that reads a global.
        """
        registered: dict[str, Any] = neuron._parameters
        if all(loan.sources[0].read() is registered.get(loan.name) for loan in self._loans):
            return None
        WRITING.acquire()
        undo: list[tuple[Source, Any]] = []
        try:
            self._put(neuron, undo)
        except BaseException:
            self.take_back(undo)
            raise
        if undo:
            return undo
        WRITING.release()
        return None

    def _put(self, neuron: nn.Module, undo: list[tuple[Source, Any]]) -> None:
        registered: dict[str, Any] = neuron._parameters
        for loan in self._loans:
            current = registered.get(loan.name)
            if current is None:
                current = getattr(neuron, loan.name, None)  # parametrized, pruned, or a DataParallel replica
            held = loan.sources[0].read()
            if held is current or not isinstance(current, Tensor):
                continue
            if held is not loan.seen:
                if isinstance(held, nn.Parameter) and loan.name in registered:
                    registered[loan.name] = loan.seen = held  # the variable was bound to another parameter
                continue
            for source in loan.sources:
                source.write(current)
            if isinstance(current, nn.Parameter) and not loan.sources[0].shared:
                loan.seen = current
            else:
                undo += [(source, held) for source in loan.sources]

    @staticmethod
    def take_back(undo: list[tuple[Source, Any]]) -> None:
        """Undo what :meth:`put` did for one call."""
        for source, value in undo:
            source.write(value)
        WRITING.release()
