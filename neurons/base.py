"""What the built-in neurons share: coefficients, starting values, firing, resetting, recording, repr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from flexsn import FlexSN, surrogate
from flexsn.neurons.arguments import (
    Number,
    SpikeFunction,
    check_callable,
    check_flag,
    check_names,
    check_shape,
    wrong,
)
from flexsn.neurons.coefficient import Coefficient

__all__ = ["Neuron", "SpikingNeuron", "above_rest", "hard_reset", "is_zero", "soft_reset"]


def above_rest(v: Tensor, v_reset: Number | None) -> Tensor:
    """``v − v_reset``; an absent reset value counts as 0."""
    return v if is_zero(v_reset) else v - v_reset  # type: ignore[operator]


def hard_reset(h: Tensor, s: Tensor, v_reset: Number) -> Tensor:
    """``s·v_reset + (1 − s)·h``: to ``v_reset`` where it fired."""
    kept = (1.0 - s) * h
    return kept if is_zero(v_reset) else s * v_reset + kept


def soft_reset(h: Tensor, s: Tensor, v_threshold: Number) -> Tensor:
    """``h − s·v_threshold``: down by one threshold where it fired."""
    return h - s * v_threshold


def is_zero(value: Number | None) -> bool:
    """Whether a term ``· value`` may be left out: absent or the number 0. A tensor never is."""
    return value is None or (not isinstance(value, Tensor) and value == 0)


class Neuron(FlexSN):
    """A core in a subclass, with named coefficients and starting values.

    A subclass writes ``core(self, x, *states)`` and declares its coefficients as class attributes::

        class Leaky(Neuron):
            tau = Coefficient(above=1)

            def __init__(self, tau=2.0, *, learnable=(), shape=()):
                super().__init__(learnable=learnable, shape=shape, tau=tau)

            def core(self, x, v):
                v = v + (x - v) / self.tau
                return v, v

    Args:
        step_mode: ``"s"``: inputs are single steps; ``"m"``: inputs are sequences ``[T, ...]``.
        backend: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"torch"``.
        store_v_seq: keep the membrane of every step of a call in ``v_seq``.
        learnable: names of coefficients to learn; see :class:`~flexsn.neurons.coefficient.Coefficient`.
        shape: shape of the learned parameters, broadcasting against the step shape: ``()`` one for all,
            ``(C, 1, 1)`` one per channel of ``[B, C, H, W]``, the step shape without batch one per neuron.
        counts: ``num_inputs`` and ``num_states`` of a core whose signature does not tell.
        detach_every, time_reduction, rate: as for :class:`flexsn.FlexSN`.
        coefficients: the values of the declared coefficients: numbers, or tensors (kept as buffers).

    Attributes:
        starts: where each state starts: a number, or the name of the attribute that holds it (``None`` is 0).
    """

    starts: ClassVar[Mapping[str, float | str]] = {}
    integers_as_floats: ClassVar[bool] = True

    def __init__(
        self,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
        *,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
        counts: Mapping[str, int] | None = None,
        detach_every: int | None = None,
        time_reduction: str | None = None,
        rate: bool = False,
        **coefficients: Any,
    ) -> None:
        options: dict[str, Any] = {"step_mode": step_mode, "backend": backend, **(counts or {})}
        options |= {"detach_every": detach_every, "time_reduction": time_reduction, "rate": rate}
        super().__init__(store_state_seqs=store_v_seq, **options)
        check_flag(self, store_v_seq=store_v_seq)
        declared = self._declared()
        for name in coefficients:
            if name not in declared:  # as Python says it of a signature without **coefficients
                raise TypeError(f"{type(self).__name__}.__init__() got an unexpected keyword argument {name!r}")
        learnable, shape = check_names(self, learnable, tuple(coefficients)), check_shape(self, shape=shape)
        if shape and not learnable:
            raise wrong(self, "shape is that of what learnable names, which is nothing", shape=shape)
        for name, value in coefficients.items():
            declared[name].start(self, value, name in learnable, shape)

    @classmethod
    def _declared(cls) -> dict[str, Coefficient]:
        found: dict[str, Coefficient] = {}
        for base in cls.__mro__:
            for name, attribute in vars(base).items():
                if isinstance(attribute, Coefficient):
                    found.setdefault(name, attribute)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        coefficient = getattr(type(self), name, None)
        if isinstance(coefficient, Coefficient):
            coefficient.assign(self, value)
        else:
            super().__setattr__(name, value)

    # ---- states -------------------------------------------------------------------------------------------

    def start_of(self, state: str) -> Number:
        """The value a state has before the first step."""
        start = self.starts.get(state, 0.0)
        value = getattr(self, start) if isinstance(start, str) else start
        return 0.0 if value is None else value

    def init_states(self, num_states: int, step_mode: str, *args: Tensor) -> Sequence[Tensor]:  # type: ignore[override]
        """Every state at its :meth:`start_of`, in the step shape."""
        zeros = FlexSN.init_states(num_states, step_mode, *args)
        starts = [self.start_of(name) for name in self.state_names]
        return [
            zero if is_zero(start) else torch.as_tensor(start).to(zero).expand_as(zero)
            for zero, start in zip(zeros, starts, strict=True)
        ]

    @property
    def store_v_seq(self) -> bool:
        """Whether calls keep ``v_seq``. Setting it forgets the last one."""
        return self.store_state_seqs

    @store_v_seq.setter
    def store_v_seq(self, store: bool) -> None:
        check_flag(self, store_v_seq=store)
        self.store_state_seqs = store
        self.state_seqs = None

    @property
    def v_seq(self) -> Tensor | None:
        """The membrane after each step of the last call, ``[T, *step]``; ``[*step]`` in step mode ``"s"``."""
        return None if self.state_seqs is None else self.state_seqs[self.state_names.index("v")]

    # ---- repr ---------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        with torch.enable_grad():  # what is learnable shows by requires_grad
            shown = {name: getattr(self, name) for name in self._declared() if hasattr(self, name)}
            shown |= {**self._options(), "step_mode": self.step_mode, "backend": self.backend}
            return ", ".join(f"{name}={_shown(value)}" for name, value in shown.items())

    def _options(self) -> dict[str, Any]:
        """What ``repr`` shows besides coefficients, step mode and backend."""
        return {}


def _shown(value: Any) -> str:
    if not isinstance(value, Tensor):
        return str(getattr(value, "__name__", repr(value)))  # a function has a name, its repr an address
    kind = "learnable" if value.requires_grad else "tensor"
    return f"{kind} {tuple(value.shape)}" if value.dim() or value.is_meta else f"{kind} {value.item():.6g}"


class SpikingNeuron(Neuron):
    r"""A neuron that charges, fires, resets: ``h = charge(x, v)``, ``s = fire(h)``, ``v' = discharge(h, s)``.

    .. math:: s = \Theta(h - v_{threshold}), \qquad
        v' = \begin{cases} s\, v_{reset} + (1 - s)\, h & \text{hard} \\
        h - s\, v_{threshold} & \text{soft, } v_{reset} = \text{None} \end{cases}

    Args:
        v_threshold: membrane at which it fires.
        v_reset: membrane after a spike, and before the first step; ``None`` for the soft reset.
        surrogate_function: the spike function, from :mod:`flexsn.surrogate` or one's own; ``Sigmoid()`` by
            default.
        detach_reset: keep the gradient of the spike out of the reset.
        step_mode, backend, store_v_seq, learnable, shape, counts, detach_every, time_reduction, rate, coefficients:
            as for :class:`Neuron`.

    Shapes:
        input ``[T, *step]`` (``"m"``) or ``[*step]`` (``"s"``), output alike; states ``[*step]``.

    Raises:
        ValueError: an argument outside its range, with the value and the rule.

    Example:
        >>> import torch
        >>> class Square(SpikingNeuron):
        ...     def charge(self, x, v):
        ...         return v + x * x
        >>> Square(step_mode="m")(torch.tensor([0.7, 0.8, 0.6])).tolist()
        [0.0, 1.0, 0.0]
    """

    v_threshold = Coefficient()
    v_reset = Coefficient(optional=True)
    starts: ClassVar[Mapping[str, float | str]] = {"v": "v_reset"}

    def __init__(
        self,
        v_threshold: Number = 1.0,
        v_reset: Number | None = 0.0,
        surrogate_function: SpikeFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
        *,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
        counts: Mapping[str, int] | None = None,
        detach_every: int | None = None,
        time_reduction: str | None = None,
        rate: bool = False,
        **coefficients: Any,
    ) -> None:
        coefficients |= {"v_threshold": v_threshold, "v_reset": v_reset}
        coefficients |= {"detach_every": detach_every, "time_reduction": time_reduction, "rate": rate}
        super().__init__(
            step_mode, backend, store_v_seq, learnable=learnable, shape=shape, counts=counts, **coefficients
        )
        check_flag(self, detach_reset=detach_reset)
        spike = surrogate.Sigmoid() if surrogate_function is None else surrogate_function
        check_callable(self, "flexsn.surrogate.ATan()", surrogate_function=spike)
        self.surrogate_function: SpikeFunction = spike
        self.detach_reset = detach_reset
        self._check_order("v_threshold", ">", "v_reset")

    def _check_order(self, upper: str, sign: str, lower: str) -> None:
        high, low = getattr(self, upper), getattr(self, lower)
        if isinstance(high, Tensor) or isinstance(low, Tensor) or low is None:
            return
        if not (high > low if sign == ">" else high >= low):
            raise wrong(self, f"{upper} must be {sign} {lower}", **{upper: high, lower: low})

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        """The membrane after the input, before the spike."""
        raise NotImplementedError(f"{type(self).__name__} must define charge(self, x, v), or core")

    def fire(self, h: Tensor) -> Tensor:
        """The spike of the charged membrane."""
        s: Tensor = self.surrogate_function(h - self.v_threshold)
        return s

    def discharge(self, h: Tensor, s: Tensor) -> Tensor:
        """The membrane after the spike."""
        if self.detach_reset:
            s = s.detach()
        if self.v_reset is None:
            return soft_reset(h, s, self.v_threshold)
        return hard_reset(h, s, self.v_reset)

    def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        h = self.charge(x, v)
        s = self.fire(h)
        return s, self.discharge(h, s)

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"detach_reset": self.detach_reset}
        if not isinstance(self.surrogate_function, nn.Module):
            options["surrogate_function"] = self.surrogate_function
        return options
