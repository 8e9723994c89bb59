"""The loop: the core run eagerly, step by step, under autograd. The definition of correct."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flexsn.captures.contract import call_core
from flexsn.errors import CoreError

__all__ = ["run_loop"]

Core = Callable[..., Any]


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
