"""Record: run a function on example tensors and write down every torch operator it reaches.

The recorder sits below autograd, so a function that itself calls ``torch.autograd.grad`` is recorded with its
backward half, by autograd's own rules, whatever the surrogate gradients look like.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from flexsn.captures.contract import changed_in_place
from flexsn.errors import SourceLine, UnsupportedOpError, call_for_user, core_line
from flexsn.tracing.tape import Call, Tape, ValueRef, refs_in

__all__ = ["Recorder", "clean_context"]

_ALIASES = {"detach", "alias", "lift_fresh", "view_as"}
_VIEWS = {"view", "_unsafe_view", "reshape", "expand", "squeeze", "unsqueeze", "_reshape_alias"}
_SUMS = {"sum", "mean"}
_CONSTANTS = {
    *("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"),
    *("new_empty_strided", "zeros", "ones", "full", "empty", "empty_strided", "empty_permuted", "scalar_tensor"),
    "_efficientzerotensor",
}
_TO_PYTHON = {"_local_scalar_dense", "equal", "is_nonzero"}


class _Cell:
    """What a tensor object currently holds: tensors that alias each other share one."""

    def __init__(self, ref: ValueRef, argument: str | None = None) -> None:
        self.ref = ref
        self.argument = argument


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that fills a :class:`Tape`.

    Args:
        placeholders: named example tensors; what depends on them is ``live``.
        step_shape: of the placeholders.
        known: whether an operator on step-shaped values needs no decomposition.
        called: what the core calls the first placeholders, where that is known.
    """

    def __init__(
        self,
        placeholders: Mapping[str, Tensor],
        step_shape: torch.Size,
        known: Callable[[str], bool],
        called: Sequence[str] = (),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = Tape()
        self._step_shape = step_shape
        self._known = known
        self._alive: list[Tensor] = []
        self._cells: dict[int, _Cell] = {}
        self._by_storage: dict[tuple[Any, ...], _Cell] = {}
        self._views: dict[int, set[int]] = {}
        self._origin: Any = None
        for name, own, tensor in zip_longest(placeholders, called, placeholders.values()):
            cell = self._new_cell(tensor, argument=own or name)
            self.tape.arguments.append(name)
            self.tape.live.add(cell.ref.index)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # wrapping the mode for dynamo would import the whole compiler: a second per process

    def mark_backward(self) -> None:
        """What is recorded from here on belongs to the backward half."""
        self.tape.num_forward = len(self.tape.calls)

    def is_shaped(self, tensor: Tensor) -> bool:
        """Whether a tensor is as large as a placeholder, or was made from one that is."""
        cell = self._cells.get(id(tensor)) or self._by_storage.get(_storage_key(tensor))
        return cell is not None and (cell.ref.index in self.tape.live or cell.ref.index in self.tape.shaped)

    def ref(self, tensor: Tensor) -> ValueRef:
        """The recorded value a tensor holds now; an unknown tensor counts as captured."""
        return self._cell(tensor).ref

    # ---- bookkeeping --------------------------------------------------------------------------------------

    def _new_cell(self, tensor: Tensor, argument: str | None = None) -> _Cell:
        ref = ValueRef(len(self.tape.tensors))
        self.tape.tensors.append(tensor)
        cell = _Cell(ref, argument)
        self._bind(tensor, cell)
        return cell

    def _bind(self, tensor: Tensor, cell: _Cell) -> None:
        self._alive.append(tensor)  # so that neither its id nor its storage is used again
        self._cells[id(tensor)] = cell
        self._by_storage[_storage_key(tensor)] = cell
        self._views.setdefault(tensor.untyped_storage()._cdata, set()).add(id(cell))

    def _cell(self, tensor: Tensor) -> _Cell:
        cell = self._cells.get(id(tensor)) or self._by_storage.get(_storage_key(tensor))
        if cell is None:
            cell = self._new_cell(tensor)
            self.tape.captured[cell.ref.index] = tensor
        return cell

    def _to_refs(self, values: Any) -> Any:
        """Tensors as recorded values, lists as tuples."""
        if isinstance(values, (list, tuple)):
            return tuple(self._to_refs(item) for item in values)
        return self._cell(values).ref if isinstance(values, Tensor) else values

    # ---- the operators ------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunction():  # what the recorder asks, the core does not
            return self._operator(func, args, kwargs or {})

    def _operator(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name, line = _name(func), core_line()
        if name in _TO_PYTHON:
            raise UnsupportedOpError(
                "the core turns a tensor into a Python value (if, while, float(), .item())",
                where=line,
                why="one kernel runs for all lanes and steps, so Python cannot decide by the data",
                hint="choose by value with torch.where(condition, a, b)",
            )
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise UnsupportedOpError(
                f"{func} draws random numbers inside the core",
                where=line,
                why="a scan is a pure function of its arguments",
                hint="draw the noise outside and pass it as one more input",
            )
        if "::" in name and func._schema.is_mutable:
            raise UnsupportedOpError(
                f"{func} changes a tensor in place",
                where=line,
                why="what an operator that is not torch's own makes of a tensor is not known",
                hint="let it return a new tensor",
            )
        ref_args = tuple(self._to_refs(arg) for arg in args)
        ref_kwargs = {key: self._to_refs(value) for key, value in kwargs.items()}
        refs = list(refs_in((*ref_args, *ref_kwargs.values())))
        live = any(ref.index in self.tape.live for ref in refs)
        shaped = live or any(ref.index in self.tape.shaped for ref in refs)
        mutated = name.endswith("_") and not name.endswith("__") and func._schema.is_mutable
        stepwise = not mutated and name not in _VIEWS | _ALIASES | _SUMS and not self._known(name)
        if stepwise and any(isinstance(a, Tensor) and a.shape == self._step_shape for a in args):
            decomposed = _decompose(func)
            if decomposed is not None:
                with self, self._part_of(func):
                    return call_for_user(decomposed, *args, **kwargs)
        if mutated and live and not self._is_plain_write(name, args):
            with self, self._part_of(func):
                value = call_for_user(getattr(getattr(torch.ops.aten, name[:-1]), func._overloadname), *args, **kwargs)
                return call_for_user(args[0].copy_, value)
        out = call_for_user(func, *args, **kwargs)
        if name in _CONSTANTS:
            # not what has a parameter's shape, as the sum that is its gradient
            large = out.numel() >= self._step_shape.numel()
            shaped = out.shape == self._step_shape or (shaped and large and name.endswith("_like"))
            return self._constant(out, "empty" in name or "zero" in name, shaped, line)
        if mutated:
            self._write(func, name, args[0], ref_args, ref_kwargs, line)
            return out
        if name == "lift_fresh" and refs[0].index in self.tape.captured:
            self.tape.literals.add(refs[0].index)
        if isinstance(out, Tensor) and refs and _is_alias(name, out, args[0]):
            self._bind(out, self._cell(args[0]))
            return out
        outs = out if isinstance(out, (tuple, list)) else (out,)
        places = tuple(i for i, value in enumerate(outs) if isinstance(value, Tensor))
        cells = [self._new_cell(outs[i]) for i in places]
        for cell in cells:
            if shaped or self.tape.tensors[cell.ref.index].shape == self._step_shape:
                (self.tape.live if live else self.tape.shaped).add(cell.ref.index)
        results, within = tuple(cell.ref for cell in cells), None if out is not outs else places
        self.tape.calls.append(Call(func, self._origin or func, name, ref_args, ref_kwargs, results, line, within))
        return out

    @contextmanager
    def _part_of(self, func: Any) -> Iterator[None]:
        """What is recorded inside comes from ``func``, unless that came from another already."""
        before, self._origin = self._origin, self._origin or func
        try:
            yield
        finally:
            self._origin = before

    def _is_plain_write(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether an in-place operator has a rule and does not round through another dtype."""
        dtypes = {arg.dtype for arg in args if isinstance(arg, Tensor)}
        return name == "copy_" or (self._known(name[:-1]) and len(dtypes) == 1)

    def _constant(self, out: Tensor, zero: bool, shaped: bool, line: SourceLine | None) -> Tensor:
        """A tensor that holds one number everywhere, whatever it was shaped after."""
        value = 0 if zero or not out.numel() else out.flatten()[0].item()
        options = {"dtype": out.dtype, "device": out.device}
        result = self._new_cell(out).ref
        if shaped:
            self.tape.shaped.add(result.index)
        size = tuple(out.shape)
        self.tape.calls.append(Call(torch.full, torch.full, "full", (size, value), options, (result,), line))
        return out

    def _write(
        self,
        func: Any,
        name: str,
        target: Tensor,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        line: SourceLine | None,
    ) -> None:
        """An in-place operator becomes its functional form; every alias of the target sees the new value."""
        cell = self._cell(target)
        if cell.argument is not None:
            raise changed_in_place(cell.argument, f" ({func})", line)
        if cell.ref.index in self.tape.captured:
            raise UnsupportedOpError(
                f"the core changes a tensor from outside in place ({func})",
                where=line,
                why="a scan is a pure function of its arguments",
                hint="make it a state: an argument that the core returns anew",
            )
        if len(self._views[target.untyped_storage()._cdata]) > 1:
            raise UnsupportedOpError(
                f"the core writes through a view ({func})",
                where=line,
                why="other views of the same memory would change unseen",
                hint="build the value with torch.where or arithmetic instead",
            )
        ref = ValueRef(len(self.tape.tensors))
        self.tape.tensors.append(target)
        for kind in (self.tape.live, self.tape.shaped):
            if any(r.index in kind for r in refs_in((*args, *kwargs.values()))):
                kind.add(ref.index)
        self.tape.calls.append(Call(func, self._origin or func, name[:-1], args, kwargs, (ref,), line))
        cell.ref = ref


def _name(func: Any) -> str:
    """What an operator is called; only torch's own go by a name alone, or another's ``sin`` would pass for torch's."""
    name: str = func.overloadpacket.__name__
    return name if func.namespace in ("aten", "prims") else f"{func.namespace}::{name}"


def _is_alias(name: str, out: Tensor, source: Any) -> bool:
    if not isinstance(source, Tensor):
        return False
    return name in _ALIASES or (name in _VIEWS and out.shape == source.shape)


def _storage_key(tensor: Tensor) -> tuple[Any, ...]:
    storage = tensor.untyped_storage()._cdata
    return (storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)


def _decompose(func: Any) -> Callable[..., Any] | None:
    from torch._decomp import decomposition_table  # a second of imports that few cores need

    return decomposition_table.get(func)


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


class _Eager:
    """Nothing is compiled while any thread records: torch has one stance for all of them."""

    def __init__(self) -> None:
        self._lock, self._threads, self._stance = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._stance.enter_context(torch.compiler.set_stance("force_eager"))
            self._threads += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._stance.close()


_EAGER = _Eager()


@contextmanager
def clean_context() -> Iterator[None]:
    """Gradients on; autocast, inference mode, anomaly mode, compilation off: the caller's context must not leak in."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.is_anomaly_enabled():  # it looks into every gradient
            stack.enter_context(torch.autograd.set_detect_anomaly(False))
        stack.enter_context(saved_tensors_hooks(_unchanged, _unchanged))  # activation checkpointing brings its own
        if "torch._dynamo" in sys.modules:  # what a core has compiled is recorded like the rest
            stack.enter_context(_EAGER)
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
