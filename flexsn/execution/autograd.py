"""Autograd's view of a compiled scan."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._C._functorch import unwrap_if_dead
from torch.autograd.function import _SingleLevelFunction

from flexsn.errors import BackendError, FallbackWarning, stack_level
from flexsn.execution.arguments import is_memory, kept, needs_loop, written_out
from flexsn.execution.call import CallSpec
from flexsn.execution.forward import BoundScan
from flexsn.execution.loop import Core, scan_by_loop
from flexsn.execution.masks import Masks, RuledCall
from flexsn.execution.traces import TraceEntry
from flexsn.tracing.gradient_path import no_gradient_path, saved_tensors

if TYPE_CHECKING:
    from flexsn.execution.alternating.forward import AlternatingScan

__all__ = ["CallEntry", "gradients", "run_compiled"]


@dataclass(frozen=True, eq=False)
class CallEntry:
    """What runs a call when one just like it came before.

    Attributes:
        traced, bound: the trace and the kernels.
        training: whether gradients will be wanted.
        num_outputs: how many of the results are outputs; sequences of wanted states follow, then final states.
        in_graphs: what graphs of ``torch.compile`` remember of it.
    """

    traced: TraceEntry
    bound: BoundScan | AlternatingScan
    training: bool
    num_outputs: int
    in_graphs: dict[Any, Any] = field(default_factory=dict)


def run_compiled(
    entry: CallEntry, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """``(*outputs, *final_states)``, differentiable in training."""
    if not entry.training:
        try:
            return entry.bound.forward(inputs, states, captured)[0]
        except RuntimeError:
            alive = [[*map(unwrap_if_dead, group)] for group in (inputs, states, captured)]
            if all(map(is_, (*inputs, *states, *captured), chain(*alive))):
                raise
            return entry.bound.forward(*alive)[0]
    # those of a vmap or grad that has ended; torch's own Function does the same, and more that is of no use here
    tensors = (*map(unwrap_if_dead, inputs), *map(unwrap_if_dead, states), *map(unwrap_if_dead, captured))
    try:
        results: tuple[Tensor, ...] = _Scan.apply(entry, *tensors)  # type: ignore[attr-defined]
    except RuntimeError:
        if kept(tensors) is tensors:
            raise
        results = _Scan.apply(entry, *kept(tensors))  # type: ignore[attr-defined]
    return results


class _Scan(_SingleLevelFunction):
    @staticmethod
    def forward(ctx: Any, entry: CallEntry, *tensors: Tensor) -> tuple[Tensor, ...]:
        compiled = entry.bound
        inputs, states, captured, _ = compiled.spec.split(tensors)
        results, checkpoints = compiled.forward(inputs, states, captured)
        ctx.entry = entry
        # not saved as autograd does it: a caller may change outputs in place, and then they are computed once more
        ctx.outputs = [(results[i].detach(), results[i]._version) for i in compiled.read_again]
        ctx.save_for_backward(*tensors, *checkpoints)
        ctx.set_materialize_grads(False)
        discrete = [r for r in results if not r.is_floating_point()]
        if discrete:
            ctx.mark_non_differentiable(*discrete)
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        entry: CallEntry = ctx.entry
        needs = ctx.needs_input_grad[1:]
        present = [g for g in grads if g is not None]
        if not present:
            return (None,) * (len(needs) + 1)
        saved = saved_tensors(ctx)
        usual = all(map(is_memory, present))
        if torch.is_grad_enabled() or (not usual and any(map(needs_loop, present))):
            return (None, *_loop_gradients(entry, saved, grads, needs))
        if not usual:
            grads = tuple(None if g is None else written_out(g) for g in grads)
        if all(y._version == version for y, version in ctx.outputs):
            saved = (*saved, *(y for y, _ in ctx.outputs))
        ctx.outputs = ()  # freed with all else; a graph that is kept computes them once more
        return (None, *gradients(entry, saved, grads, needs))


def gradients(
    entry: CallEntry, saved: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients of inputs, states and captured tensors; see :meth:`BoundScan.backward`."""
    try:
        return entry.bound.backward(saved, grads, needs)
    except BackendError as error:  # the forward kernel could still be built: a full disk, say
        text = f"running the torch loop backward instead of a fused kernel:\n{error}"
        warnings.warn(text, FallbackWarning, stacklevel=stack_level())
        return _loop_gradients(entry, saved, grads, needs)


def _loop_gradients(
    entry: CallEntry, saved: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients through the torch loop, which can be differentiated again if gradients are enabled."""
    again = torch.is_grad_enabled()
    spec = entry.bound.spec
    with torch.enable_grad():  # one tensor in two places has a gradient in each; its hooks are not for these
        inputs, states, captured, _ = ([t.view_as(t) for t in tensors] for tensors in spec.split(saved))
    core = entry.traced.core_reading(spec.read_once(captured)[2])
    with torch.enable_grad():
        results = _by_loop(spec, core, inputs, states, captured)
    pairs = [(r, g) for r, g in zip(results, grads, strict=True) if g is not None and r.requires_grad]
    if not pairs:
        dtypes, axis = spec.tracer.input_dtypes, spec.shape.time_dim
        first_step = [x.select(axis, 0).to(d) for x, d in zip(inputs, dtypes, strict=False)]
        raise no_gradient_path(core, [*first_step, *states[: len(spec.tracer.state_dtypes)]])
    wanted = [t for t, need in zip((*inputs, *states, *captured), needs, strict=True) if need]
    found = iter(
        torch.autograd.grad([r for r, _ in pairs], wanted, [g for _, g in pairs], create_graph=again, allow_unused=True)
    )
    return [next(found) if need else None for need in needs]


def _by_loop(
    spec: CallSpec, core: Core, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """What the kernel gives, by the loop. The traced core returns wanted states as outputs."""
    rules, num_wanted = spec.rules, len(spec.options.wanted_states)
    if rules is None:
        options = replace(spec.options, wanted_states=())
        outputs, finals, _ = scan_by_loop(core, inputs, states, options, dtypes=spec.outputs)
        return (*outputs, *finals)
    num_inputs, num_states = len(spec.tracer.input_dtypes), len(spec.tracer.state_dtypes)
    lengths, initial, _ = spec.read_once(captured)
    restarts = dict(enumerate(initial)) | dict(zip(rules.learned, states[num_states:], strict=False))
    reset_mask = inputs[num_inputs] if len(inputs) > num_inputs else None
    masks = Masks(lengths[0] if lengths else None, reset_mask, tuple(restarts.values()))
    call = RuledCall(rules, tuple(inputs[:num_inputs]), tuple(states[:num_states]), spec.options, masks)

    def own(*args: Tensor) -> tuple[Tensor, ...]:
        values = core(*args)
        split = len(values) - num_states
        return (*values[: split - num_wanted], *values[split:])

    dtypes = spec.outputs[: len(spec.outputs) - num_wanted]
    outputs, finals, state_seqs = scan_by_loop(own, call.inputs, call.states, spec.options, dtypes=dtypes, call=call)
    return (*outputs, *state_seqs, *finals)
