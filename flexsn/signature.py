"""How many inputs and states a core takes, and what its states are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from flexsn.errors import CoreError, defined_at

__all__ = ["CoreSignature", "read_signature"]


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
    target = core.forward if isinstance(core, nn.Module) else core
    names, open_ended = _positional_names(target)
    total = len(names)
    if open_ended:
        if example_inputs is not None:
            total = max(total, len(example_inputs))
        elif num_inputs is not None and num_states is not None:
            total = max(total, num_inputs + num_states)
        else:
            raise CoreError(
                "the number of states cannot be read off a core that takes *args",
                where=defined_at(core),
                hint="pass num_inputs= and num_states=",
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


def _positional_names(target: Callable[..., Any]) -> tuple[list[str], bool]:
    names: list[str] = []
    open_ended = False
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            open_ended = True
        elif (
            parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            and parameter.default is parameter.empty
        ):
            names.append(parameter.name)
    return names, open_ended
