"""Build a report: trace and plan a core as calls would, and print its kernels."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from flexsn.captures.guards import Captures
from flexsn.execution.backends import target_backend
from flexsn.execution.call import CallSpec
from flexsn.execution.masks import rules_of
from flexsn.execution.options import ScanOptions
from flexsn.execution.traces import TraceEntry, Traces
from flexsn.ir.dtypes import compute_dtype
from flexsn.ir.graph import topological
from flexsn.ir.layout import CallShape, Layout, TensorSpec
from flexsn.ir.ops import OPS
from flexsn.ir.passes import describe, watching
from flexsn.ir.plan import Holds, Plan
from flexsn.ir.step import StepGraph, with_sources
from flexsn.kernels.backend import BACKENDS, Backend
from flexsn.kernels.backend import backend as named
from flexsn.planning import Gradients, Way, step_by_rules
from flexsn.planning.alternating import plan_alternating, plan_alternating_backward
from flexsn.report.report import KernelReport, Report
from flexsn.report.text import report_text
from flexsn.tracing.gradient_path import no_gradient_path

__all__ = ["PlannedKernels", "Subject", "build_report", "plan_kernels"]

_STEPS = 16
_BATCH, _FREE = 16, 8  # sizes of a step's first dimension, and of every other that no parameter has


class Subject(Protocol):
    """What a report is about: a :class:`~flexsn.FlexSN`."""

    core: Callable[..., Any]

    @property
    def num_inputs(self) -> int: ...

    @property
    def num_states(self) -> int: ...

    @property
    def state_names(self) -> tuple[str, ...]: ...

    @property
    def scan_options(self) -> ScanOptions: ...

    def init_states(self, num_states: int, step_mode: str, *args: Tensor) -> Sequence[Tensor]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


@dataclass(frozen=True)
class PlannedKernels:
    """The kernels that calls would run.

    Attributes:
        step: one step forward.
        plans: by kernel, ``"inference"``, ``"forward"``, ``"backward"``: its plan and a layout of its tensors; of a
            step in the alternating way ``"forward stage 0"``, ..., ``"backward stage 0"``, ....
        no_backward: why there is no backward kernel, if there is none.
        unwatched: why what the core reads may change unseen, if it may.
        way: how its products are computed, if it has any.
        step_shape: the smallest step that the parameters fit.
    """

    step: StepGraph
    plans: dict[str, tuple[Plan, Layout]]
    no_backward: str | None
    unwatched: str | None
    way: Way | None
    step_shape: tuple[int, ...]


def build_report(subject: Subject, name: str, target: str, dtype: torch.dtype) -> Report:
    """Report on a neuron.

    Args:
        subject: the neuron.
        name: what to call it.
        target: see :func:`flexsn.explain`.
        dtype: of the inputs.
    """
    backend = target_backend(target)
    passes: list[tuple[str, str]] = []
    with watching(lambda name, form: passes.append((name, describe(form)))):
        planned = plan_kernels(subject, backend.name, dtype)
        kernels = {}
        for kernel, (plan, layout) in planned.plans.items():
            printed = backend.print(plan, layout, target)
            kernels[kernel] = KernelReport(kernel, plan, printed.source, printed.compiled)
    num_accumulators = len(planned.step.states) - subject.num_states
    report = Report(
        name=name,
        core=_source(subject.core),
        target=target,
        dtype=dtype,
        arguments=_argument_names(subject) + tuple(f"accumulator{i}" for i in range(num_accumulators)),
        graph=planned.step,
        kernels=kernels,
        no_backward=planned.no_backward,
        unwatched=planned.unwatched,
        way=planned.way,
        inexact=_inexact(planned.step),
        step_shape=planned.step_shape,
        passes=tuple(passes),
    )
    return replace(report, text=report_text(report))


def plan_kernels(subject: Subject, backend_name: str, dtype: torch.dtype) -> PlannedKernels:
    """Trace the core anew and plan inference and training with gradients of all floating inputs and parameters."""
    backend = named(backend_name)
    device = next((p.device for p in subject.parameters()), torch.device("cpu"))
    captures = Captures(subject.core)
    entry = _trace(subject, captures, backend, dtype, device)
    tracer = entry.tracer
    captured = [t.detach() for t in entry.captured([source.read() for source in captures.tensors])]
    step = (_BATCH, *(_FREE if size == 1 else size for size in tracer.param_shape))
    inputs = [torch.empty(_STEPS, *step, dtype=dtype, device=device)] * subject.num_inputs

    options = replace(subject.scan_options, backend="auto", time_dim=0)
    rules = rules_of(options) if options.has_rules else None
    inference, training = (CallSpec.of(tracer, backend, inputs, options, trained, rules) for trained in (False, True))
    ruled, _ = step_by_rules(tracer.graph, tracer.vjp, rules)
    accumulators = ruled.states[subject.num_states :]
    visible = [o.visible for o in training.outputs]
    gradients = Gradients(
        outputs=tuple(d if d.is_floating_point else None for d in visible),
        finals=(False,) * subject.num_states + tuple(a.dtype.is_floating_point for a in accumulators),
        inputs=(dtype.is_floating_point,) * subject.num_inputs,
        states=(False,) * len(ruled.states),
        parameters=any(t.requires_grad for t in tracer.captured),
    )
    if training.way is not None and not training.way.fused:
        return _plan_stages(training, gradients, captured, captures.unwatched)
    plans = training.plans(gradients)
    found: dict[str, Plan] = {"inference": inference.plans().forward, "forward": plans.forward}
    problem = None
    if plans.backward is not None:
        found["backward"] = plans.backward
    else:
        problem = _blocked(training)
    laid_out = {name: (plan, _layout(training, plan, captured)) for name, plan in found.items()}
    return PlannedKernels(ruled, laid_out, problem, captures.unwatched, training.way, tuple(tracer.param_shape))


def _plan_stages(
    spec: CallSpec, gradients: Gradients, captured: Sequence[Tensor], unwatched: str | None
) -> PlannedKernels:
    """The kernels of the stages of a step with products; on the way back, of a step far from the end."""
    graph, vjp = spec.tracer.graph, spec.tracer.vjp
    forward = plan_alternating(graph, vjp, spec.request, spec.backend)
    backward = plan_alternating_backward(graph, vjp, spec.request, gradients, in_rows=True)
    kernels = {f"forward stage {n}": stage.plan for n, stage in enumerate(forward.kernels.stages)}
    if backward is not None:
        kernels["backward states"] = backward.advance.plan if backward.live else None
        stages = backward.branches[-1].kernels.stages
        kernels |= {f"backward stage {n}": stage.plan for n, stage in enumerate(stages)}
    one = replace(spec, shape=CallShape(1, spec.shape.step_shape, 0, spec.shape.order))
    plans: dict[str, tuple[Plan, Layout]] = {
        name: (plan, _layout(one, plan, captured)) for name, plan in kernels.items() if plan is not None
    }
    blocked = None if backward is not None else _blocked(spec)
    return PlannedKernels(forward.step, plans, blocked, unwatched, spec.way, tuple(spec.tracer.param_shape))


def _inexact(step: StepGraph) -> tuple[str, ...]:
    """The operations whose bits are not promised, products first."""
    roots = with_sources((*step.outputs, *step.new_states), step.products)
    names = {node.op for node in topological(roots) if isinstance(node.op, str)}
    near = sorted(name for name in names if OPS[name].promise.torch)
    return (*(["a product"] if step.products else []), *near)


def _blocked(spec: CallSpec) -> str:
    """Why no gradient flows."""
    tracer, step = spec.tracer, spec.shape.step_shape
    dtypes = (*tracer.input_dtypes, *tracer.state_dtypes)
    return str(no_gradient_path(tracer.core, [torch.ones(step, dtype=d, device=spec.device) for d in dtypes]))


def _trace(
    subject: Subject, captures: Captures, backend: Backend, dtype: torch.dtype, device: torch.device
) -> TraceEntry:
    probe = [torch.ones(1, 1, dtype=dtype, device=device) for _ in range(subject.num_inputs)]
    states = subject.init_states(subject.num_states, "m", *probe)
    dtypes = (compute_dtype(dtype),) * subject.num_inputs, tuple(compute_dtype(s.dtype) for s in states)
    traces = Traces(subject.num_states, on_gpu=BACKENDS[backend.name][0] == "cuda")
    return traces.find(captures, dtypes, device, (), _step_for([s.read().shape for s in captures.tensors]), True)


def _step_for(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """A step that parameters of these shapes fit, for a core that asks for its shape."""
    try:
        joint = np.broadcast_shapes(*shapes)
    except ValueError:  # they do not all meet
        joint = ()
    return (_BATCH, *(_FREE if size == 1 else size for size in joint or (1,)))


def _layout(spec: CallSpec, plan: Plan, captured: Sequence[Tensor]) -> Layout:
    """Of dense tensors, and of parameters as they are."""
    operands = [TensorSpec.of(t) for t in spec.operands(captured)(*captured)]
    tensors = [
        operands[s.index] if s.holds in (Holds.OPERAND, Holds.MATRIX) else spec.dense(plan, s) for s in plan.slots
    ]
    return spec.shape.layout(plan.slots, tensors)


def _argument_names(subject: Subject) -> tuple[str, ...]:
    core = subject.core.forward if isinstance(subject.core, nn.Module) else subject.core
    names = list(inspect.signature(core).parameters)[: subject.num_inputs]
    if len(names) < subject.num_inputs or any(n in subject.state_names for n in names):
        names = [f"x{i}" for i in range(subject.num_inputs)]
    return (*names, *subject.state_names)


def _source(core: Callable[..., Any]) -> str:
    target = core.forward if isinstance(core, nn.Module) else core
    try:
        return textwrap.dedent(inspect.getsource(target)).rstrip()
    except (OSError, TypeError):
        return ""
