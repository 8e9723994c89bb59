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
from flexsn.execution.masks import RuledCall
from flexsn.execution.options import ScanOptions
from flexsn.execution.output_dtype import OutputDtype, resolve_output_dtypes
from flexsn.ir.dtypes import compute_dtype
from flexsn.tracing.gradient_path import guard_gradient_path, guard_graph

__all__ = ["Core", "Results", "run_loop", "scan_by_loop", "transformed"]

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
    call: RuledCall | None = None,
) -> Results:
    """Scan by the loop, wherever the time axis is: 16-bit inputs in fp32, outputs in the dtype asked for.

    Args:
        core: the one-step function.
        inputs: sequences, and
        states: the initial states, as :func:`~flexsn.execution.arguments.fit` returns them.
        options: of the scan.
        parameters: what the core reads besides. Where they are given, a backward pass that reaches none of inputs,
            states and parameters says which operation is to blame, and one through a graph that is gone says so.
        dtypes: of the outputs, where they are decided already.
        call: a call by rules; what it adds to the states is behind the final states.
    """
    axis = options.time_dim % inputs[0].dim()
    seqs = [x.movedim(axis, 0).to(compute_dtype(x.dtype)) for x in kept(inputs)]
    states = kept(states)
    device = inputs[0].device.type
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        outputs, finals, state_seqs = run_loop(core, seqs, states, options.wanted_states, call)
        if parameters is not None and torch.is_grad_enabled() and len(seqs[0]) and not transformed():
            first_step = [*(x[0] for x in seqs), *states]
            results = guard_gradient_path(core, first_step, parameters, (*outputs, *finals, *state_seqs))
            results = guard_graph(results)
            a, b = len(outputs), len(outputs) + len(finals)
            outputs, finals, state_seqs = results[:a], results[a:b], results[b:]
    if dtypes is None and (call is None or call.rules.time_reduction is None):
        dtypes = resolve_output_dtypes([y.dtype for y in outputs], [x.dtype for x in inputs], options.output_dtype)
    moved = zip((y.movedim(0, axis) for y in outputs), dtypes or (), strict=True)
    outputs = tuple(y.to(dtype.visible) if transformed() else dtype.store(y) for y, dtype in moved)
    return outputs, finals, tuple(s.movedim(0, axis) for s in state_seqs)


def run_loop(
    core: Core,
    input_seqs: Sequence[Tensor],
    states: Sequence[Tensor],
    wanted_states: Sequence[int] = (),
    call: RuledCall | None = None,
) -> Results:
    """Scan ``core`` over time by calling it once per step.

    Args:
        core: the one-step function.
        input_seqs: ``[T, *step_shape]`` each.
        states: ``[*step_shape]`` each.
        wanted_states: the states whose values at every step are stacked too.
        call: a call by rules.

    Returns:
        ``(output_seqs, final_states, state_seqs)``, the sequences ``[T, *step_shape]``; ``state_seqs``
        those of the wanted states. For ``T = 0`` sequences are empty along time and states unchanged.
    """
    num_states = len(states)
    rules = None if call is None else _Rules(call)
    if input_seqs[0].shape[0] == 0:
        with torch.no_grad():
            step = [seq.new_zeros(seq.shape[1:]) for seq in input_seqs]
            values = call_core(core, [*step, *states], num_states)
        empty = tuple(value.new_empty((0, *value.shape)) for value in values)
        split = len(empty) - num_states
        state_seqs = tuple(empty[split + j] for j in wanted_states)
        if rules is None:
            return empty[:split], tuple(states), state_seqs
        reduced = rules.reduced([() for _ in range(split)], [value.dtype for value in values[:split]])
        return (() if rules.reduces else empty[:split]), (*states, *reduced), state_seqs
    steps: list[tuple[Tensor, ...]] = []
    carried = tuple(states)
    # unbind, not seq[t]: the backward of T selects would add T full-size gradients
    for t, step_inputs in enumerate(zip(*(seq.unbind(0) for seq in input_seqs), strict=True)):
        run = call_core if steps or transformed() else _first_step
        entering = (*step_inputs, *carried) if rules is None else rules.before(t, step_inputs, carried)
        values = run(core, entering, num_states)
        if steps and len(values) != len(steps[0]):
            raise CoreError(
                f"core returned {len(values)} value(s) at step {len(steps)}, {len(steps[0])} at step 0",
                why="every step returns the same (*outputs, *new_states)",
            )
        if rules is not None:
            values = rules.after(t, values)
        steps.append(values)
        carried = values[len(values) - num_states :]
    num_outputs = len(steps[0]) - num_states
    columns = list(zip(*steps, strict=True))
    if rules is not None:
        columns[:num_outputs] = map(rules.ended, columns[:num_outputs])
        carried = (*carried, *rules.reduced(columns[:num_outputs], [y.dtype for y in steps[0][:num_outputs]]))
        if rules.reduces:
            columns, num_outputs = columns[num_outputs:], 0
    wanted = [*columns[:num_outputs], *(columns[num_outputs + j] for j in wanted_states)]
    stacked = tuple(torch.stack(column) for column in wanted)
    return stacked[:num_outputs], carried, stacked[num_outputs:]


class _Rules:
    """The rules of a call, kept by the loop: the definition of what they mean."""

    def __init__(self, call: RuledCall) -> None:
        self._call, self._rules, self._lengths = call, call.rules, call.masks.lengths
        self.reduces = call.rules.time_reduction is not None
        self._resets: tuple[Tensor, ...] = ()
        if call.masks.reset_mask is not None:
            self._resets = call.masks.reset_mask.movedim(call.options.time_dim, 0).unbind(0)
        self._last_alive: tuple[Tensor, ...] | None = None
        self._before: tuple[Tensor, ...] = ()

    def before(self, t: int, inputs: Sequence[Tensor], states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The core's arguments at a step."""
        if t and self._rules.detach_every and t % self._rules.detach_every == 0:
            states = tuple(s.detach() for s in states)
        self._before = states
        if self._resets:
            initial = self._call.masks.initial
            states = tuple(torch.where(self._resets[t], i, s) for i, s in zip(initial, states, strict=True))
        if self._lengths is None:
            return (*inputs, *states)
        # a sample that has ended repeats its last step, and nothing comes of it: zero times NaN would be NaN
        alive, given = t < self._lengths, (*inputs, *states)
        kept = self._last_alive or tuple(_longest(self._lengths, a) for a in given)
        given = tuple(torch.where(alive, new, old) for new, old in zip(given, kept, strict=True))
        self._last_alive = tuple(a.detach() for a in given)
        return given

    def after(self, t: int, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the core returned, states of samples that have ended as they were."""
        if self._lengths is None:
            return values
        alive, split = t < self._lengths, len(values) - len(self._before)
        kept = (torch.where(alive, new, old) for new, old in zip(values[split:], self._before, strict=True))
        return (*values[:split], *kept)

    def ended(self, column: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """An output, 0 where samples have ended."""
        if self._lengths is None:
            return column
        return tuple(torch.where(t < self._lengths, y, torch.zeros_like(y)) for t, y in enumerate(column))

    def reduced(self, columns: Sequence[Sequence[Tensor]], dtypes: Sequence[torch.dtype]) -> tuple[Tensor, ...]:
        """What a call by rules has behind its final states: initial values that learn, and accumulators."""
        learned = (self._call.masks.initial[j] for j in self._rules.learned)
        found = self._rules.accumulated(len(columns))
        totals = []
        for (k, how), total in zip(found, self._call.accumulators(dtypes, 0), strict=True):
            for t, y in enumerate(columns[k]):
                total = self._accumulate(how, t, total, y.to(total.dtype))
            totals.append(total)
        return (*learned, *totals)

    def _accumulate(self, how: str, t: int, total: Tensor, y: Tensor) -> Tensor:
        if how == "sum":
            return total + y
        if how == "max" and t:
            larger = (y > total) | (y.isnan() & ~total.isnan())
            y = torch.where(larger, y, total)
        return y if self._lengths is None else torch.where(t < self._lengths, y, total)


def _longest(lengths: Tensor, value: Tensor) -> Tensor:
    """What the longest sample has, for all of them: something harmless for those without any step; 0 if all are."""
    value = value.detach()
    longest = lengths.flatten().argmax().view(1)
    return torch.where(lengths.max() > 0, value.index_select(0, longest), torch.zeros_like(value[:1])).expand_as(value)


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
