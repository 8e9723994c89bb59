"""check: every backend against the loop, in one call of a user's own test."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from flexsn.checking.cases import LANES, Case, cases_for, made_cases, small_case
from flexsn.checking.compare import Reference, compare
from flexsn.checking.result import CheckResult, Finding
from flexsn.checking.run import run
from flexsn.checking.smooth import compare_slopes, no_derivative, smoothed, wrong_slopes
from flexsn.errors import BackendError, FallbackWarning, FlexSNError, UnsupportedOpError
from flexsn.execution.backends import supported_backends
from flexsn.modules.flexsn import FlexSN
from flexsn.report.report import Report

__all__ = ["check"]

_BATCH, _FREE, _STEPS, _MORE_STEPS = 3, 7, 12, 20


def check(
    neuron_or_core: FlexSN | Callable[..., Any],
    *inputs: Tensor | Sequence[int],
    states: Tensor | Sequence[Tensor] | None = None,
    backends: Sequence[str] | None = None,
    gradients: bool = True,
    seed: int = 0,
    raise_exception: bool = True,
) -> CheckResult:
    """Hold every backend that runs here to the loop: the test of a neuron in one line.

    It passes if the core compiles; if outputs and final states are the loop's, with and without gradients, to the bit
    where that is promised of all operations of the core; if the gradients of inputs, states and parameters are those
    of autograd through the loop; and if, in fp64 and with surrogates that compute their smooth primitives
    (``spiking=False``), they are the derivatives. What is not exact may be off as far as the loop is from itself in
    fp64, a few times over. A spike of such a core may differ where rounding turns it: where the loop has it otherwise
    too if all its operands move, at random, by at most 8 ulp. What follows it in the same lane is not compared.

    A copy of the neuron is run, from rest, step mode ``"m"``; outputs are neither reduced nor stored in another dtype.

    Args:
        neuron_or_core: a :class:`~flexsn.FlexSN`, such as a built-in neuron, or a core for which one can be made.
        inputs: the tensors of a call, ``[T, *step]`` each (time at the neuron's ``time_dim``); or shapes
            ``(T, *step)``, each a call with inputs of our own; by default shapes that the parameters fit.
        states: to start from, ``[*step]`` each, where tensors are given; by default the neuron's own.
        backends: which to compare, each of which then has to run here; by default all that do.
        gradients: whether to compare them.
        seed: of inputs and of the weights of the loss.
        raise_exception: raise what failed; ``False`` leaves that to the result.

    Returns:
        The findings; true if none is a failure, and ``print`` shows them.

    Raises:
        AssertionError: something failed; the text says what, and how far it is off.
        CoreError: the core breaks its contract.
        ValueError: inputs that do not fit the core.

    Example:
        >>> import flexsn
        >>> def core(x, v):
        ...     h = v + x
        ...     s = flexsn.surrogate.ATan()(h - 1.0)
        ...     return s, h - s
        >>> bool(flexsn.check(core, (5, 2, 3)))
        True
    """
    tensors = tuple(x for x in inputs if isinstance(x, Tensor))
    if tensors and len(tensors) != len(inputs):
        raise ValueError("inputs are the tensors of a call, or shapes (T, *step), not both")
    if any(0 in (x.shape if isinstance(x, Tensor) else x) for x in inputs):
        raise ValueError("inputs without a step, or without a lane, show nothing")
    given = (states,) if isinstance(states, Tensor) else states
    if given is not None and not tensors:
        raise ValueError("states belong to inputs that are given as tensors")
    neuron = _copied(neuron_or_core, len(tensors) or None, None if given is None else len(given))
    moved = tuple(x.movedim(neuron.time_dim, 0) for x in tensors)
    neuron.time_dim = 0
    shapes = [tuple(int(size) for size in shape) for shape in inputs] if not tensors else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)  # what it says is in the findings
        result = _Check(neuron, moved, given, shapes, backends, gradients, seed).result()
    if raise_exception:
        result.raise_if_failed()
    return result


def _copied(neuron_or_core: Any, num_inputs: int | None, num_states: int | None) -> FlexSN:
    """A neuron of one's own, with the options of a plain multi-step call."""
    if not isinstance(neuron_or_core, FlexSN):
        if isinstance(neuron_or_core, nn.Module):
            inside = [name for name, m in neuron_or_core.named_modules() if isinstance(m, FlexSN)]
            if inside:
                raise ValueError(f"a network: check its neurons one by one, {', '.join(inside)}")
        neuron_or_core = FlexSN(neuron_or_core, num_inputs, num_states)
    if any(is_lazy(p) for p in neuron_or_core.parameters()):
        name = neuron_or_core._shown_name()
        raise ValueError(f"{name} has parameters without a shape yet: call it once, then check it")
    neuron: FlexSN = copy.deepcopy(neuron_or_core)
    neuron.step_mode, neuron.store_state_seqs = "m", False
    neuron.time_reduction = neuron.output_dtype = neuron.detach_every = None
    neuron.record()
    neuron.reset()
    return neuron


class _Check:
    """One check of one neuron, whose findings it gathers."""

    def __init__(
        self,
        neuron: FlexSN,
        inputs: tuple[Tensor, ...],
        states: Sequence[Tensor] | None,
        shapes: Sequence[tuple[int, ...]],
        backends: Sequence[str] | None,
        gradients: bool,
        seed: int,
    ) -> None:
        self.neuron, self.inputs, self.states, self.shapes = neuron, inputs, states, shapes
        self.asked, self.gradients, self.seed = backends, gradients, seed
        floats = (t.dtype for t in (*neuron.parameters(), *neuron.buffers()) if t.is_floating_point())
        self.dtype = inputs[0].dtype if inputs else next(floats, torch.get_default_dtype())
        self.findings: list[Finding] = []
        self.ran: set[str] = set()
        self.missing: dict[str, BackendError] = {}

    def result(self) -> CheckResult:
        report = self._compiled()
        if report is not None:
            for neuron in self._on_devices():
                self._on_device(neuron, report)
            for backend, problem in self.missing.items():
                if backend not in self.ran:
                    failed = False if self.asked is not None else None
                    self.findings.append(Finding(failed, f"{backend} was not run", str(problem)))
            if not self.ran and not self.missing and self.asked is None:
                self.findings.append(Finding(None, "nothing was compared", "no backend but the loop runs here"))
        return CheckResult(self.neuron._shown_name(), tuple(self.findings), report)

    def _compiled(self) -> Report | None:
        try:
            report = self.neuron.explain(dtype=self.dtype)
        except UnsupportedOpError as error:
            self.findings.append(Finding(False, "cannot be compiled, runs as the loop", str(error)))
            return None
        self.findings.append(Finding(True, "compiles", _traffic(report)))
        for what, reason in (
            ("no gradient flows", report.no_backward),
            ("recorded again at every call, since what it reads may change unseen", report.unwatched),
        ):
            if reason:
                self.findings.append(Finding(None, what, reason))
        return report

    def _on_devices(self) -> Iterator[FlexSN]:
        """The neuron where its tensors are, and on a GPU if there is one and nobody said where."""
        own = next((t.device for t in (*self.inputs, *self.neuron.parameters(), *self.neuron.buffers())), None)
        yield self.neuron
        if not self.inputs and (own is None or own.type == "cpu") and torch.cuda.is_available():
            yield copy.deepcopy(self.neuron).to("cuda")

    def _on_device(self, neuron: FlexSN, report: Report) -> None:
        cases = self._cases(neuron, report)
        if self.dtype.is_floating_point and not any(_fires(neuron, case) for case in cases):
            told = "an output that stays 0 shows little; pass inputs that change it"
            self.findings.append(Finding(None, "all outputs are 0", told))
        gradients = self.gradients and report.no_backward is None
        references = [self._reference(neuron, case, report, gradients) for case in cases]
        for backend in self.asked or supported_backends():
            if backend == "torch":
                continue
            try:
                self.findings += [compare(reference, backend) for reference in references]
                self.ran.add(backend)
            except BackendError as error:
                self.missing[backend] = error
        if gradients:
            self._smooth(neuron, cases[0])

    def _cases(self, neuron: FlexSN, report: Report) -> list[Case]:
        try:
            if self.inputs:
                return cases_for(neuron, self.inputs, self.states)
            device = "cuda" if neuron is not self.neuron else _device_of(neuron)
            if self.shapes:
                made = [made_cases(neuron, shape, self.dtype, self.seed, device) for shape in self.shapes]
                return [case for cases in made for case in cases]
            step = (_BATCH, *(_FREE if size == 1 else size for size in report.step_shape or (1,)))
            many = (_MORE_STEPS, LANES // prod(step[1:]) + 2, *step[1:])
            return made_cases(neuron, (_STEPS, *step), self.dtype, self.seed, device, many)
        except RuntimeError as error:
            if isinstance(error, FlexSNError):
                raise
            hint = "pass tensors, flexsn.check(core, x), or a shape, flexsn.check(core, (T, *step))"
            raise ValueError(f"the loop does not run on such inputs: {error}; {hint}") from error

    def _reference(self, neuron: FlexSN, case: Case, report: Report, gradients: bool) -> Reference:
        loop = run(neuron, "torch", case, True)
        bits, by_sample = not report.inexact, bool(report.graph.products)
        return Reference(neuron, case, loop, _in_fp64(neuron, case), bits, by_sample, gradients, self.seed)

    def _smooth(self, neuron: FlexSN, case: Case) -> None:
        what = "gradients are not compared with derivatives"
        double = copy.deepcopy(neuron).double()
        try:
            few = small_case(double, case, self.seed)
            with smoothed(double, few) as surrogates:
                reason = no_derivative(double, few)
                backends = ["torch", *(b for b in self.asked or supported_backends() if b in self.ran)]
                if reason is None:
                    self.findings += [compare_slopes(double, backend, few, self.seed) for backend in backends]
                else:
                    self.findings.append(Finding(None, what, reason))
            self.findings += wrong_slopes(surrogates)
        except (FlexSNError, ValueError) as error:
            self.findings.append(Finding(None, what, str(error)))


def _in_fp64(neuron: FlexSN, case: Case) -> Any:
    """The loop in fp64, if the core runs in it."""
    if case.inputs[0].dtype == torch.float64:
        return None
    inputs, states = (tuple(a.double() if a.is_floating_point() else a for a in p) for p in (case.inputs, case.states))
    try:
        return run(copy.deepcopy(neuron).double(), "torch", replace(case, inputs=inputs, states=states), True)
    except (FlexSNError, RuntimeError):  # it says .float() somewhere
        return None


def _fires(neuron: FlexSN, case: Case) -> bool:
    return any(bool(y.ne(0).any()) for y in run(neuron, "torch", case, False).outputs)


def _device_of(neuron: FlexSN) -> torch.device:
    return next((t.device for t in (*neuron.parameters(), *neuron.buffers())), torch.device("cpu"))


def _traffic(report: Report) -> str:
    moved = {name: kernel.bytes_per_lane_step for name, kernel in report.kernels.items()}
    if "inference" not in moved:
        return f"{report.way.why}" if report.way else ""
    told = f"{moved['inference']:g} bytes per lane and step in inference"
    if "backward" in moved:
        told += f", {moved['forward'] + moved['backward']:g} in training"
    near = (
        f"near the loop, because of {', '.join(report.inexact)}" if report.inexact else "the loop's bits are promised"
    )
    return f"{told}; {near}"
