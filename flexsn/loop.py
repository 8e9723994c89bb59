"""The loop: the core run eagerly, step by step, under autograd. The definition of correct."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flexsn.errors import CoreError, defined_at
from flexsn.signature import argument_label

__all__ = ["call_core", "run_loop"]

Core = Callable[..., Any]


def call_core(core: Core, arguments: Sequence[Tensor], num_states: int) -> tuple[Tensor, ...]:
    """Run one step and hold the core to its contract.

    Args:
        core: ``core(*inputs, *states) -> (*outputs, *new_states)``.
        arguments: inputs, then states; the states are the last ``num_states``.
        num_states: how many of the arguments, and of the returned values, are states.

    Returns:
        The returned values, outputs first.

    Raises:
        CoreError: a return that is no tensor, too few returns, a state whose shape or dtype drifts.
    """
    returned = core(*arguments)
    values = tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)
    for i, value in enumerate(values):
        if not isinstance(value, Tensor):
            raise CoreError(
                f"core returned {type(value).__name__} as value {i}, expected a tensor",
                where=defined_at(core),
                why="a core returns (*outputs, *new_states), all of them tensors",
            )
    if len(values) < num_states:
        raise CoreError(
            f"core returned {len(values)} value(s), expected at least its {num_states} new state(s)",
            where=defined_at(core),
            why="a core returns (*outputs, *new_states)",
        )
    for j in range(num_states):
        old, new = arguments[len(arguments) - num_states + j], values[len(values) - num_states + j]
        for what, expected, got in (
            ("shape", tuple(old.shape), tuple(new.shape)),
            ("dtype", old.dtype, new.dtype),
        ):
            if expected != got:
                label = argument_label(core, len(arguments) - num_states + j)
                raise CoreError(
                    f"state {j}{label} changes its {what} from {expected} to {got}",
                    why="a state keeps its shape and dtype from step to step",
                    where=defined_at(core),
                    hint="cast or broadcast it inside the core, or start from a state of that "
                    f"{what} (init_states, example_inputs, or states=)",
                )
    return values


def run_loop(
    core: Core, input_seqs: Sequence[Tensor], states: Sequence[Tensor], wanted_states: Sequence[int] = ()
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
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
        values = call_core(core, [*step_inputs, *carried], num_states)
        if steps and len(values) != len(steps[0]):
            raise CoreError(
                f"core returned {len(values)} value(s) at step {len(steps)}, {len(steps[0])} at step 0",
                why="every step returns the same (*outputs, *new_states)",
            )
        steps.append(values)
        carried = values[len(values) - num_states :]
    num_outputs = len(steps[0]) - num_states
    columns = list(zip(*steps, strict=True))
    kept = [*columns[:num_outputs], *(columns[num_outputs + j] for j in wanted_states)]
    stacked = tuple(torch.stack(column) for column in kept)
    return stacked[:num_outputs], carried, stacked[num_outputs:]
