"""What a call says of its own sequences, and a call by rules: lengths, resets, cuts, outputs reduced over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from flexsn.execution.arguments import Tensors, fit, refuse, written_out
from flexsn.execution.options import ScanOptions
from flexsn.execution.output_dtype import resolve_output_dtypes
from flexsn.ir.layout import without_axis
from flexsn.ir.step import StepGraph
from flexsn.planning.rules import SequenceRules, accumulator_dtype

__all__ = ["Masks", "RuledCall", "rules_of"]

_LANES_OF_A_BYTE = 64  # of a mask from which on it is read as it lies in memory


@dataclass(frozen=True, eq=False)
class Masks:
    """Which steps count, and before which ones states start again.

    Attributes:
        lengths: the number of steps of each sample, ``[B]``, the batch being the first dimension of a step.
        reset_mask: bool, the first dimensions of the inputs, or all: time, batch, ...
        initial: what states are after a reset.
    """

    lengths: Tensor | None = None
    reset_mask: Tensor | None = None
    initial: Tensors = ()

    @property
    def tensors(self) -> Tensors:
        """What comes with the inputs and states."""
        return tuple(t for t in (self.lengths, self.reset_mask, *self.initial) if t is not None)

    def with_gradients(self, flags: Sequence[bool]) -> Masks:
        """The same, initial states cut off where a flag says so."""
        if not self.initial:
            return self
        return replace(self, initial=tuple(i if f else i.detach() for i, f in zip(self.initial, flags, strict=True)))

    def fit(self, inputs: Tensors, states: Tensors, axis: int) -> Masks:
        """The same for these inputs: lengths ``int32 [B, 1, ...]``, the mask as large as an input.

        Raises:
            ValueError: a shape, dtype, device or number that does not fit.
        """
        lengths, reset_mask = self.lengths, self.reset_mask
        if lengths is not None:
            lengths = _fit_lengths(lengths, inputs[0], axis)
        if reset_mask is None:
            return Masks(lengths)
        pairs = zip(self.initial, states, strict=True)
        initial = tuple([torch.broadcast_to(written_out(i).to(s.dtype), s.shape) for i, s in pairs])
        return Masks(lengths, _fit_reset_mask(reset_mask, inputs[0]), initial)


def _fit_lengths(lengths: Tensor, x: Tensor, axis: int) -> Tensor:
    step, num_steps = without_axis(x.shape, axis), x.shape[axis]
    lengths = _checked("lengths", lengths, x, integers=True).long()  # torch does not compare uint16
    if not step:
        raise ValueError(f"lengths need a batch as the first dimension of a step; inputs are {tuple(x.shape)}")
    if lengths.shape != step[:1]:
        wanted = f"one number per sample, shape ({step[0]},)"
        raise ValueError(f"lengths must be {wanted}, for steps {step}; got shape {tuple(lengths.shape)}")
    if lengths.device.type == "cpu" and not torch._C._are_functorch_transforms_active():
        _check_range(lengths, num_steps)
    else:
        lengths = lengths.clamp(0, num_steps)
    return lengths.to(x.device, torch.int32, non_blocking=True).view(-1, *(1,) * (len(step) - 1))


def _check_range(lengths: Tensor, num_steps: int) -> None:
    if not len(lengths):
        return
    shortest, longest = lengths.aminmax()
    if shortest.item() >= 0 and longest.item() <= num_steps:
        return
    sample = int(((lengths < 0) | (lengths > num_steps)).nonzero()[0])
    raise ValueError(
        f"lengths must be between 0 and the number of steps {num_steps}; sample {sample} has {int(lengths[sample])}"
    )


def _fit_reset_mask(mask: Tensor, x: Tensor) -> Tensor:
    mask = _checked("reset_mask", mask, x, integers=False)
    if mask.shape == x.shape:
        return mask
    shape = (*mask.shape, *(1,) * (x.dim() - mask.dim()))
    if len(shape) > x.dim() or any(size not in (1, full) for size, full in zip(shape, x.shape, strict=True)):
        raise ValueError(
            f"reset_mask of shape {tuple(mask.shape)} does not fit inputs of shape {tuple(x.shape)}: "
            "it has their first dimensions, or all of them"
        )
    wide = torch.broadcast_to(mask.view(shape), x.shape)
    if x.device.type != "cpu":
        return wide
    shared = takewhile(lambda sizes: sizes[0] == 1, zip(reversed(shape), reversed(x.shape), strict=True))
    # a CPU reads a byte per lane and step faster than it finds the one for a few of them
    return wide if math.prod(full for _, full in shared) >= _LANES_OF_A_BYTE else wide.contiguous()


def _checked(name: str, mask: Tensor, x: Tensor, integers: bool) -> Tensor:
    """The same values, in memory."""
    if not isinstance(mask, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(mask).__name__}")
    refuse(name, mask)
    is_integer = not (mask.is_floating_point() or mask.is_complex() or mask.dtype == torch.bool)
    if is_integer is not integers or (not integers and mask.dtype != torch.bool):
        raise ValueError(f"{name} must be {'integers' if integers else 'bool'}, got {mask.dtype}")
    if mask.device != x.device and not (integers and mask.device.type == "cpu"):
        raise ValueError(f"{name} is on {mask.device}, the inputs are on {x.device}")
    return written_out(mask)


@lru_cache(64)  # made once, not at every call
def rules_of(
    options: ScanOptions, lengths: bool = False, resets: bool = False, learned: tuple[int, ...] = ()
) -> SequenceRules:
    """What the options of a scan ask for, and what a call says of its own sequences."""
    return SequenceRules(
        lengths=lengths,
        resets=resets,
        learned=learned,
        time_reduction=options.time_reduction,
        rate=options.rate,
        detach_every=options.detach_every,
        wanted_states=options.wanted_states,
    )


@dataclass(frozen=True, eq=False)
class RuledCall:
    """A call in which more happens than the core's own steps.

    A kernel, and the loop, are given more than the core is: one more input (the reset mask), more states (initial
    values that have a gradient, accumulators), and lengths and initial values before the captured tensors. What comes
    back is turned by :meth:`finish` into what was asked for.

    Attributes:
        rules: what happens.
        inputs, states: of the core, of the full step shape.
        options: of the scan; the time axis counted from the front.
        masks: as :meth:`Masks.fit` returns them.
    """

    rules: SequenceRules
    inputs: Tensors
    states: Tensors
    options: ScanOptions
    masks: Masks

    @staticmethod
    def of(inputs: Sequence[Tensor], states: Sequence[Tensor], options: ScanOptions, masks: Masks) -> RuledCall:
        """Check and fit everything; raises ``ValueError`` for what does not fit."""
        inputs, states, axis = fit(inputs, states, options.time_dim)
        masks = masks.fit(inputs, states, axis)
        learned = [j for j, i in enumerate(masks.initial) if i.requires_grad and torch.is_grad_enabled()]
        rules = rules_of(options, masks.lengths is not None, masks.reset_mask is not None, tuple(learned))
        if axis != options.time_dim:
            options = replace(options, time_dim=axis)
        return RuledCall(rules, inputs, states, options, masks)

    # ---- what is given to kernels ------------------------------------------------------------------------------

    @property
    def kernel_inputs(self) -> Tensors:
        """Inputs, and the reset mask."""
        mask = self.masks.reset_mask
        return self.inputs if mask is None else (*self.inputs, mask)

    def kernel_states(self, graph: StepGraph) -> Tensors:
        """States, initial values that have a gradient, and accumulators at 0."""
        computed = [n.dtype for n in graph.outputs]
        learned = (self.masks.initial[j] for j in self.rules.learned)
        return (*self.states, *learned, *self.accumulators(computed, len(self.rules.wanted_states)))

    def accumulators(self, computed: Sequence[torch.dtype], num_wanted: int) -> Tensors:
        """Zeros, for outputs computed in these dtypes, the last of which are sequences of wanted states."""
        x, step = self.inputs[0], without_axis(self.inputs[0].shape, self.options.time_dim)
        found = self.rules.accumulated(len(computed) - num_wanted)
        dtypes = (accumulator_dtype(how, computed[k]) for k, how in found)
        return tuple(torch.broadcast_to(torch.zeros((), dtype=d, device=x.device), step) for d in dtypes)

    @property
    def once(self) -> Tensors:
        """What is read once per lane, before the captured tensors: lengths, then initial values."""
        lengths = () if self.masks.lengths is None else (self.masks.lengths,)
        return (*lengths, *[i.detach() if i.requires_grad else i for i in self.masks.initial])

    # ---- what comes back ---------------------------------------------------------------------------------------

    def finish(self, outputs: Tensors, finals: Tensors, state_seqs: Tensors) -> tuple[Tensors, Tensors, Tensors]:
        """Outputs, final states and state sequences as the caller gets them, the rate behind the outputs."""
        rules, split = self.rules, len(self.states)
        accumulators = finals[split + len(rules.learned) :]
        if rules.time_reduction is not None:
            reduced = accumulators[: len(accumulators) - (rules.rate and rules.time_reduction not in ("sum", "mean"))]
            dtypes = resolve_output_dtypes(
                [a.dtype for a in reduced], [x.dtype for x in self.inputs], self.options.output_dtype
            )
            values = [self._mean(a) for a in reduced] if rules.time_reduction == "mean" else reduced
            is_output = rules.time_reduction in ("last", "max")  # a sum of spikes is no spike
            outputs = tuple(
                d.store(v) if is_output else v.to(d.visible) if d.visible.is_floating_point else v
                for d, v in zip(dtypes, values, strict=True)
            )
        if rules.rate:
            summed = accumulators[0 if rules.time_reduction in ("sum", "mean") else -1]
            outputs = (*outputs, self._mean(summed))
        return outputs, finals[:split], state_seqs

    def _mean(self, total: Tensor) -> Tensor:
        """Over the sample's own steps; of none it is 0."""
        lengths: Any = self.masks.lengths
        num_steps = self.inputs[0].shape[self.options.time_dim]
        return total / (max(num_steps, 1) if lengths is None else lengths.clamp(min=1))
