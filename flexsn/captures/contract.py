"""The contract of a core: how many inputs, states and outputs it has, what its states are called, what it returns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flexsn.captures.guards import Captures
from flexsn.captures.snapshot import Snapshot, tensors_kept
from flexsn.errors import CoreError, SourceLine, defined_at

__all__ = [
    "CoreSignature",
    "argument_label",
    "argument_names",
    "call_core",
    "changed_in_place",
    "count_outputs",
    "read_signature",
]


@dataclass(frozen=True)
class CoreSignature:
    """The arguments of a core, split into inputs and states."""

    num_inputs: int
    num_states: int
    state_names: tuple[str, ...]


def read_signature(
    core: Callable[..., Any],
    num_inputs: int | None,
    num_states: int | None,
    example_inputs: Sequence[Any] | None = None,
) -> CoreSignature:
    """Fill in the counts the caller left ``None`` from the core's own signature.

    Arguments with a default value are constants, not inputs or states. ``num_inputs`` is 1 where
    nothing else decides; ``example_inputs`` (inputs, then states) gives the total for a core with ``*args``.

    Raises:
        CoreError: counts that contradict the core, or that nothing determines.
    """
    for what, count in (("num_inputs", num_inputs), ("num_states", num_states)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
            raise CoreError(f"{what} must be a number, got {count!r}")
    names, open_ended = _positional_names(core)
    total = len(names)
    if open_ended:
        if example_inputs is not None:
            total = max(total, len(example_inputs))
        elif num_states is not None:
            total = max(total, (1 if num_inputs is None else num_inputs) + num_states)
        else:
            raise CoreError(
                "the number of states cannot be read off a core that takes *args",
                where=defined_at(core),
                hint="pass num_states= (and num_inputs=, if it is not 1)",
            )
        names += [f"state{i}" for i in range(len(names), total)]
    if num_inputs is None:
        num_inputs = 1 if num_states is None else total - num_states
    if num_states is None:
        num_states = total - num_inputs
    if num_inputs < 1 or num_states < 0 or num_inputs + num_states != total:
        raise CoreError(
            f"num_inputs={num_inputs} and num_states={num_states} contradict the core, "
            f"which takes {total} argument(s): ({', '.join(names)})",
            where=defined_at(core),
            why="a core is core(*inputs, *states) with at least one input",
        )
    state_names = [
        f"state{j}" if name.startswith("state") and open_ended else name for j, name in enumerate(names[num_inputs:])
    ]
    return CoreSignature(num_inputs, num_states, tuple(state_names))


def _positional_names(core: Callable[..., Any]) -> tuple[list[str], bool]:
    """Names of the arguments without a default value, and whether there may be more of them."""
    names: list[str] = []
    open_ended = False
    try:
        signature = inspect.signature(core.forward if isinstance(core, nn.Module) else core)
    except (TypeError, ValueError):  # written in C
        return names, True
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            open_ended = True
        elif parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            if parameter.kind is parameter.KEYWORD_ONLY:
                raise CoreError(
                    f"the core needs a keyword argument '{parameter.name}'",
                    where=defined_at(core),
                    why="a core is called as core(*inputs, *states)",
                    hint=f"give it a value: functools.partial(core, {parameter.name}=...)",
                )
            names.append(parameter.name)
    return names, open_ended


def call_core(
    core: Callable[..., Any],
    arguments: Sequence[Tensor],
    num_states: int,
    around: AbstractContextManager[Any] | None = None,
) -> tuple[Tensor, ...]:
    """Run one step and hold the core to its contract.

    Args:
        core: ``core(*inputs, *states) -> (*outputs, *new_states)``.
        arguments: inputs, then states; the states are the last ``num_states``.
        num_states: how many of the arguments, and of the returned values, are states.
        around: entered for as long as the core runs.

    Returns:
        The returned values, outputs first.

    Raises:
        CoreError: a return that is no tensor, too few returns, a state whose shape or dtype drifts.
    """
    with around or nullcontext():
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
                    f"{what} (init_states, example_inputs, or states=)"
                    + ("; a NumPy array is float64 unless made otherwise" if got == torch.float64 else ""),
                )
    return values


def argument_label(core: Callable[..., Any], position: int) -> str:
    """`` 'v'``: how the core calls an argument, for error texts; empty where that cannot be told."""
    names = argument_names(core, position + 1)
    return f" '{names[position]}'" if names[position] else ""


def argument_names(core: Callable[..., Any], count: int) -> list[str]:
    """How the core calls its first arguments; empty where that cannot be told."""
    core = inspect.unwrap(core)
    names, open_ended = _positional_names(core)
    if open_ended:  # a neuron's method may leave it to the neuron how many states there are
        names += getattr(getattr(core, "__self__", None), "state_names", ())
    return [*names, *[""] * count][:count]


def changed_in_place(name: str, what: str, where: SourceLine | str | None) -> CoreError:
    """The error for a core that writes into one of its arguments."""
    return CoreError(
        f"the core changes its argument '{name}' in place{what}",
        where=where,
        why="a core is pure: the caller's tensors stay as they are",
        hint=f"write {name} = {name} + ... instead of {name} += ...",
    )


def count_outputs(
    captures: Captures, core: Callable[..., Any], dtypes: Sequence[torch.dtype], num_states: int
) -> int | None:
    """How many outputs a core has, by running it on small tensors; ``None`` if that fails or must not be done.

    The run leaves no trace: what it changed of what it reads is put back, random numbers drawn as well.
    """
    if captures.consumed is not None:
        return None
    before, seed = Snapshot(captures, others=True), torch.get_rng_state()
    on = {source.read().device for source in captures.tensors}
    device = on.pop() if len(on) == 1 else torch.device("cpu")
    try:
        quiet = torch.autocast(device.type, enabled=False)
        with tensors_kept(captures), torch.inference_mode(False), torch.no_grad(), quiet:
            for shape in ((), (2, 3)):
                try:
                    returned = core(*(torch.zeros(shape, dtype=dtype, device=device) for dtype in dtypes))
                except Exception:
                    continue
                return (len(returned) if isinstance(returned, (tuple, list)) else 1) - num_states
        return None
    finally:
        before.put_back()
        torch.set_rng_state(seed)
