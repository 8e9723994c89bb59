"""ScanOptions: how a core is scanned; one object from ``scan`` and ``FlexSN`` down to the plan."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from flexsn.execution.backends import check_backend
from flexsn.execution.output_dtype import AskedDtype, check_output_dtype
from flexsn.planning.rules import REDUCTIONS

__all__ = ["ScanOptions"]


@dataclass(frozen=True)
class ScanOptions:
    """How a core is scanned. Equal options share kernels.

    A new option is a field here, the place where it acts, and an argument of ``scan`` and ``FlexSN``.

    Attributes:
        backend: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"torch"``.
        time_dim: the time axis of inputs, outputs and state sequences.
        checkpoint: steps between stored states in training; ``"auto"`` leaves it to the backend.
        output_dtype: what outputs are stored in: one dtype, or one per output; ``None`` for the usual one.
        wanted_states: the states whose values after every step are wanted too.
        detach_every: the gradient of states is cut before steps ``n, 2n, ...`` of a call.
        time_reduction: outputs come reduced over time: ``"sum"``, ``"mean"``, ``"last"`` or ``"max"``.
        rate: whether the mean of the first output over time is wanted too.
        single_step: whether every call is of one step, as in step mode ``"s"``; torch multiplies its products.

    Raises:
        ValueError: a value that an option cannot have.
    """

    backend: str = "auto"
    time_dim: int = 0
    checkpoint: int | str = "auto"
    output_dtype: AskedDtype = None
    wanted_states: tuple[int, ...] = ()
    detach_every: int | None = None
    time_reduction: str | None = None
    rate: bool = False
    single_step: bool = False
    has_rules: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_backend(self.backend)
        if not hasattr(self.time_dim, "__index__"):
            raise ValueError(f"time_dim must be the number of an axis, got {self.time_dim!r}")
        if self.checkpoint != "auto" and not (isinstance(self.checkpoint, int) and self.checkpoint >= 1):
            raise ValueError(f'checkpoint must be "auto" or a number of steps >= 1, got {self.checkpoint!r}')
        n, reduction = self.detach_every, self.time_reduction
        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
            raise ValueError(f"detach_every must be None or a number of steps >= 1, got {n!r}")
        if reduction is not None and reduction not in REDUCTIONS:
            raise ValueError(
                f"time_reduction must be None or one of {', '.join(map(repr, REDUCTIONS))}, got {reduction!r}"
            )
        if not isinstance(self.rate, bool):
            raise ValueError(f"rate must be True or False, got {self.rate!r}")
        object.__setattr__(self, "has_rules", n is not None or reduction is not None or self.rate)
        object.__setattr__(self, "output_dtype", check_output_dtype(self.output_dtype))
        # part of the key of every call, so it is hashed once
        object.__setattr__(self, "_hash", hash(self._values()))

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in fields(self) if f.init)

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined, no-any-return]

    def __reduce__(self) -> tuple[type[ScanOptions], tuple[Any, ...]]:
        return ScanOptions, self._values()  # strings have another hash in another process
