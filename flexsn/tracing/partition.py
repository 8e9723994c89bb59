"""Partition: sort recorded operators by shape into the kernel's step, and what torch does around it."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from flexsn.errors import UnsupportedOpError
from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.step import Outer, Reduction, Ref
from flexsn.tracing.host_program import HostProgram
from flexsn.tracing.lowering import Lowering, Unlowerable, is_known, lower
from flexsn.tracing.products import PRODUCTS, AcrossLanes, Products, Viewed
from flexsn.tracing.sentinel import Sentinel
from flexsn.tracing.tape import Call, Tape, ValueRef, refs_in

__all__ = ["Partitioner"]

_BY_MASK = {"index", "index_put", "masked_select", "nonzero"}
_SHAPE_ONLY = {"view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "_reshape_alias", "alias", "detach"}


@dataclass(frozen=True)
class _Post:
    """A host value that depends on reduced gradients."""

    ref: Ref


@dataclass(frozen=True)
class _Number:
    """A float that is an argument: to the step an operand of one value, to torch on the host a Python number."""

    operand: Ref
    host: Ref


_Value = Node | Viewed | Ref | Reduction | _Post
_BY_VALUE = {"pow"}  # compute in another way for some numbers


class Partitioner:
    """Walks a tape once and gives every recorded value its place.

    Args:
        builder: makes the step's nodes.
        host: collects what torch computes around the kernel.
        operands: grows by the host program's values that the step reads.
        products: grows by the products.
        sentinel: what the recording was made at.
        on_gpu: whether the step is for a GPU.
        numbers: every float, by its ``hex()``, that is an argument: its leaves for the step and for the host.
    """

    def __init__(
        self,
        builder: Builder,
        host: HostProgram,
        operands: list[Ref],
        products: Products,
        sentinel: Sentinel,
        on_gpu: bool,
        numbers: Mapping[str, tuple[Ref, Ref]],
    ) -> None:
        self._builder, self._host, self._operands = builder, host, operands
        self._sentinel, self._free, self._on_gpu = sentinel.shape, sentinel.free, on_gpu
        self._step_shape = sentinel.step_shape  # a core may compare with it whether to expand
        self._numbers = numbers
        self._values: dict[int, _Value] = {}
        self._tape = Tape()
        self.reductions: list[Reduction] = []
        self._across = AcrossLanes(sentinel.shape, products, builder, host, self._operand)

    def bind(self, ref: ValueRef, value: Node | Ref) -> None:
        """Say what a placeholder or captured tensor is."""
        self._values[ref.index] = value

    @property
    def outers(self) -> list[Outer]:
        """The gradients of matrices."""
        return self._across.outers

    def run(self, tape: Tape) -> None:
        """Sort all calls of the tape."""
        self._tape = tape
        self._device = tape.tensors[0].device
        for position, call in enumerate(tape.calls):
            backward = tape.num_forward is not None and position >= tape.num_forward
            self._sort(call, backward)

    def step_value(self, ref: ValueRef, what: str) -> Node:
        """The node of a value that must have the step shape."""
        value = self._values[ref.index]
        if isinstance(value, Viewed):
            raise self._mixes_lanes(value.call)
        if isinstance(value, Node) and self._tape.tensors[ref.index].shape == self._sentinel:
            return value
        if isinstance(value, Ref) and self._tape.tensors[ref.index].shape in (self._sentinel, self._step_shape):
            return self._operand(value, self._tape.tensors[ref.index].dtype)
        raise UnsupportedOpError(
            f"{what} has not the shape of the step",
            why="a fused kernel computes one value per lane",
            hint="expand it to the shape of the input, or compute it outside the core",
        )

    def host_value(self, ref: ValueRef) -> Ref:
        """The host value of a gradient that belongs to a captured tensor: of sums over time, or zero."""
        value = self._values[ref.index]
        if isinstance(value, (Reduction, _Post)):
            return self._post(value)
        if isinstance(value, Node) and value.is_const and not value.value:
            shape = tuple(self._tape.tensors[ref.index].shape)
            return self._host.call(torch.full, (shape, value.value), {"dtype": value.dtype, "device": self._device})
        if isinstance(value, Ref) and self._host.is_zero(value):
            return value
        if isinstance(value, Node) and not value.is_const:
            raise UnsupportedOpError("a parameter has one value per lane and step", hint="pass it as an input")
        raise UnsupportedOpError(
            "the gradient of a parameter does not depend on what flows back",
            why="it would have to be added up once per step",
            hint="a derivative is the gradient that comes in, times something",
        )

    # ---- one call -------------------------------------------------------------------------------------------

    def _sort(self, call: Call, backward: bool) -> None:
        args = list(map(self._lookup, call.args))
        kwargs = {key: self._lookup(value) for key, value in call.kwargs.items()}
        flat = [self._values[ref.index] for ref in refs_in((*call.args, *call.kwargs.values()))]
        reduced = [v for v in flat if isinstance(v, (Reduction, _Post))]
        shapes = [self._tape.tensors[r.index].shape for r in call.results]
        live = any(r.index in self._tape.live for r in call.results)
        of_step = live or any(isinstance(v, (Node, Viewed)) for v in flat)  # such as a gradient that is zero
        across = self._across.sort(call, args, self._tape) if of_step else None
        if across is not None:
            for r, value in zip(call.results, across, strict=True):
                self._values[r.index] = _Post(value) if isinstance(value, Ref) else value
        elif reduced:
            self._after_reduction(call, args, kwargs, flat)
        elif any(isinstance(v, Viewed) for v in flat):
            viewed = next(v for v in flat if isinstance(v, Viewed))
            raise self._mixes_lanes(call if call.name in PRODUCTS else viewed.call)
        elif len(shapes) == 1 and shapes[0] == self._sentinel:
            self._step_call(call, args, kwargs)
        elif backward and call.name == "sum" and any(isinstance(v, Node) for v in flat):
            self._reduce(call, args)
        elif live or any(ref.index in self._tape.shaped for ref in refs_in((*call.args, *call.kwargs.values()))):
            raise self._mixes_lanes(call)
        elif shapes == [()] and is_known(call.name) and not any(isinstance(v, (Ref, _Number)) for v in (*flat, *args)):
            self._literal(call, args, kwargs)
        else:
            self._host_call(call, args, kwargs, post=False)

    def _literal(self, call: Call, args: list[Any], kwargs: dict[str, Any]) -> None:
        """One value in which nothing from outside takes part: a constant, or computed once per call."""
        self._step_call(call, args, kwargs)
        if not cast(Node, self._values[call.results[0].index]).is_const:
            self._host_call(call, args, kwargs, post=False)

    def _step_call(self, call: Call, args: list[Any], kwargs: dict[str, Any]) -> None:
        result = call.results[0]
        if call.name == "expand" and isinstance(args[0], (Ref, Node)):
            self._values[result.index] = args[0]
            return
        tensors = [self._tape.tensors[r.index] for r in refs_in(call.args)]
        numbers = [a for a in call.args if isinstance(a, (bool, int, float))]
        common = _common_dtype([*tensors, *numbers])
        nodes = [self._as_node(a, r) for a, r in zip(args, call.args, strict=True)]
        options = {k: self._as_node(a, call.kwargs[k]) for k, a in kwargs.items()}
        like = self._tape.tensors[result.index]
        given = zip((*args, *kwargs.values()), (*nodes, *options.values()), strict=True)
        arguments = [node for a, node in given if isinstance(a, _Number)]
        try:
            if arguments and call.name in _BY_VALUE:
                raise Unlowerable("it computes in another way for some numbers, so its number is no argument")
            context = Lowering(self._builder, like.dtype, common, self._on_gpu, call.line, arguments)
            node = lower(context, call.name, nodes, options)
        except Unlowerable as error:
            raise UnsupportedOpError(
                f"{call.origin} cannot be part of a kernel", where=call.line, why=str(error)
            ) from None
        self._values[result.index] = node

    def _reduce(self, call: Call, args: list[Any]) -> None:
        source = self._tape.tensors[call.args[0].index]
        result = self._tape.tensors[call.results[0].index]
        dims = call.args[1] if len(call.args) > 1 and call.args[1] else range(source.dim())
        if source.shape != self._sentinel:
            raise self._mixes_lanes(call)
        summed = {d % source.dim() for d in dims}
        base = tuple(1 if d in summed else size for d, size in enumerate(source.shape))
        if any(free and size != 1 for free, size in zip(self._free, base, strict=True)):
            raise self._mixes_lanes(call)
        node = self._as_node(args[0], call.args[0])
        self._values[call.results[0].index] = Reduction(node, base, tuple(result.shape))

    def _after_reduction(self, call: Call, args: list[Any], kwargs: dict[str, Any], flat: list[Any]) -> None:
        shape = tuple(self._tape.tensors[call.results[0].index].shape)
        result = call.results[0].index
        if call.name in _SHAPE_ONLY and isinstance(args[0], Reduction):
            self._values[result] = Reduction(args[0].node, args[0].base, shape)
        elif call.name == "add" and len(args) == 2 and not kwargs and _same_place(args[0], args[1]):
            a, b = args[0].node, args[1].node
            total = self._builder.op("add", a, b, dtype=a.dtype, line=call.line)
            self._values[result] = Reduction(total, args[0].base, shape)
        elif any(isinstance(v, Node) and not v.is_const for v in flat) or shape == tuple(self._sentinel):
            raise self._mixes_lanes(call)
        else:
            self._host_call(call, args, kwargs, post=True)

    def _host_call(self, call: Call, args: list[Any], kwargs: dict[str, Any], post: bool) -> None:
        for r in call.results:
            shape = self._tape.tensors[r.index].shape
            aligned = zip(reversed(shape), reversed(self._sentinel), reversed(self._free), strict=False)
            if any(free and size == prime for size, prime, free in aligned):  # as large as the step somewhere
                if call.name == "expand":
                    self._values[r.index] = args[0]
                    return
                if not post:
                    raise self._mixes_lanes(call)
        whole = self._host.call(call.func, self._to_host(args), self._to_host(kwargs))
        refs = [whole]
        if call.places is not None:
            refs = [self._host.call(operator.getitem, (whole, i), {}) for i in call.places]
        for r, ref in zip(call.results, refs, strict=True):
            self._values[r.index] = _Post(ref) if post else ref

    # ---- arguments ------------------------------------------------------------------------------------------

    def _lookup(self, value: Any) -> Any:
        if isinstance(value, ValueRef):
            return self._values[value.index]
        if type(value) is float and value.hex() in self._numbers:
            return _Number(*self._numbers[value.hex()])
        return tuple(map(self._lookup, value)) if isinstance(value, tuple) else value

    def _as_node(self, value: Any, ref: Any) -> Any:
        if isinstance(value, Ref):
            return self._operand(value, self._tape.tensors[ref.index].dtype)
        return self._operand(value.operand, torch.float64) if isinstance(value, _Number) else value

    def _operand(self, ref: Ref, dtype: torch.dtype) -> Node:
        if ref not in self._operands:
            self._operands.append(ref)
        return self._builder.leaf(LeafKind.OPERAND, self._operands.index(ref), dtype)

    def _to_host(self, args: Any) -> Any:
        return tree_map_only((Reduction, _Post, Node, _Number), self._as_ref, args)

    def _as_ref(self, value: Reduction | _Post | Node | _Number) -> Ref:
        if isinstance(value, _Number):
            return self._host.call(float, (value.host,), {})
        if isinstance(value, Node):  # a literal: numbers in a call are no nodes, so torch expects a tensor
            return self._host.call(torch.full, ((), value.value), {"dtype": value.dtype, "device": self._device})
        return self._post(value)

    def _post(self, value: Reduction | _Post) -> Ref:
        if isinstance(value, _Post):
            return value.ref
        if value not in self.reductions:
            self.reductions.append(value)
        return self._host.leaf(("reduced", self.reductions.index(value)))

    def _mixes_lanes(self, call: Call) -> UnsupportedOpError:
        return UnsupportedOpError(
            f"{call.origin} mixes lanes",
            where=call.line,
            why="each neuron of a step is computed on its own; this op changes the shape of the step or "
            "reads across it",
            hint="keep the shape: torch.where(mask, new, old) instead of old[mask] = f(old[mask])"
            if call.name in _BY_MASK
            else "move it out of the core: to the layer before or after the neuron",
        )


def _same_place(a: Any, b: Any) -> bool:
    return isinstance(a, Reduction) and isinstance(b, Reduction) and (a.base, a.shape) == (b.base, b.shape)


def _common_dtype(values: Sequence[Tensor | bool | int | float]) -> torch.dtype:
    """The dtype torch compares two values in."""
    if len(values) == 1 and isinstance(values[0], Tensor):
        return values[0].dtype
    if len(values) == 2:
        return torch.result_type(values[0], values[1])
    return torch.float32
