"""What a graph is told of a scan while it is made: constants for ``torch.compile``, found by tracing the core."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.fx._symbolic_trace import _orig_module_call
from torch.overrides import _pop_mode_temporarily
from torch.utils._python_dispatch import _disable_current_modes

from flexsn.captures.snapshot import Snapshot
from flexsn.captures.source import WRITING
from flexsn.errors import FlexSNError
from flexsn.execution.backends import choose
from flexsn.execution.call import CallSpec
from flexsn.execution.dispatch import ScanDispatcher
from flexsn.execution.masks import rules_of
from flexsn.execution.options import ScanOptions
from flexsn.execution.output_dtype import OutputDtype, resolve_output_dtypes
from flexsn.execution.spike_tensor import SpikeTensor
from flexsn.execution.traces import TraceEntry
from flexsn.graphs.call import GraphCall, GraphOutput
from flexsn.graphs.cores import Scanned, key_of
from flexsn.ir.dtypes import HALF, compute_dtype
from flexsn.ir.layout import without_axis
from flexsn.ir.plan import Holds

__all__ = ["Described", "Kind", "described", "parameter_paths"]

Dtypes = tuple[torch.dtype, ...]
Described = tuple[str, str, int, tuple[int, ...]] | None


@dataclass(frozen=True)
class Kind:
    """What a graph knows of the tensors of a call while it is made.

    Attributes:
        inputs, states: their dtypes.
        dims: how many dimensions the inputs have, at most.
        device: of all.
        masks, learned: see :class:`GraphCall`.
        training: whether gradients will be wanted.
    """

    inputs: Dtypes
    states: Dtypes
    dims: int
    device: torch.device
    masks: tuple[str, ...]
    training: bool
    learned: tuple[int, ...]


def parameter_paths(
    of: Scanned, named: Mapping[str, Tensor], bound: Mapping[str, str]
) -> tuple[tuple[str, str], ...] | None:
    """``(source, path)`` of the tensors a graph hands in; ``None`` where one that needs a gradient has no path.

    Args:
        of: what is scanned.
        named: parameters and buffers by their paths.
        bound: ``registered name -> source``.
    """
    registered = {source: name for name, source in bound.items()}
    paths = {id(tensor): path for path, tensor in named.items()}
    found: dict[int, tuple[str, str]] = {}
    with _outside(), of._scanned() as dispatcher:
        for source in dispatcher.captures().tensors:
            tensor = source.read()
            path = registered.get(source.name) or paths.get(id(tensor))
            if path is not None:
                found.setdefault(id(tensor), (source.name, path))
            elif tensor.requires_grad:
                return None
    return tuple(found.values())


def described(of: Scanned, options: ScanOptions, parameters: tuple[str, ...], *kind: object) -> Described:
    """Key and call for the operators, the number of outputs and which of them are packed.

    ``None`` where a graph cannot have the scan: the core cannot be traced, or asks for the shape of its step.

    Args:
        of: what is scanned.
        options: of the scan.
        parameters: names of the sources whose tensors are handed in.
        kind: the fields of :class:`Kind`.
    """
    with _outside(), of._scanned() as scanned, _with_values(scanned) as dispatcher:
        try:
            call = _call(dispatcher, options, parameters, Kind(*kind))  # type: ignore[arg-type]
        except FlexSNError:  # said by the call that runs instead
            return None
    return key_of(of), call.text(), len(call.outputs) - len(options.wanted_states), call.packed


def _call(dispatcher: ScanDispatcher, options: ScanOptions, parameters: tuple[str, ...], kind: Kind) -> GraphCall:
    computed = tuple(map(compute_dtype, kind.inputs))
    states = tuple(torch.float32 if d in HALF else d for d in kind.states)
    captures, wanted = dispatcher.captures(), options.wanted_states
    traced = dispatcher.traces.find(captures, (computed, states), kind.device, wanted, None, kind.training)
    graph, shape = traced.tracer.graph, tuple(traced.tracer.param_shape)
    if kind.masks or options.has_rules:
        outputs = _as_on_examples(dispatcher, options, kind, shape)
    else:
        dtypes, split = [node.dtype for node in graph.outputs], len(graph.outputs) - len(wanted)
        resolved = resolve_output_dtypes(dtypes[:split], kind.inputs, options.output_dtype)
        resolved += tuple(OutputDtype(d, d) for d in dtypes[split:])
        outputs = tuple(GraphOutput(dtype, True) for dtype in resolved)
    known = GraphCall(options, parameters, kind.masks, outputs, states, shape, kind.training, 1, (), kind.learned)
    return _as_planned(known, traced, kind)


def _as_planned(call: GraphCall, traced: TraceEntry, kind: Kind) -> GraphCall:
    """The call with what is known of its kernels: what they keep for the backward pass."""
    options, graph = call.options, traced.tracer.graph
    call = replace(call, products=() if graph.products else None)
    backend = choose(_backend(options), kind.device)[0]
    if backend is None:
        return call
    rules = None
    if call.by_rules:
        rules = rules_of(options, "lengths" in kind.masks, "reset_mask" in kind.masks, kind.learned)
    dtypes = (*kind.inputs, torch.bool) if "reset_mask" in kind.masks else kind.inputs
    options = replace(options, time_dim=options.time_dim % kind.dims)
    example = _example(kind, call.parameter_shape, options.time_dim, 1)
    inputs = [torch.empty(example, dtype=d, device="meta") for d in dtypes]
    spec = CallSpec.of(traced.tracer, backend, inputs, options, kind.training, rules)
    call = replace(call, fused=spec.way is not None and spec.way.fused)
    if not kind.training:
        return call
    if graph.products and not call.fused:
        from flexsn.planning.alternating import plan_alternating  # which few programs need

        steps = plan_alternating(graph, traced.tracer.vjp, spec.request, backend)
        assert steps.interval is not None
        checkpoints = () if options.single_step else tuple(steps.step.states[j].dtype for j in steps.live)
        return replace(
            call, interval=steps.interval, checkpoints=checkpoints, products=tuple(leaf.dtype for leaf in steps.kept)
        )
    plan = spec.plans().forward
    assert plan.interval is not None
    call = replace(call, interval=plan.interval, checkpoints=tuple(slot.dtype for slot, _ in plan.checkpoints))
    if not call.fused:
        return call
    saved = tuple(slot.dtype for slot, _ in plan.stores if slot.holds is Holds.SAVED)
    return replace(call, products=saved, read_again=plan.read_again)


def _example(kind: Kind, parameter_shape: tuple[int, ...], axis: int, num_steps: int) -> tuple[int, ...]:
    """The smallest shape of inputs."""
    step = (*(1,) * (kind.dims - 1 - len(parameter_shape)), *parameter_shape)
    return (*step[:axis], num_steps, *step[axis:])


def _as_on_examples(
    dispatcher: ScanDispatcher, options: ScanOptions, kind: Kind, parameter_shape: tuple[int, ...]
) -> tuple[GraphOutput, ...]:
    """Outputs, and sequences of wanted states, as a call of two steps has them."""
    axis = options.time_dim % kind.dims
    shape = _example(kind, parameter_shape, axis, 2)
    step = without_axis(shape, axis)
    inputs = [torch.zeros(shape, dtype=d, device=kind.device) for d in kind.inputs]
    states = [torch.zeros(step, dtype=d, device=kind.device) for d in kind.states]
    tensors = {
        "lengths": torch.full(step[:1], 2, device=kind.device),
        "reset_mask": torch.zeros(shape, dtype=torch.bool, device=kind.device),
    }
    masks = [tensors[name] for name in kind.masks]
    call = GraphCall(options, (), kind.masks, (), (), (), False, 1, ())
    initial = states if "reset_mask" in kind.masks else []
    with torch.no_grad():
        outputs, _, seqs = dispatcher(inputs, states, options, call.masked([*masks, *initial]))
    return tuple(GraphOutput(_dtype_of(y), y.dim() == len(shape)) for y in (*outputs, *seqs))


def _dtype_of(result: Tensor) -> OutputDtype:
    return OutputDtype(result.stored.dtype if isinstance(result, SpikeTensor) else result.dtype, result.dtype)


@contextmanager
def _with_values(dispatcher: ScanDispatcher) -> Iterator[ScanDispatcher]:
    """During an export parameters have no values: one of its own, for which others stand in."""
    if not torch.compiler.is_exporting():
        yield dispatcher
        return
    dispatcher = ScanDispatcher(dispatcher.core, dispatcher.num_states)
    captures = dispatcher.captures()
    read = [source.read() for source in captures.tensors]
    instead = {id(t): torch.ones(t.shape, dtype=t.dtype, device=t.device) for t in read}
    with WRITING:
        changed = Snapshot(captures).replacing(instead).put_back()
        try:
            yield dispatcher
        finally:
            for _, undo in changed:
                undo()


@contextmanager
def _outside() -> Iterator[None]:
    """Out of whatever records what is done meanwhile."""
    with ExitStack() as stack:
        while torch._C._len_torch_function_stack():
            stack.enter_context(_pop_mode_temporarily())
        # an export writes down every call of a module, and does not survive one that fails, as those of a probe may
        stack.enter_context(patch.object(nn.Module, "__call__", _orig_module_call))
        stack.enter_context(_disable_current_modes())
        stack.enter_context(torch.enable_grad())
        yield


def _backend(options: ScanOptions) -> str:
    return os.environ.get("FLEXSN_BACKEND", "auto") if options.backend == "auto" else options.backend
