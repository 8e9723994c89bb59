"""The smooth neuron: where surrogates compute their primitives, gradients are derivatives, and can be held to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from flexsn.checking.cases import Case
from flexsn.checking.result import Finding
from flexsn.checking.run import run, weights_for
from flexsn.modules.flexsn import FlexSN
from flexsn.surrogate.base import Surrogate

__all__ = ["compare_slopes", "no_derivative", "smoothed", "wrong_slopes"]

_DATA: Any = Tensor.data
_STEP = 1e-6
_NEAR = 1e-4


@contextmanager
def smoothed(neuron: FlexSN, case: Case) -> Iterator[list[Surrogate]]:
    """A context in which the surrogates that the core calls, wherever they lie, compute their primitives.

    Raises:
        ValueError: one of them has none.
    """
    found: list[Surrogate] = []

    def switch(module: Any, _: Any) -> None:
        if isinstance(module, Surrogate) and module.spiking:
            found.append(module)
            module.set_spiking_mode(False)

    hook = register_module_forward_pre_hook(switch)
    try:
        try:
            run(neuron, "torch", case, False)
        finally:
            hook.remove()
        yield found
    finally:
        for module in found:
            module.set_spiking_mode(True)


def no_derivative(neuron: FlexSN, case: Case) -> str | None:
    """Why the gradients of a smooth neuron are no derivatives, if they are not meant to be."""
    hooked = [name for name, parameter in neuron.named_parameters() if parameter._backward_hooks]
    if hooked:
        return f"a hook is told of the gradient of {', '.join(hooked)}, and may change it"
    arguments = [a.detach().requires_grad_(a.is_floating_point()) for a in (*(x[0] for x in case.inputs), *case.states)]
    with _Detaching() as detaching, torch.enable_grad():
        returned: Any = neuron.core(*arguments)
    if detaching.seen:
        return "it detaches a value"
    values = returned if isinstance(returned, (tuple, list)) else (returned,)
    own = _own_function([v.grad_fn for v in values])
    return own and f"it has a gradient of its own, that of {own}"


class _Detaching(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.seen |= getattr(func, "__name__", "") in ("detach", "detach_") or func == _DATA.__get__
        return func(*args, **(kwargs or {}))


def _own_function(roots: Sequence[Any]) -> str | None:
    """An ``autograd.Function`` on the way back from these nodes of autograd's graph."""
    waiting, seen = [root for root in roots if root is not None], set[Any]()
    while waiting:
        node: Any = waiting.pop()
        if issubclass(type(node), BackwardCFunction):
            return str(node.name()).removesuffix("Backward")
        if node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions if following is not None]
    return None


def compare_slopes(neuron: FlexSN, backend: str, case: Case, seed: int) -> Finding:
    """Gradients of the smooth neuron beside differences, along a random direction of each tensor."""
    base = run(neuron, backend, case, True)
    everything = torch.ones(case.step, dtype=torch.bool, device=case.inputs[0].device)
    weights = weights_for(base, case, everything, seed)
    gradients = base.gradients(weights)
    generator = torch.Generator().manual_seed(seed)
    problems = []
    for name, gradient in gradients.items():
        direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64).to(gradient)
        expected = float((gradient * direction).sum())
        ahead, behind = (
            _moved(neuron, backend, case, name, sign * _STEP * direction).loss(weights) for sign in (1, -1)
        )
        measured = (ahead - behind) / (2 * _STEP)
        size = max(abs(measured), abs(expected), float(gradient.norm()), 1e-3)
        if not abs(measured - expected) <= _NEAR * size:
            problems.append(f"{name}: along a random direction {expected:.6g}, a difference says {measured:.6g}")
    what = f"{backend}, {case}"
    if problems:
        return Finding(False, what, "\n".join(["gradients are not the derivatives", *problems]))
    return Finding(True, what, f"gradients of {', '.join(gradients)} are the derivatives")


def _moved(neuron: FlexSN, backend: str, case: Case, name: str, by: Tensor) -> Any:
    """A run with one tensor moved."""
    kind, _, rest = name.partition(" ")
    if kind == "parameter":
        parameter = neuron.get_parameter(rest)
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(by)
        try:
            return run(neuron, backend, case, True)
        finally:
            with torch.no_grad():
                parameter.copy_(kept)
    part = case.inputs if kind == "input" else case.states
    moved = tuple(a + by if i == int(rest) else a for i, a in enumerate(part))
    inputs, states = (moved, case.states) if kind == "input" else (case.inputs, moved)
    return run(neuron, backend, Case(case.name, inputs, states), True)


def wrong_slopes(surrogates: Sequence[Surrogate]) -> list[Finding]:
    """Surrogates whose slope is not the derivative of their primitive."""
    findings = []
    for surrogate in surrogates:
        x = torch.linspace(-2.03, 1.97, 41, dtype=torch.float64).requires_grad_()
        try:
            (derivative,) = torch.autograd.grad(surrogate.primitive(x).sum(), x)
            x, slope = x.detach(), torch.as_tensor(surrogate.derivative(x)).detach().expand_as(x)
        except RuntimeError:  # its coefficients have a shape or a device of their own
            continue
        far = (derivative - slope).abs()
        if float(far.max()) > _NEAR * (1 + float(slope.abs().max())):
            at = int(far.argmax())
            said = f"{float(slope[at]):.6g} at {float(x[at]):.3g}, where its primitive has {float(derivative[at]):.6g}"
            findings.append(Finding(False, f"the slope of {surrogate}", said))
    return findings
