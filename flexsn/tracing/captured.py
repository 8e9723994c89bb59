"""Captured: the tensors and numbers that the runs of a core read from outside, as leaves of the host program."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flexsn.ir.graph import Builder, Node
from flexsn.ir.step import Ref
from flexsn.tracing.host_program import HostProgram
from flexsn.tracing.runs import Run
from flexsn.tracing.tape import Tape, content_of

__all__ = ["Captured"]


class Captured:
    """Counts them, each once, in the order in which runs read them.

    Args:
        builder: makes the nodes of literals.
        host: gets the leaves.
        numbers: floats that are arguments: each as a tensor, before all others.
        device: of the step.

    Attributes:
        tensors: all so far.
        numbers: the leaves of a number, by its ``hex()``: for the step, and for the host.
    """

    def __init__(self, builder: Builder, host: HostProgram, numbers: Sequence[float], device: torch.device) -> None:
        self._builder, self._host = builder, host
        # the host asks for the value, and a kernel is given it where it runs: neither waits for the other
        self._devices = dict.fromkeys((device, torch.device("cpu")))
        self.tensors: list[Tensor] = []
        self._refs: dict[int, Ref] = {}  # by identity
        self._literals: dict[tuple[object, ...], Tensor] = {}
        self.numbers: dict[str, tuple[Ref, Ref]] = {}
        for number in numbers:
            refs = [self._add(tensor) for tensor in self._tensors(number)]
            self.numbers[number.hex()] = refs[0], refs[-1]

    @property
    def refs(self) -> list[Ref]:
        """Their leaves."""
        return list(self._refs.values())

    def read(self, tape: Tape) -> dict[int, Node | Ref]:
        """What a tape reads from outside, by position: literals, and captured tensors, which are counted."""
        found: dict[int, Node | Ref] = {}
        for position, tensor in tape.captured.items():
            if position in tape.literals and tensor.dim() == 0:
                found[position] = self._literal(tensor)
            else:
                known = self._known(tape, position)
                found[position] = self._refs.get(id(known)) or self._add(known)
        return found

    def counterparts(self, run: Run, of: Run) -> list[Tensor] | None:
        """What a run has in the places of ``tensors``, where another has these; ``None`` if it did something else.

        Args:
            run: any run.
            of: one that was read.
        """
        values: dict[str, float] = {}
        if run.form != of.form:
            return None
        for mine, other in zip(of.numbers, run.numbers, strict=True):
            key = mine.hex()
            expected = values.setdefault(key, other) if key in self.numbers and math.isfinite(other) else mine
            if expected.hex() != other.hex():
                return None
        numbers = [t for key in self.numbers for t in self._tensors(values.get(key, float.fromhex(key)))]
        found = {id(self._known(of.tape, p)): tensor for p, tensor in run.tape.captured.items()}
        return numbers + [found.get(id(t), t) for t in self.tensors[len(numbers) :]]

    def _literal(self, tensor: Tensor) -> Node | Ref:
        value = tensor.item()
        refs = self.numbers.get(value.hex()) if isinstance(value, float) else None
        if refs is None:
            return self._builder.const(value, tensor.dtype)
        number = refs[tensor.device.type == "cpu"]
        return self._host.call(torch.Tensor.to, (number,), {"device": tensor.device, "dtype": tensor.dtype})

    def _known(self, tape: Tape, position: int) -> Tensor:
        """A captured tensor; of a literal, which every run makes anew, the first of that content."""
        tensor = tape.captured[position]
        return self._literals.setdefault(content_of(tensor), tensor) if position in tape.literals else tensor

    def _add(self, tensor: Tensor) -> Ref:
        ref = self._refs[id(tensor)] = self._host.leaf(("captured", len(self.tensors)))
        self.tensors.append(tensor)
        return ref

    def _tensors(self, number: float) -> list[Tensor]:
        with torch.inference_mode(False):
            return [torch.full((), number, dtype=torch.float64, device=device) for device in self._devices]
