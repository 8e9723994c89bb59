"""The loop: the core run eagerly, step by step, under autograd. The definition of correct."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from flexsn.captures.contract import argument_names, call_core, changed_in_place
from flexsn.errors import CoreError, defined_at
from flexsn.execution.arguments import kept
from flexsn.execution.options import ScanOptions
from flexsn.execution.output_dtype import OutputDtype, resolve_output_dtypes
from flexsn.ir.dtypes import compute_dtype
from flexsn.tracing.gradient_path import guard_gradient_path

__all__ = ["Results", "run_loop", "scan_by_loop", "transformed"]

Core = Callable[..., Any]
Results = tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]
"""Outputs, final states, sequences of the wanted states."""


def scan_by_loop(
    core: Core,
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    options: ScanOptions,
    *,
    parameters: Sequence[Tensor] | None = None,
    dtypes: Sequence[OutputDtype] | None = None,
) -> Results:
    """Scan by the loop, wherever the time axis is: 16-bit inputs in fp32, outputs in the dtype asked for.

    Args:
        core: the one-step function.
        inputs: sequences, and
        states: the initial states, as :func:`~flexsn.execution.arguments.fit` returns them.
        options: of the scan.
        parameters: what the core reads besides. Where they are given, a backward pass that reaches none of inputs,
            states and parameters says which operation is to blame.
        dtypes: of the outputs, where they are decided already.
    """
    axis = options.time_dim % inputs[0].dim()
    seqs = [x.movedim(axis, 0).to(compute_dtype(x.dtype)) for x in kept(inputs)]
    states = kept(states)
    device = inputs[0].device.type
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        outputs, finals, state_seqs = run_loop(core, seqs, states, options.wanted_states)
        if parameters is not None and torch.is_grad_enabled() and len(seqs[0]) and not transformed():
            first_step = [*(x[0] for x in seqs), *states]
            results = guard_gradient_path(core, first_step, parameters, (*outputs, *finals, *state_seqs))
            a, b = len(outputs), len(outputs) + len(finals)
            outputs, finals, state_seqs = results[:a], results[a:b], results[b:]
    if dtypes is None:
        dtypes = resolve_output_dtypes([y.dtype for y in outputs], [x.dtype for x in inputs], options.output_dtype)
    moved = zip((y.movedim(0, axis) for y in outputs), dtypes, strict=True)
    outputs = tuple(y.to(dtype.visible) if transformed() else dtype.store(y) for y, dtype in moved)
    return outputs, finals, tuple(s.movedim(0, axis) for s in state_seqs)


def run_loop(
    core: Core, input_seqs: Sequence[Tensor], states: Sequence[Tensor], wanted_states: Sequence[int] = ()
) -> Results:
    """Scan ``core`` over time by calling it once per step.

    Args:
        core: the one-step function.
        input_seqs: ``[T, *step_shape]`` each.
        states: ``[*step_shape]`` each.
        wanted_states: the states whose values at every step are stacked too.

    Returns:
        ``(output_seqs, final_states, state_seqs)``, the sequences ``[T, *step_shape]``; ``state_seqs``
        those of the wanted states. For ``T = 0`` sequences are empty along time and states unchanged.
    """
    num_states = len(states)
    if input_seqs[0].shape[0] == 0:
        with torch.no_grad():
            step = [seq.new_zeros(seq.shape[1:]) for seq in input_seqs]
            values = call_core(core, [*step, *states], num_states)
        empty = tuple(value.new_empty((0, *value.shape)) for value in values)
        split = len(empty) - num_states
        return empty[:split], tuple(states), tuple(empty[split + j] for j in wanted_states)
    steps: list[tuple[Tensor, ...]] = []
    carried = tuple(states)
    # unbind, not seq[t]: the backward of T selects would add T full-size gradients
    for step_inputs in zip(*(seq.unbind(0) for seq in input_seqs), strict=True):
        run = call_core if steps or transformed() else _first_step
        values = run(core, [*step_inputs, *carried], num_states)
        if steps and len(values) != len(steps[0]):
            raise CoreError(
                f"core returned {len(values)} value(s) at step {len(steps)}, {len(steps[0])} at step 0",
                why="every step returns the same (*outputs, *new_states)",
            )
        steps.append(values)
        carried = values[len(values) - num_states :]
    num_outputs = len(steps[0]) - num_states
    columns = list(zip(*steps, strict=True))
    wanted = [*columns[:num_outputs], *(columns[num_outputs + j] for j in wanted_states)]
    stacked = tuple(torch.stack(column) for column in wanted)
    return stacked[:num_outputs], carried, stacked[num_outputs:]


def _first_step(core: Core, arguments: Sequence[Tensor], num_states: int) -> tuple[Tensor, ...]:
    """The first step, on copies: a core that changes an argument in place is found out, and does no harm."""
    with torch.inference_mode(False):  # where tensors do not count their versions
        copies = [a.clone() for a in arguments]
    before = [copy._version for copy in copies]
    values = call_core(core, copies, num_states)
    for i, (copy, version) in enumerate(zip(copies, before, strict=True)):
        if copy._version != version:
            raise changed_in_place(argument_names(core, len(copies))[i] or f"argument {i}", "", defined_at(core))
    return values


def transformed() -> bool:
    """Inside vmap, jvp, an export, another trace or the like, which only the loop follows."""
    return bool(
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state() is not None
    )
