"""Random calls of a core: shapes, memory layouts, dtypes, and which gradients are asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from cores import BOOL, FLOAT, INT, SHAPES, Core
from hypothesis import strategies as st
from torch import Tensor

import flexsn
from flexsn.errors import GradientError

STEPS = ((3, 5), (2, 3, 4), (2, 3, 2, 5), (1, 1), (70, 3))
LAYOUTS = ("contiguous", "channels_last", "reversed", "expanded", "sliced")


@dataclass(frozen=True)
class Call:
    """How a core is called.

    Attributes:
        step: the step shape.
        num_steps: T.
        checkpoint: K.
        time_dim: the time axis.
        layouts: of each input.
        dtype: of the inputs.
        special: whether inputs hold NaN and infinities.
        needs: which of inputs, float states and parameters need a gradient, by bits of a number.
        gives: which outputs and final states get one.
        seed: of the values.
        output_dtype: what outputs are kept in.
    """

    step: tuple[int, ...]
    num_steps: int
    checkpoint: int
    time_dim: int
    layouts: tuple[str, str, str]
    dtype: torch.dtype
    special: bool
    needs: int
    gives: int
    seed: int
    output_dtype: torch.dtype | None


def calls(dtypes: tuple[torch.dtype, ...]) -> st.SearchStrategy[Call]:
    """Random calls."""
    layout = st.sampled_from(LAYOUTS)
    return st.builds(
        Call,
        step=st.sampled_from(STEPS),
        num_steps=st.sampled_from([3, 1, 2, 7, 20, 0]),
        checkpoint=st.sampled_from([2, 1, 3, 8]),
        time_dim=st.integers(0, 1),
        layouts=st.tuples(layout, layout, layout),
        dtype=st.sampled_from(dtypes),
        special=st.sampled_from([False, False, False, True]),
        needs=st.integers(0, 255),
        gives=st.integers(0, 255),
        seed=st.integers(0, 2**31),
        output_dtype=st.sampled_from([None, None, torch.bool, torch.float32]),
    )


@dataclass
class Outcome:
    """What a call gives back: values by name, gradients by name."""

    values: dict[str, Tensor]
    gradients: dict[str, Tensor | None]


def run(core: Core, call: Call, backend: str) -> Outcome:
    """Call the core and take the gradients the call asks for."""
    generator = torch.Generator().manual_seed(call.seed)
    compute = torch.float64 if call.dtype == torch.float64 else torch.float32
    names = [f"input {i}" for i in range(core.num_inputs)] + [f"state {j}" for j in range(len(core.states))]
    names += [f"parameter {k}" for k in range(len(core.parameters))]
    inputs = [_input(call, i, generator) for i in range(core.num_inputs)]
    states = [_state(kind, call.step, compute, generator) for kind in core.states]
    core.tensors = [
        torch.randn(SHAPES[p.shape](call.step), generator=generator, dtype=compute) for p in core.parameters
    ]
    leaves = dict(zip(names, [*inputs, *states, *core.tensors], strict=True))
    for bit, (name, leaf) in enumerate(leaves.items()):
        buffer = name.startswith("parameter") and core.parameters[int(name[-1])].buffer
        leaf.requires_grad_(leaf.is_floating_point() and not buffer and bool(call.needs >> bit & 1))
    outputs, finals, state_seqs = flexsn.scan(
        core,
        inputs,
        tuple(states),
        backend,
        call.time_dim,
        return_state_seqs=True,
        checkpoint=call.checkpoint,
        output_dtype=call.output_dtype,
    )
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    values = {f"output {i}": y for i, y in enumerate(outputs)}
    values |= {f"final state {j}": v for j, v in enumerate(finals)}
    values |= {f"state sequence {j}": v for j, v in enumerate(state_seqs)}
    roots = [(n, v) for bit, (n, v) in enumerate(values.items()) if call.gives >> bit & 1 and v.is_floating_point()]
    wanted = {n: leaf for n, leaf in leaves.items() if leaf.requires_grad}
    cotangents = {n: torch.randn(v.shape, generator=generator).to(v.dtype) for n, v in roots}
    roots = [(n, v) for n, v in roots if v.requires_grad]
    found: tuple[Tensor | None, ...] = (None,) * len(wanted)
    if roots and wanted:
        with suppress(GradientError):  # no path at all: to a loop that lacks one, the same as no gradient
            found = torch.autograd.grad(
                [v for _, v in roots], list(wanted.values()), [cotangents[n] for n, _ in roots], allow_unused=True
            )
    return Outcome({n: v.detach() for n, v in values.items()}, dict(zip(wanted, found, strict=True)))


def _input(call: Call, index: int, generator: torch.Generator) -> Tensor:
    """A sequence in one of the layouts, time at its axis."""
    shape = (call.num_steps, *call.step)
    layout = call.layouts[index]
    if layout == "sliced":
        shape = (*shape[:-1], 2 * shape[-1])
    elif layout == "expanded":
        shape = (shape[0], 1, *shape[2:])
    elif layout == "reversed":
        shape = (shape[0], *shape[:0:-1])
    elif layout == "channels_last":
        shape = (*shape[:2], *shape[3:], shape[2]) if len(shape) > 2 else shape
    x = (torch.randn(shape, generator=generator, dtype=torch.float64) * 64).round() / 32
    if call.special and x.numel():
        flat = x.view(-1)
        for position, value in enumerate((float("nan"), float("inf"), -float("inf"), -0.0)):
            flat[position * 7 % flat.numel()] = value
    x = x.to(call.dtype)
    if layout == "sliced":
        x = x[..., ::2]
    elif layout == "expanded":
        x = x.expand(call.num_steps, *call.step)
    elif layout == "reversed":
        x = x.permute(0, *range(x.dim() - 1, 0, -1))
    elif layout == "channels_last" and x.dim() > 2:
        x = x.movedim(-1, 2)
    return x.movedim(0, call.time_dim) if call.time_dim else x


def _state(kind: str, step: tuple[int, ...], compute: torch.dtype, generator: torch.Generator) -> Tensor:
    values = torch.randn(step, generator=generator, dtype=torch.float64)
    by_kind: dict[str, Callable[[], Any]] = {
        FLOAT: lambda: (values * 8).round().to(compute) / 8,
        INT: lambda: (values * 2).to(torch.int32),
        BOOL: lambda: values > 0,
    }
    result: Tensor = by_kind[kind]()
    return result
