"""Explain: what was traced, what is saved and recomputed, what moves, and the kernels that came of it."""

from __future__ import annotations

import argparse
import inspect
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flexsn.errors import BackendError, GradientError
from flexsn.execution.arguments import compute_dtype
from flexsn.execution.backends import runtime
from flexsn.execution.forward import BoundScan
from flexsn.ir.layout import Layout
from flexsn.ir.plan import BackwardPlan, ForwardPlan
from flexsn.ir.step import StepGraph
from flexsn.modules.flexsn import FlexSN
from flexsn.report.text import report_text
from flexsn.tracing.tracer import Tracer

if TYPE_CHECKING:
    from flexsn.kernels.triton.offline import OfflineKernel
    from flexsn.kernels.triton.tiling import Tiling

__all__ = ["KernelReport", "Report", "explain", "main", "plan_kernels"]

Plan = ForwardPlan | BackwardPlan
_STEPS = 16


@dataclass(frozen=True)
class KernelReport:
    """One kernel.

    Attributes:
        name: ``"inference"``, ``"forward"`` or ``"backward"``.
        plan: what it does.
        source: the generated text.
        offline: what a compiler for the target made of it; ``None`` for C++.
    """

    name: str
    plan: Plan = field(repr=False)
    source: str = field(repr=False)
    offline: OfflineKernel | None = field(repr=False)

    @property
    def bytes_per_lane_step(self) -> float:
        """Memory traffic of one step of one lane."""
        return self.plan.bytes_per_lane_step

    @property
    def checkpoint(self) -> int | None:
        """``K``: a state is stored once in so many steps; ``None`` for inference."""
        return self.plan.checkpoint

    @property
    def ptx(self) -> str:
        """PTX or AMDGCN text; empty for C++."""
        return self.offline.assembly if self.offline else ""

    @property
    def registers(self) -> int | None:
        """Per thread; ``None`` for C++."""
        return self.offline.registers if self.offline else None

    @property
    def spill_bytes(self) -> int | None:
        """Of local memory per thread; ``None`` for C++."""
        return self.offline.spill_bytes if self.offline else None

    @property
    def tiling(self) -> Tiling | None:
        """How lanes are dealt out to threads; ``None`` for C++."""
        return self.offline.tiling if self.offline else None


@dataclass(frozen=True)
class Report:
    """What became of a core; ``print`` it.

    Attributes:
        name: of the core.
        core: its source lines, if they can be had.
        target: ``"cpp"`` or an offline target.
        dtype: of the inputs.
        arguments: names of inputs and states.
        graph: the traced step.
        kernels: by name: ``"inference"``, ``"forward"``, ``"backward"``.
        no_backward: why there is no backward kernel, if there is none.
    """

    name: str
    core: str
    target: str
    dtype: torch.dtype
    arguments: tuple[str, ...]
    graph: StepGraph
    kernels: dict[str, KernelReport]
    no_backward: str | None = None

    def __str__(self) -> str:
        return report_text(self)

    def __repr__(self) -> str:
        return f"<Report of {self.name} for {self.target}: {', '.join(self.kernels)}>"


def explain(
    neuron_or_core: FlexSN | Callable[..., Any], target: str | None = None, dtype: torch.dtype = torch.float32
) -> Report:
    """Explain what a neuron or core is compiled to.

    Args:
        neuron_or_core: a :class:`~flexsn.FlexSN`, or a core for which one can be made.
        target: ``"cpp"`` (``None`` means that too), or a GPU that need not be here: ``"sm_80"``, ``"sm_90"``,
            ``"sm_100"``, ``"gfx942"``.
        dtype: of the inputs.

    Returns:
        A report; ``print(report)`` is for people, ``report.kernels["backward"].registers`` for programs.

    Raises:
        UnsupportedOpError, CoreError: the core cannot be traced.
        BackendError: Triton is missing, or does not know the target.

    Example:
        >>> import flexsn
        >>> report = flexsn.explain(lambda x, v: (v + x, v + x))
        >>> report.kernels["inference"].bytes_per_lane_step
        8.0
    """
    neuron = neuron_or_core if isinstance(neuron_or_core, FlexSN) else FlexSN(neuron_or_core)
    backend = "cpp" if target in (None, "cpp") else "triton"
    tracer, bound, no_backward = plan_kernels(neuron, backend, dtype)
    kernels = {}
    for name, (plan, layout) in bound.items():
        if backend == "cpp":
            from flexsn.kernels.cpp.printer import print_cpp

            kernels[name] = KernelReport(name, plan, print_cpp(plan), None)
        else:
            from flexsn.kernels.triton.offline import compile_offline

            offline = compile_offline(plan, str(target), layout)
            kernels[name] = KernelReport(name, plan, offline.source, offline)
    arguments = _argument_names(neuron)
    return Report(
        _name(neuron, neuron_or_core),
        _source(neuron.core),
        target or "cpp",
        dtype,
        arguments,
        tracer.graph,
        kernels,
        no_backward,
    )


class _Planner:
    """A backend that keeps what it is asked to run."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self.bound: list[tuple[Plan, Layout]] = []

    def bind(self, plan: Plan, layout: Layout) -> Callable[[Sequence[Tensor]], None]:
        self.bound.append((plan, layout))
        return lambda tensors: None

    def checkpoint(self, step_bytes: int) -> int:
        return runtime(self._backend).checkpoint(step_bytes)


def plan_kernels(
    neuron: FlexSN, backend: str, dtype: torch.dtype
) -> tuple[Tracer, dict[str, tuple[Plan, Layout]], str | None]:
    """The plans that calls of the neuron would run, with a layout of their tensors; and why there is no backward.

    By kernel: ``"inference"``, ``"forward"``, ``"backward"``. Nothing is compiled.
    """
    device = next((p.device for p in neuron.parameters()), torch.device("cpu"))
    probe = [torch.ones(1, 1, dtype=dtype, device=device) for _ in range(neuron.num_inputs)]
    states = neuron.init_states(neuron.num_states, "m", *probe)
    state_dtypes = tuple(compute_dtype(s.dtype) for s in states)
    dispatcher = neuron._dispatcher
    dtypes = (compute_dtype(dtype),) * neuron.num_inputs, state_dtypes
    traced = dispatcher.traces.find(dispatcher.captures(), dtypes, device)
    tracer, captured = traced.tracer, [t.detach() for t in traced.captured()]
    step = (16, *(8 if size == 1 else size for size in tracer.param_shape))
    inputs = [torch.ones(_STEPS, *step, dtype=dtype, device=device) for _ in range(neuron.num_inputs)]
    states = [torch.ones(step, dtype=d, device=device) for d in state_dtypes]
    planner = _Planner(backend)
    for trained in (False, True):
        compiled = BoundScan(
            tracer, planner, inputs, states, 0, neuron.checkpoint, trained, asked_dtype=neuron.output_dtype
        )
        compiled.prepare(inputs, states, captured)
    with torch.no_grad():
        results, checkpoints = compiled.forward(inputs, states, captured)
    split = len(results) - neuron.num_states
    grads = [torch.ones_like(y) if y.is_floating_point() else None for y in results[:split]]
    needs = [*(x.is_floating_point() for x in inputs), *(False for _ in states)]
    needs += [t.requires_grad for t in tracer.captured]
    problem = None
    try:
        compiled.backward([*inputs, *states, *captured, *checkpoints], [*grads, *([None] * len(states))], needs)
    except GradientError as error:
        problem = str(error)
    return tracer, dict(zip(("inference", "forward", "backward"), planner.bound, strict=False)), problem


def _argument_names(neuron: FlexSN) -> tuple[str, ...]:
    core = neuron.core.forward if isinstance(neuron.core, torch.nn.Module) else neuron.core
    names = list(inspect.signature(core).parameters)[: neuron.num_inputs]
    if len(names) < neuron.num_inputs or any(n in neuron.state_names for n in names):
        names = [f"x{i}" for i in range(neuron.num_inputs)]
    return (*names, *neuron.state_names)


def _name(neuron: FlexSN, given: object) -> str:
    if type(neuron) is not FlexSN:
        return type(neuron).__name__
    core = neuron.core if given is neuron else given
    return str(getattr(core, "__qualname__", type(core).__name__))


def _source(core: Callable[..., Any]) -> str:
    target = core.forward if isinstance(core, torch.nn.Module) else core
    try:
        return textwrap.dedent(inspect.getsource(target)).rstrip()
    except (OSError, TypeError):
        return ""


# ---- the command ----------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain a built-in neuron; the process's exit status."""
    import flexsn.neurons

    parser = argparse.ArgumentParser(prog="python -m flexsn explain", description=(__doc__ or "").strip())
    parser.add_argument("neuron", help="a class of flexsn.neurons, such as LIF")
    parser.add_argument("--target", default=None, help="cpp (default), sm_80, sm_90, sm_100 or gfx942")
    parser.add_argument("--dtype", default="float32", choices=("float64", "float32", "float16", "bfloat16"))
    options = parser.parse_args(arguments)
    neuron = getattr(flexsn.neurons, options.neuron, None)
    if not (isinstance(neuron, type) and issubclass(neuron, FlexSN)):
        known = sorted(n for n in dir(flexsn.neurons) if n[0].isupper())
        print(f"flexsn.neurons has no neuron {options.neuron!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    try:
        print(explain(neuron(), options.target, getattr(torch, options.dtype)))
    except BackendError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
