"""ScanDispatcher: scans one core, each call by the kernels made for the calls like it, or by the loop.

A call passes three gates. *Guard*: is what the core reads still what it was? *Cache*: was there a call like this one?
*Dispatch*: which backend, which trace, which kernels, or is the loop all that will do?

What is remembered, and until when:

=====================  ==================================================  =============================================
of ``scan``            one dispatcher per core                             the 64 last used; a neuron holds its own
``_captures``          the places the core reads, constants with them      until a constant changes
``_entries``           a call's key -> what runs it                        the same, and the 1,024 newest
``Traces``             dtypes, device, constants -> trace, or why not      the 64 last used
``Family``             form of a run -> traces, of any constants           4 a form, 8 forms
``TraceEntry.bound``   shapes, strides, options -> kernels, or why not     the 64 last used, as long as the trace
``BoundScan``          present and wanted gradients -> backward kernel     as long as the ``BoundScan``
=====================  ==================================================  =============================================
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch._C._dynamo import eval_frame

from flexsn.captures.contract import callable_core, check_arity
from flexsn.captures.guards import Captures
from flexsn.errors import (
    BackendError,
    CoreError,
    FallbackWarning,
    FlexSNError,
    SourceLine,
    UnsupportedOpError,
    defined_at,
    stack_level,
)
from flexsn.execution.arguments import (
    alike,
    check_arguments,
    check_read,
    check_step,
    check_values,
    fit,
    is_memory,
    needs_loop,
)
from flexsn.execution.autograd import CallEntry, run_compiled
from flexsn.execution.backends import choose
from flexsn.execution.call import CallSpec
from flexsn.execution.forward import BoundScan
from flexsn.execution.loop import Results, scan_by_loop, transformed
from flexsn.execution.masks import Masks, RuledCall
from flexsn.execution.options import ScanOptions
from flexsn.execution.spike_tensor import SpikeTensor
from flexsn.execution.traces import REMEMBERED, Traces, check_devices, once, remember
from flexsn.ir.dtypes import compute_dtype
from flexsn.ir.layout import without_axis
from flexsn.kernels.backend import Backend

if TYPE_CHECKING:
    from flexsn.execution.alternating.forward import AlternatingScan

__all__ = ["ScanDispatcher", "constant_to_compile", "opaque_to_compile"]

Function = TypeVar("Function", bound=Callable[..., Any])


_BY_LOOP = "running the torch loop instead of a fused kernel"
_BY_EXAMPLES = "running the core on examples before every call of its kernel"
_said_of_the_machine: set[str] = set()  # a missing compiler is missing for every neuron, and said once
_NEW: Any = object()  # in the place of an entry that is not there
_ENVIRONMENT, _BACKEND = vars(os.environ)["_data"], os.environ.encodekey("FLEXSN_BACKEND")  # a look at os.environ: 1 us


class ScanDispatcher:
    """Scans one core.

    Args:
        core: ``core(*inputs, *states) -> (*outputs, *new_states)``.
        num_states: how many of its arguments are states.
        like: of another function of the same code, whose traces and kernels serve this one too.
    """

    def __init__(self, core: Callable[..., Any], num_states: int, like: ScanDispatcher | None = None) -> None:
        self.core = core = callable_core(core)
        self.num_states = num_states
        self._captures = mine = Captures(core)
        if mine.unwatched is not None or (like is not None and like._captures.code != mine.code):
            like = None  # a trace is compared with what its own core does
        self.traces: Traces = Traces(num_states) if like is None else like.traces
        self._entries: dict[Any, CallEntry | None] = {}  # None: the loop
        self._warned: set[str] = set()
        self._said: set[str] = set() if like is None else like._said  # of any core of the same code
        if like is not None and mine.key == like._captures.key:
            self._entries = like._entries

    def captures(self) -> Captures:
        """What the core reads, as it is now."""
        self.read()
        return self._captures

    def read(self) -> tuple[Captures, tuple[Tensor, ...]]:
        """The same, and the tensors there."""
        read = self._captures.read()
        if read is None:
            self._captures, self._entries = Captures(self.core), {}
            read = tuple([source.read() for source in self._captures.tensors])
        return self._captures, read

    def keeps_a_graph(self) -> bool:
        """Whether something the core reads has a graph of autograd."""
        read = (source.read() for source in self._captures.tensors)
        return any(isinstance(t, Tensor) and t.grad_fn is not None for t in read)

    def __call__(
        self,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        options: ScanOptions,
        masks: Masks | None = None,
        read: tuple[Tensor, ...] | None = None,
    ) -> Results:
        """Scan; returns ``(outputs, final_states, state_seqs)``, the sequences of the wanted states alone.

        If ``options.rate``, it is behind the outputs.

        Args:
            inputs, states, options, masks: of the call.
            read: what :meth:`read` has just found, if it was asked already.

        Raises:
            UnsupportedOpError, BackendError: the backend was asked for by name and cannot.
            CoreError: the core breaks its contract.
            ValueError: the arguments do not fit together.
        """
        if SpikeTensor in map(type, inputs):
            inputs = [x.dense() if isinstance(x, SpikeTensor) else x for x in inputs]
        call = None
        if masks is not None or options.has_rules:
            call = RuledCall.of(inputs, states, options, masks or Masks())
            inputs, states = call.inputs, call.states
        if read is None:
            read = self.read()[1]
        entry, inputs, states, options = self.prepare(inputs, states, options, call, read=read)
        if entry is None:
            options = options if call is None else call.options
            looped = scan_by_loop(self.core, inputs, states, options, parameters=read, call=call)
            return looped if call is None else call.finish(*looped)
        captured = entry.traced.captured(read)
        if call is not None:
            return self._by_rules(call, entry, captured)
        results = run_compiled(entry, inputs, states, captured)
        a, b = entry.num_outputs, len(results) - self.num_states
        return results[:a], results[b:], results[a:b]

    def prepare(
        self,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        options: ScanOptions,
        call: RuledCall | None = None,
        training: bool | None = None,
        read: tuple[Tensor, ...] | None = None,
    ) -> tuple[CallEntry | None, Sequence[Tensor], Sequence[Tensor], ScanOptions]:
        """What runs a call, ``None`` for the loop; its arguments as they fit together, and its options.

        Args:
            inputs, states, options, call: of the call.
            training: whether gradients will be wanted, where the tensors do not tell.
            read: what :meth:`read` has just found, if it was asked already.

        Raises: as a call does.
        """
        if read is None:
            read = self.read()[1]
        backend = options.backend
        if backend == "auto" and _BACKEND in _ENVIRONMENT:
            backend = os.environ["FLEXSN_BACKEND"]
        rules = None if call is None else call.rules
        everything = (*inputs, *states, *read) if call is None else (*inputs, *states, *read, *call.masks.tensors)
        kinds = alike(everything)
        read_ids = [id(t) for t in read]
        shared = tuple(map(read_ids.index, read_ids))  # which names hold one tensor decides what the kernel reads
        default = torch.get_default_dtype()
        key = (options, backend, torch.is_grad_enabled(), training, default, kinds, shared, rules)
        entry = self._entries.get(key, _NEW)
        if self._captures.unwatched is not None and not (entry is _NEW or entry is None or entry.traced.still_holds()):
            self._entries = {}
            entry = _NEW
        if entry is _NEW or transformed():
            given = (*inputs, *states)
            inputs, states, axis = fit(inputs, states, options.time_dim)
            options = replace(options, backend=backend, time_dim=axis)
            entry = self._new_entry(inputs, states, options, call, training)
            if kinds and not transformed() and all(a is b for a, b in zip(given, (*inputs, *states), strict=True)):
                remember(self._entries, key, entry, 16 * REMEMBERED)
        return entry, inputs, states, options

    def _by_rules(self, call: RuledCall, entry: CallEntry, captured: Sequence[Tensor]) -> Results:
        given = call.kernel_inputs, call.kernel_states(entry.traced.tracer.graph), (*call.once, *captured)
        results = run_compiled(entry, *given)
        a = 0 if call.rules.time_reduction else entry.num_outputs
        b = a + len(call.rules.wanted_states)
        return call.finish(results[:a], results[b:], results[a:b])

    # ---- what a new kind of call needs -----------------------------------------------------------------------

    def _new_entry(
        self,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        options: ScanOptions,
        call: RuledCall | None,
        training: bool | None,
    ) -> CallEntry | None:
        """Trace and compile for such a call; ``None`` where only the loop will do."""
        check_arity(self.core, len(inputs), len(states))
        loop = transformed() or any(map(needs_loop, (*inputs, *states, *(() if call is None else call.masks.tensors))))
        if loop and options.backend == "auto":
            return None
        chosen, problem = choose(options.backend, inputs[0].device)
        if problem is not None:
            self._warn(_BY_LOOP, problem)
        if chosen is None or inputs[0].shape[options.time_dim] == 0 or loop:
            return None
        try:
            return self._bind(chosen, inputs, states, options, call, training)
        except (UnsupportedOpError, BackendError) as error:
            if options.backend != "auto":
                raise
            self._warn(_BY_LOOP, error)
            return None
        except CoreError as error:
            broken = error
        if not isinstance(broken.where, SourceLine):  # the loop does not know a line, but the call's own shapes
            scan_by_loop(self.core, inputs, states, options)
        raise broken

    def _bind(
        self,
        backend: Backend,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        options: ScanOptions,
        call: RuledCall | None,
        training: bool | None,
    ) -> CallEntry:
        options = replace(options, backend=backend.name)  # kernels do not care who chose it
        dtypes = tuple(compute_dtype(x.dtype) for x in inputs), tuple(s.dtype for s in states)
        check_arguments(inputs, states)
        device, num_wanted = inputs[0].device, len(options.wanted_states)
        step = without_axis(inputs[0].shape, options.time_dim)
        read = check_read(self._captures.tensors)
        learned = () if call is None else call.masks.initial
        if training is None:
            training = torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *states, *read, *learned))
        traced = self.traces.find(self._captures, dtypes, device, options.wanted_states, step, training)
        if self._captures.unwatched is not None:
            self._warn(_BY_EXAMPLES, _not_all_watched(self.core, self._captures.unwatched))
        tracer, captured = traced.tracer, traced.captured(read)
        check_values(tracer.graph)
        check_devices(traced.names(self._captures), captured, device)
        check_step(torch.Size(step), tracer.param_shape, traced.names(self._captures), captured)
        rules = None
        if call is not None:
            rules = call.rules
            inputs, states = call.kernel_inputs, call.kernel_states(tracer.graph)
            captured = [*call.once, *captured]
        kinds = tuple((t.shape, t.stride(), t.dtype, is_memory(t)) for t in (*inputs, *states, *captured))

        def build() -> BoundScan | AlternatingScan:
            spec = CallSpec.of(tracer, backend, inputs, options, training, rules)
            if spec.way is not None and not spec.way.fused:
                from flexsn.execution.alternating import forward, one_step  # which few programs need

                way = one_step.OneStep if options.single_step else forward.AlternatingScan
                return way(spec).prepare(inputs, states, captured)
            return BoundScan(spec).prepare(inputs, states, captured)

        bound = once(traced.bound, (options, training, kinds, rules), build)
        return CallEntry(traced, bound, training, len(tracer.graph.outputs) - num_wanted)

    def _warn(self, what: str, problem: FlexSNError) -> None:
        text = f"{what}:\n{problem}"
        said = _said_of_the_machine if isinstance(problem, BackendError) else self._said
        if what not in self._warned and text not in said:
            warnings.warn(text, FallbackWarning, stacklevel=stack_level())
        self._warned.add(what)
        said.add(text)


def _not_all_watched(core: Callable[..., Any], reason: str) -> FlexSNError:
    return FlexSNError(
        f"what the core reads may change unseen: {reason}",
        where=defined_at(core),
        why="so it is looked at again each time, which costs a little and is right",
        hint="read numbers from arguments, closures, globals or attributes, in plain lists, dicts and classes",
    )


def opaque_to_compile(function: Function) -> Function:
    """Mark a function that ``torch.compile`` runs as it is, between two graphs, with all it calls.

    As ``torch.compiler.disable``, but without its wrapper (a microsecond a call) and its import of the compiler.
    """
    marked: Any = function
    marked._torchdynamo_disable = True
    marked._torchdynamo_disable_msg = "flexsn runs kernels of its own"
    if hasattr(eval_frame, "set_code_exec_strategy"):
        skip = eval_frame._FrameAction.SKIP
        eval_frame.set_code_exec_strategy(marked.__code__, eval_frame._FrameExecStrategy(skip, skip))
    return function


def constant_to_compile(function: Function) -> Function:
    """Mark a function that ``torch.compile`` calls while it makes a graph, whose result is a constant there.

    As ``torch.compiler.assume_constant_result``, but without its import of the compiler.
    """
    marked: Any = function
    marked._dynamo_marked_constant = True
    return function
