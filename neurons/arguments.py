"""Arguments of the built-in neurons: the common ones, said once, and what is refused."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict, TypeVar, cast, get_args, get_type_hints

import torch
from torch import Tensor

__all__ = [
    "FiringOptions",
    "MaskArguments",
    "NeuronOptions",
    "Number",
    "SequenceOptions",
    "SpikeFunction",
    "SpikingOptions",
    "check_callable",
    "check_flag",
    "check_names",
    "check_number",
    "check_shape",
    "check_size",
    "float_tensor",
    "shown",
    "step_shape",
    "with_arguments_of",
    "wrong",
]

Number = float | Tensor
SpikeFunction = Callable[[Tensor], Tensor]
Init = TypeVar("Init", bound=Callable[..., None])


class MaskArguments(TypedDict, total=False):
    """What a call says of its sequences; see :meth:`flexsn.FlexSN.forward`."""

    lengths: Tensor | None
    reset_mask: Tensor | None


class SequenceOptions(TypedDict, total=False):
    """What every neuron does with sequences if asked to; see :class:`flexsn.FlexSN`."""

    detach_every: int | None
    time_reduction: str | None
    rate: bool


class NeuronOptions(SequenceOptions, total=False):
    """The common arguments of a neuron; what they mean says :class:`~flexsn.neurons.base.Neuron`."""

    step_mode: str
    backend: str
    store_v_seq: bool
    learnable: Sequence[str]
    shape: Sequence[int]


class FiringOptions(NeuronOptions, total=False):
    """Those of a neuron that fires; :class:`~flexsn.neurons.base.SpikingNeuron` says more."""

    surrogate_function: SpikeFunction | None
    detach_reset: bool


class SpikingOptions(FiringOptions, total=False):
    """Those of a neuron with the usual threshold and reset."""

    v_threshold: Number
    v_reset: Number | None


def with_arguments_of(base: type, *order: str) -> Callable[[Init], Init]:
    """Lets ``__init__(self, own, *common, **options)`` take the arguments of ``base`` after its own.

    Which of them, says the type of ``options``: ``Unpack`` of a ``TypedDict``. Without one it takes all that
    ``base`` has by position, and whatever else ``base`` accepts. The order is that of ``base``, or ``order`` from
    the first to the last; the defaults are those of ``base``. What comes by position is handed on by name:
    ``common`` stays empty, and no constructor depends on which class is next.

    Raises:
        TypeError: by the constructor, for arguments that it does not have.
    """

    def spell_out(init: Init) -> Init:
        signature = _full_signature(init, base, order)
        names = [name for name, p in signature.parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]

        @functools.wraps(init)
        def spelt_out(*args: Any, **kwargs: Any) -> None:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                problem = str(error).replace("multiple values", "got multiple values")
                raise TypeError(f"{init.__qualname__}() {problem}") from None
            init(**dict(zip(names, args, strict=False)), **kwargs)

        spelt_out.__signature__ = signature  # type: ignore[attr-defined]
        return cast(Init, spelt_out)

    return spell_out


def _full_signature(init: Callable[..., None], base: type, order: Sequence[str]) -> inspect.Signature:
    own, common = (inspect.signature(f).parameters for f in (init, base.__init__))  # type: ignore[misc]
    options = next(reversed(own))
    named = get_args(get_type_hints(init)[options])
    taken = named[0].__optional_keys__ if named else {p.name for p in common.values() if p.kind < p.VAR_POSITIONAL}
    found = {name: p for name, p in own.items() if p.kind is not p.VAR_POSITIONAL and not (named and name == options)}
    found |= {name: p for name, p in common.items() if name in taken and name not in own}
    place = {name: i for i, name in enumerate(("self", *order))}
    if order:
        kinds = {True: inspect.Parameter.POSITIONAL_OR_KEYWORD, False: inspect.Parameter.KEYWORD_ONLY}
        found = {name: p.replace(kind=kinds[name in place]) for name, p in found.items()}
    return inspect.Signature(sorted(found.values(), key=lambda p: (p.kind, place.get(p.name, 0))))


def wrong(owner: object, rule: str, **arguments: object) -> ValueError:
    """The error for arguments that break a rule: ``LIF(tau=0.5): tau must be > 1``."""
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return ValueError(f"{type(owner).__name__}({given}): {rule}")


def check_flag(owner: object, **flags: object) -> None:
    """Every flag is ``True`` or ``False``, else ``ValueError``."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise wrong(owner, f"{name} must be True or False", **{name: value})


def check_callable(owner: object, example: str, **functions: object) -> None:
    """Every function can be called, and is no class, else ``ValueError`` with an example of one."""
    for name, value in functions.items():
        if not callable(value) or isinstance(value, type):
            raise wrong(owner, f"{name} must be callable, such as {example}", **{name: value})


def check_names(owner: object, learnable: Sequence[str], choices: Sequence[str]) -> tuple[str, ...]:
    """``learnable`` as a tuple of names; a single string is one name.

    Raises:
        ValueError: no names, or a name that is not among ``choices``.
    """
    names = (learnable,) if isinstance(learnable, str) else learnable
    rule = f"learnable may name {', '.join(map(repr, choices))}"
    if not isinstance(names, Iterable):
        raise wrong(owner, rule, learnable=learnable)
    for name in (names := tuple(names)):
        if name not in choices:
            raise wrong(owner, f"{rule}; not {name!r}", learnable=names)
    return names


def check_number(owner: object, above: float = -math.inf, **values: Any) -> None:
    """Every value is a Python number greater than ``above``, else ``ValueError``."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not float(value) > above:
            rule = "a number" if above == -math.inf else f"> {above:g}"
            raise wrong(owner, f"{name} must be {rule}", **{name: value})


def check_shape(owner: object, **shapes: Sequence[int]) -> tuple[int, ...]:
    """The one shape given, as a tuple, or ``ValueError``."""
    ((name, shape),) = shapes.items()
    if not isinstance(shape, Sequence) or not all(type(size) is int and size >= 0 for size in shape):
        raise wrong(owner, f"{name} must be a sequence of integers >= 0, such as (8, 1, 1)", **{name: shape})
    return tuple(shape)


def check_size(owner: object, least: int = 1, **sizes: object) -> None:
    """Every size is an integer not below ``least``, else ``ValueError``."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < least:
            raise wrong(owner, f"{name} must be an integer >= {least}", **{name: size})


def float_tensor(owner: object, name: str, value: object) -> Tensor:
    """A number or a tensor as a tensor that can be learned, or ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, Tensor)):
        raise wrong(owner, f"{name} must be a number or a tensor", **{name: value})
    tensor = torch.as_tensor(value)
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())


def step_shape(neuron: Any, x: Tensor) -> tuple[int, ...]:
    """The shape of a step of this input of a neuron."""
    axes = list(x.shape)
    if neuron.step_mode == "m" and -len(axes) <= neuron.time_dim < len(axes):
        del axes[neuron.time_dim]
    return tuple(axes)


def shown(value: object) -> str:
    """``value`` in the repr of a neuron that holds its numbers as tensors."""
    if not isinstance(value, Tensor):
        return repr(value)
    kind = "learnable " if value.requires_grad else ""
    if value.numel() != 1 or value.is_meta:
        return f"{kind}tensor {tuple(value.shape)}"
    return f"{kind}{value.item():.6g}"
