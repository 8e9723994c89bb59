"""A backend's results beside the loop's: bits where they are promised, else as near as the loop is to fp64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flexsn.checking.cases import Case
from flexsn.checking.flips import ULPS, Flips, find_flips
from flexsn.checking.result import Finding
from flexsn.checking.run import Run, run, weights_for
from flexsn.modules.flexsn import FlexSN

__all__ = ["Reference", "compare"]

_SHARE = 8  # times the loop's own distance from fp64
_VALUES, _GRADIENTS = 64, 512  # ulp of the largest value, where the loop is nearer than it could know


@dataclass(frozen=True)
class Reference:
    """What a case should give.

    Attributes:
        neuron: that gives it.
        case: the call.
        loop: its results by the loop.
        exact: the same in fp64, if the core runs in it.
        bits: whether the backends promise the loop's bits.
        by_sample: whether lanes of a sample depend on each other.
        gradients: whether to compare them.
        seed: of the weights of the loss.
    """

    neuron: FlexSN
    case: Case
    loop: Run
    exact: Run | None
    bits: bool
    by_sample: bool
    gradients: bool
    seed: int

    def flips(self, got: Run) -> Flips:
        """Where the spikes of another run differ."""
        loop, other = ([y.detach() for y in r.outputs] for r in (self.loop, got))
        return find_flips(self.neuron, self.case, loop, other, self.by_sample, self.seed)


def compare(reference: Reference, backend: str) -> Finding:
    """Outputs, final states and gradients of a backend; and without gradients, which other kernels are for.

    Raises: what the call does.
    """
    problems = []
    for training in (True, False):
        got = run(reference.neuron, backend, reference.case, training)
        flips = reference.flips(got)
        found = _values(reference, got, flips)
        if training:
            seen = _seen(reference, got, flips)
            found += _gradients(reference, got, flips) if reference.gradients else []
        problems += found if training else [f"without gradients, {problem}" for problem in found]
    details = "\n".join(["differs from the loop", *problems]) if problems else seen
    return Finding(not problems, f"{backend}, {reference.case}", details)


def _values(reference: Reference, got: Run, flips: Flips) -> list[str]:
    problems = list(_flips_in_words(reference, flips))
    exact = None if reference.exact is None else reference.exact.values
    for name, loop in reference.loop.values.items():
        value = got.values[name]
        if value.shape != loop.shape or value.dtype != loop.dtype:
            problems.append(f"{name}: {value.dtype} {list(value.shape)}, the loop {loop.dtype} {list(loop.shape)}")
            continue
        far = _distance(value, loop)
        if name.startswith("output"):
            counted = torch.arange(len(loop), device=loop.device).view(-1, *[1] * (loop.dim() - 1))
            far = torch.where(counted < flips.first, far, 0.0)
        else:
            far = torch.where(flips.same, far, 0.0)
        if name in (f"output {i}" for i in flips.outputs) or not far.any():
            continue
        allowed = 0.0
        if not reference.bits:
            near = _distance(loop, exact[name]) if exact else torch.zeros(())
            allowed = _allowed(near, loop, _VALUES)
        if float(far.max()) > allowed:
            problems.append(_worst(name, value, loop, far, allowed))
    return problems


def _flips_in_words(reference: Reference, flips: Flips) -> list[str]:
    lanes = math.prod(reference.case.step)
    unit = "samples' lanes" if reference.by_sample else "lanes"
    if flips.others:
        return [
            f"spikes differ in {flips.others} of {lanes} {unit}, and not by rounding at the threshold: "
            f"they stay where all operands of the loop move by up to {ULPS} ulp",
            *flips.shown,
        ]
    if flips.by_rounding and reference.bits:
        return [
            f"spikes differ in {flips.by_rounding} of {lanes} {unit}; rounding at the threshold can turn them, "
            "but all operations of this core are promised to have the loop's bits"
        ]
    return []


def _gradients(reference: Reference, got: Run, flips: Flips) -> list[str]:
    kept, exact = flips.same, reference.exact
    if exact is not None:  # a spike that turns in fp64 has another gradient there
        kept = kept & reference.flips(exact).same
    weights = weights_for(reference.loop, reference.case, kept, reference.seed)
    loop, value = (r.gradients(weights) for r in (reference.loop, got))
    truth = loop if exact is None else exact.gradients(weights)
    terms = math.sqrt(reference.case.inputs[0].numel())
    largest = max((float(_size(g)) for name, g in loop.items() if not name.startswith("parameter")), default=0.0)
    problems = []
    for name, expected in loop.items():
        far = _distance(value[name], expected)
        allowed = _allowed(_distance(expected, truth[name]), expected, _GRADIENTS)
        if name.startswith("parameter"):  # a sum over steps and lanes, whose terms may cancel
            allowed += _GRADIENTS * terms * largest * torch.finfo(expected.dtype).eps
        if float(far.max() if far.numel() else 0.0) > allowed:
            problems.append(_worst(f"gradient of {name}", value[name], expected, far, allowed))
    return problems


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Elementwise; infinite where only one is NaN or they are different infinities."""
    a, b = a.detach().double(), b.detach().double()
    same = (a == b) | (a.isnan() & b.isnan())
    return torch.where(same, 0.0, (a - b).abs().nan_to_num(math.inf, math.inf))


def _size(a: Tensor) -> Tensor:
    """The largest finite magnitude."""
    finite = torch.where(a.isfinite(), a.detach().double().abs(), 0.0)
    return finite.max() if finite.numel() else torch.zeros((), dtype=torch.float64)


def _allowed(near: Tensor, of: Tensor, ulps: int) -> float:
    if not of.is_floating_point():
        return 0.0
    own = float(torch.where(near.isfinite(), near, 0.0).max()) if near.numel() else 0.0
    return _SHARE * own + ulps * torch.finfo(of.dtype).eps * float(_size(of))


def _worst(name: str, value: Tensor, loop: Tensor, far: Tensor, allowed: float) -> str:
    at = tuple(int(i) for i in torch.unravel_index(far.argmax(), far.shape))
    count = int((far > allowed).sum())
    return (
        f"{name}: {count} of {far.numel()} differ by more than {allowed:.2g}, "
        f"most at {at}: {float(value[at]):.8g}, the loop {float(loop[at]):.8g}"
    )


def _seen(reference: Reference, got: Run, flips: Flips) -> str:
    same = all(torch.equal(v, got.values[n]) for n, v in reference.loop.values.items())
    parts = [f"outputs and states {'bit for bit' if same else 'to rounding'}", *["gradients too"] * reference.gradients]
    if flips.outputs:
        spikes = reference.loop.outputs[flips.outputs[0]].detach()
        parts.append(f"{int(spikes.ne(0).sum())} of {spikes.numel()} fired")
    if flips.by_rounding:
        parts.append(f"{flips.by_rounding} lanes flip by rounding at the threshold")
    return ", ".join(parts)
