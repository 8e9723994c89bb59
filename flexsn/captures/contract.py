"""The contract of a core: how many inputs, states and outputs it has, what its states are called, what it returns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
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
    "callable_core",
    "changed_in_place",
    "check_arity",
    "check_entries",
    "count_outputs",
    "read_signature",
    "too_few_returned",
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
        CoreError: no core, counts that contradict it, or that nothing determines.
    """
    callable_core(core)
    for what, count in (("num_inputs", num_inputs), ("num_states", num_states)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
            raise CoreError(f"{what} must be a number, got {count!r}")
    names, open_ended = _positional_names(core)
    if not names and not open_ended:
        raise CoreError(
            "the core takes no inputs",
            where=defined_at(core),
            why="a core is core(*inputs, *states); an argument with a default value is a constant",
            hint="give it arguments without default values: def core(x, v)",
        )
    if names[:1] == ["self"]:
        raise CoreError(
            "the core is a method without its object: its first argument is self",
            where=defined_at(core),
            hint="pass the method of an object: MyNeuron(...).core",
        )
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
            hint="leave one of them out, and it is what remains of the core's arguments",
        )
    state_names = [
        f"state{j}" if name.startswith("state") and open_ended else name for j, name in enumerate(names[num_inputs:])
    ]
    return CoreSignature(num_inputs, num_states, tuple(state_names))


def callable_core(core: Any) -> Callable[..., Any]:
    """The function or module itself, without what ``torch.compile`` made of it: traced, it needs no other compiler.

    Raises:
        CoreError: it cannot be called as one step.
    """
    core = getattr(core, "_orig_mod", getattr(core, "_torchdynamo_orig_callable", core))
    if not callable(core):
        raise CoreError(f"core must be callable, got {type(core).__name__}", hint="pass a function core(x, v)")
    if isinstance(core, type):
        raise CoreError(
            f"the core is the class {core.__name__}, not an object of it", hint=f"make one: {core.__name__}(...)"
        )
    function = core.forward if isinstance(core, nn.Module) else core
    for what, found in (
        ("an async function", inspect.iscoroutinefunction(function)),
        ("a generator", inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)),
    ):
        if found:
            raise CoreError(
                f"the core is {what}",
                where=defined_at(core),
                why="a core is called once per step and returns (*outputs, *new_states)",
                hint="write def in place of async def, return in place of yield",
            )
    made: Callable[..., Any] = core
    return made


def check_entries(signature: CoreSignature, **given: Sequence[Any] | None) -> None:
    """Raise ``CoreError`` for what has not one entry per argument."""
    count = signature.num_inputs + signature.num_states
    for what, entries in given.items():
        if entries is not None and not isinstance(entries, (tuple, list)):
            raise CoreError(
                f"{what} must be a tuple, got {type(entries).__name__}",
                why="one entry per argument, inputs then states",
            )
        if entries is not None and len(entries) != count:
            raise CoreError(
                f"{what} has {len(entries)} entries, the core takes {count} arguments",
                why="one entry per argument, inputs then states",
            )


def check_arity(core: Callable[..., Any], num_inputs: int, num_states: int) -> None:
    """Raise ``CoreError`` for a core that cannot be called with so many inputs and states."""
    try:
        signature = inspect.signature(core.forward if isinstance(core, nn.Module) else core)
    except (TypeError, ValueError):  # written in C
        return
    try:
        signature.bind(*[None] * (num_inputs + num_states))
    except TypeError as error:
        raise CoreError(
            f"the core cannot be called with {num_inputs} input(s) and {num_states} state(s): {error}",
            where=defined_at(core),
            why="a core is core(*inputs, *states)",
            hint=f"its arguments are ({', '.join(signature.parameters)})",
        ) from None


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
                hint=_hint_for(value),
            )
    if len(values) < num_states:
        names = [name for name in argument_names(core, len(arguments))[-num_states:] if name]
        raise too_few_returned(
            core, f"core returned {len(values)} value(s), expected at least its {num_states} new state(s)", names
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
                    f"{what} (init_states, example_inputs, or states=)" + _where_dtypes_come_from(expected, got),
                )
    return values


_HINTS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (type(None), "end it with return outputs..., new_states..."),
    (dict, "return the values alone, in that order: return s, v"),
    ((tuple, list), "return them side by side, not one inside another: return s, v, w"),
    (nn.Module, "make the module once, outside the core, and return what calling it gives"),
    ((bool, int, float, np.ndarray, np.generic), "make it a tensor of the step's shape: torch.full_like(x, 1.0)"),
)


def _hint_for(value: object) -> str:
    """What to return in the place of something that is no tensor."""
    return next((hint for kind, hint in _HINTS if isinstance(value, kind)), "")


def too_few_returned(core: Callable[..., Any], what: str, state_names: Sequence[str]) -> CoreError:
    """The error for a core that forgets an output or a new state."""
    new = f" ({', '.join(state_names)})" if state_names else ""
    return CoreError(
        what,
        where=defined_at(core),
        why="a core returns (*outputs, *new_states)",
        hint=f"return every output first, then every new state{new}",
    )


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


def _where_dtypes_come_from(expected: object, got: object) -> str:
    if got == torch.float64:
        return "; a NumPy array is float64 unless made otherwise"
    if isinstance(expected, torch.dtype) and not expected.is_floating_point and got == torch.float32:
        return "; states of integer inputs are integers: x.float()"
    return ""


def changed_in_place(name: str, what: str, where: SourceLine | str | None) -> CoreError:
    """The error for a core that writes into one of its arguments."""
    return CoreError(
        f"the core changes its argument '{name}' in place{what}",
        where=where,
        why="a core is pure: the caller's tensors stay as they are",
        hint=f"write {name} = {name} + ... instead of {name} += ..., "
        f"{name} = torch.where(mask, a, {name}) instead of {name}[mask] = a",
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
