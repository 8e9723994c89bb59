"""The arguments of a scan: every tensor comes in here, is brought to one step shape and, if need be, into memory.

A kernel reads memory. Inputs, states, what the core reads and gradients: the usual tensor passes ``is_memory``, and any
other is of one of the ``KINDS``, first match first. docs/tensors.md is the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flexsn.captures.contract import argument_names
from flexsn.captures.source import Source
from flexsn.errors import SourceLine, UnsupportedOpError
from flexsn.ir.dtypes import HALF, IN_MEMORY
from flexsn.ir.graph import topological
from flexsn.ir.layout import enlarges, without_axis
from flexsn.ir.step import StepGraph

__all__ = [
    *("KINDS", "Kind", "Treatment", "alike", "as_floats"),
    *("check", "check_arguments", "check_read", "check_values", "complaint", "fit"),
    *("is_memory", "kept", "needs_loop", "refuse", "written_out", "wrong_count"),
]

Tensors = tuple[Tensor, ...]
_PLAIN = (Tensor, nn.Parameter, nn.Buffer)
_is_legacy_batched = torch._C._functorch.is_legacy_batchedtensor


class Treatment(Enum):
    """What is done with a tensor of an unusual kind."""

    WRITTEN_OUT = "its values are written into memory first"
    LOOP = "the loop runs"
    LOOP_AND_WARNING = "the loop runs, with one warning; a backend asked for by name raises `UnsupportedOpError`"
    REFUSED = "`ValueError`, which says what to call first"


@dataclass(frozen=True)
class Kind:
    """An unusual kind of tensor.

    Attributes:
        name: as users call it.
        holds: whether a tensor is of this kind.
        treatment: what is done with it.
        hint: what to call first, where it is refused, or left to the loop because a core reads it.
    """

    name: str
    holds: Callable[[Tensor], bool]
    treatment: Treatment
    hint: str = ""


KINDS = (
    Kind("batched (`vmap`, `is_grads_batched`)", lambda t: _is_batched(t), Treatment.LOOP),
    Kind("nested", lambda t: t.is_nested, Treatment.REFUSED, "torch.nested.to_padded_tensor(x, 0.0)"),
    Kind("of a subclass (`FakeTensor`, `DTensor`)", lambda t: type(t) not in _PLAIN, Treatment.LOOP),
    Kind("quantized", lambda t: t.is_quantized, Treatment.REFUSED, "x.dequantize()"),
    Kind("sparse or mkldnn", lambda t: t.layout is not torch.strided, Treatment.REFUSED, "x.to_dense()"),
    Kind("on the meta device", lambda t: t.is_meta, Treatment.LOOP),
    Kind("complex, float8, uint16 to uint64", lambda t: t.dtype not in IN_MEMORY, Treatment.LOOP_AND_WARNING),
    Kind("negated lazily (`x.conj().imag`)", lambda t: t.is_neg(), Treatment.WRITTEN_OUT),
    Kind("of zeros without memory", lambda t: t._is_zerotensor(), Treatment.WRITTEN_OUT, "x.clone()"),
)


def is_memory(tensor: Tensor) -> bool:
    """Whether a tensor is what lies in its memory; dtype and device decide the rest."""
    if type(tensor) not in _PLAIN or tensor.layout is not torch.strided:
        return False
    return not (tensor.is_neg() or tensor._is_zerotensor() or _is_legacy_batched(tensor))


def alike(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """What kernels, and the choice of what runs, go by; empty if something is no tensor, or has no strides."""
    try:
        return tuple(
            [
                (
                    t.shape,
                    t.stride(),
                    t.dtype,
                    t.requires_grad,
                    t.device,
                    type(t),
                    t.layout,
                    t.is_neg(),
                    t._is_zerotensor(),
                )
                for t in tensors
            ]
        )
    except (AttributeError, RuntimeError):  # which of them it is, is said later
        return ()


def _kind_of(tensor: Tensor) -> Kind | None:
    """The unusual kind a tensor is of; ``None`` for the usual."""
    return next((kind for kind in KINDS if kind.holds(tensor)), None)


def refuse(what: str, tensor: Tensor, number: int | None = None) -> None:
    """Raise ``ValueError`` for an input, state or mask that nothing can scan."""
    if not (tensor.is_nested or tensor.is_quantized or tensor.layout is not torch.strided):
        return  # the usual tensor, told from others at every call by rules
    kind = _kind_of(tensor)
    if kind is not None and kind.treatment is Treatment.REFUSED:
        name = what if number is None else f"{what} {number}"
        raise ValueError(f"{name} is {kind.name}; a scan takes dense tensors: {kind.hint}")


def check_read(sources: Sequence[Source]) -> list[Tensor]:
    """What a core reads; raises ``UnsupportedOpError`` for what no kernel can be made around."""
    read = [source.read() for source in sources]
    for source, tensor in zip(sources, read, strict=True):
        kind = _kind_of(tensor)
        if kind is not None and (kind.treatment is Treatment.REFUSED or tensor._is_zerotensor()):
            raise UnsupportedOpError(
                f"the core reads {source.name}, which is {kind.name}",
                why="a kernel reads dense tensors that have memory",
                hint=kind.hint.replace("x", source.name),
            )
    return read


def check_step(step: torch.Size, smallest: torch.Size, names: Sequence[str], read: Sequence[Tensor]) -> None:
    """Check that what the core reads leaves the step as large as inputs and states are.

    Args:
        step: of the call.
        smallest: step that what the core reads allows.
        names, read: what the core reads.

    Raises:
        ValueError: it fits no such step.
        UnsupportedOpError: it would make it larger.
    """
    together = _joint(step, smallest)
    if together is None:
        culprits = [
            f"{n} of shape {tuple(t.shape)}" for n, t in zip(names, read, strict=True) if _joint(step, t.shape) is None
        ]
        what = " and ".join(culprits) or f"something that needs steps of shape {tuple(smallest)}"
        raise ValueError(
            f"the core reads {what}, which does not broadcast with a step of shape {tuple(step)}; a parameter has the "
            "step's last dimensions or 1 for them, a matrix has its last dimension for rows and columns"
        )
    if together != step:
        raise enlarges(smallest, step)


def _joint(*shapes: Sequence[int]) -> torch.Size | None:
    """The shape they broadcast to, if they do."""
    try:
        return torch.Size(np.broadcast_shapes(*map(tuple, shapes)))  # torch's own imports sympy
    except ValueError:
        return None


def needs_loop(tensor: Tensor) -> bool:
    """Whether only the loop follows what this tensor does."""
    kind = _kind_of(tensor)
    return kind is not None and kind.treatment in (Treatment.LOOP, Treatment.REFUSED)


def check_arguments(inputs: Sequence[Tensor], states: Sequence[Tensor]) -> None:
    """Raise ``UnsupportedOpError`` for a dtype no kernel has."""
    for what, tensors in (("input", inputs), ("state", states)):
        for i, tensor in enumerate(tensors):
            _check_dtype(f"{what} {i}", tensor.dtype)


def check_values(graph: StepGraph) -> None:
    """The same for the values of a step."""
    for node in topological((*graph.outputs, *graph.new_states)):
        _check_dtype("what the core reads or computes", node.dtype, node.line)


def _check_dtype(what: str, dtype: torch.dtype, line: SourceLine | None = None) -> None:
    if dtype not in IN_MEMORY:
        raise UnsupportedOpError(
            f"{what} is {str(dtype).removeprefix('torch.')}",
            where=line,
            why="kernels have bool, the integers but uint16 to uint64, and floats of 16, 32 and 64 bits",
            hint="convert it first, or leave it to the loop",
        )


def kept(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Tensors that a backward pass can keep: those made in inference mode are copied."""
    if torch.is_inference_mode_enabled() or not any(t.is_inference() for t in tensors):
        return tensors
    return [t.clone() if t.is_inference() else t for t in tensors]


def written_out(tensor: Tensor) -> Tensor:
    """The same values, in memory; the very tensor where they are."""
    if tensor._is_zerotensor():
        return tensor.clone()
    return tensor.resolve_neg() if tensor.is_neg() else tensor


def _is_batched(tensor: Tensor) -> bool:
    return bool(torch._C._functorch.is_batchedtensor(tensor) or _is_legacy_batched(tensor))


def fit(inputs: Sequence[Tensor], states: Sequence[Tensor], time_dim: int) -> tuple[Tensors, Tensors, int]:
    """Check that everything fits together; broadcast to the step shape, bring 16-bit states to fp32.

    Returns:
        Inputs, states, and the time axis counted from the front.

    Raises:
        ValueError: T, devices or shapes do not fit, something is no tensor, or of a kind that cannot be scanned.
    """
    check(inputs, states, time_dim)
    inputs, states = tuple(map(written_out, inputs)), tuple(map(written_out, states))
    inputs, states, axis = _broadcast(inputs, states, time_dim)
    return inputs, tuple([s if s.dtype not in HALF else s.float() for s in states]), axis


def as_floats(inputs: Tensors) -> Tensors:
    """Integers and bools as floats of the default dtype, everything else as it is."""
    if all(x.is_floating_point() or x.is_complex() for x in inputs):
        return inputs
    default = torch.get_default_dtype()
    return tuple([x if x.is_floating_point() or x.is_complex() else x.to(default) for x in inputs])


def complaint(checks: Callable[[], object]) -> ValueError | None:
    """What checking arguments says of them, where something else has failed already."""
    try:
        checks()
    except ValueError as error:
        return error
    return None


def check(inputs: Sequence[Tensor], states: Sequence[Tensor], time_dim: int) -> None:
    """Check everything but the step shapes; raises as :func:`fit`."""
    if not inputs:
        raise ValueError("a scan needs at least one input, which says how many steps there are")
    for what, tensors in (("input", inputs), ("state", states)):
        for i, value in enumerate(tensors):
            if not isinstance(value, Tensor):
                raise ValueError(f"{what} {i} must be a tensor, got {type(value).__name__}")
            refuse(what, value, i)
    for i, x in enumerate(inputs):
        if not -x.dim() <= time_dim < x.dim():
            raise ValueError(f"input {i} of shape {tuple(x.shape)} has no time axis {time_dim}")
    if len(inputs) > 1 and len({x.shape[time_dim] for x in inputs}) > 1:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise ValueError(f"inputs differ in their number of steps T: shapes {shapes}, time axis {time_dim}")
    devices = {t.device for t in (*inputs, *states)}
    if len(devices) > 1:
        each = [f"{w} {i} on {t.device}" for w, ts in (("input", inputs), ("state", states)) for i, t in enumerate(ts)]
        raise ValueError(
            f"inputs and states are on different devices: {', '.join(sorted(map(str, devices)))} ({', '.join(each)})"
        )


def _broadcast(inputs: Sequence[Tensor], states: Sequence[Tensor], time_dim: int) -> tuple[Tensors, Tensors, int]:
    steps = [without_axis(x.shape, time_dim) for x in inputs]
    shapes = [*steps, *[s.shape for s in states]]
    axis = time_dim % inputs[0].dim()
    if shapes.count(shapes[0]) == len(shapes):
        return tuple(inputs), tuple(states), axis
    step = _joint(*shapes)
    if step is None:
        of_inputs, of_states = [", ".join(str(tuple(s)) for s in part) for part in (steps, shapes[len(steps) :])]
        listed = f"inputs {of_inputs}; states {of_states}" if states else f"inputs {of_inputs}"
        raise ValueError(f"step shapes do not broadcast: {listed}")
    if time_dim < 0:
        axis = len(step) + 1 + time_dim
    num_steps = inputs[0].shape[time_dim]
    padded = [(1,) * (len(step) - len(shape)) for shape in steps]
    wide = [
        x.movedim(time_dim, 0).reshape(num_steps, *ones, *shape).expand(num_steps, *step).movedim(0, axis)
        for x, ones, shape in zip(inputs, padded, steps, strict=True)
    ]
    return tuple(wide), tuple(s.expand(step) for s in states), axis


def wrong_count(
    core: Callable[..., Any], num_inputs: int, state_names: Sequence[str], given: int, counts_are_open: bool
) -> ValueError:
    """The error for another number of inputs than a neuron's core has; a subclass has settled its counts itself."""
    names = [name for name in argument_names(core, num_inputs) if name]
    inputs = f"; the inputs of the core are ({', '.join(names)})" if names else ""
    states = f", its states ({', '.join(state_names)}) stay in the neuron" if names and state_names else ""
    more = "; FlexSN(core, num_inputs=...) says how many arguments are inputs"
    more = more if given > num_inputs and counts_are_open else ""
    return ValueError(f"expected {num_inputs} input(s), got {given}{inputs}{states}{more}")
