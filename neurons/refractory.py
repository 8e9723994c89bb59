"""Refractory: any core, silent for some steps after each spike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from flexsn import FlexSN
from flexsn.neurons.arguments import SequenceOptions, check_size
from flexsn.neurons.base import Neuron

__all__ = ["Refractory"]


class Refractory(Neuron):
    """Wraps a core: after a spike the lane ignores its input and cannot fire for ``steps`` steps.

    While a lane is refractory its inputs are 0 and its states go on without them (a membrane leaks, an
    adaptation decays); a step on which the core would still have fired is not taken, so no reset happens
    without a spike. ``x = 0, s = 0 where refractory > 0``; ``refractory' = steps`` after a spike, else
    ``refractory' = max(refractory − 1, 0)``. What counts as a spike is a first output other than 0; further
    outputs pass as they are.

    Args:
        core: a neuron, or what :class:`~flexsn.FlexSN` takes; its first output is the spike.
        steps: how many steps after a spike are silent; an integer >= 0.
        step_mode, backend, store_v_seq: as for :class:`Neuron`.

    Shapes:
        those of the core. States: the core's, then ``refractory``, the silent steps left, int32.

    Example:
        >>> import torch
        >>> from flexsn.neurons import IF
        >>> Refractory(IF(), steps=2, step_mode="m")(torch.ones(7)).tolist()
        [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    """

    def __init__(
        self,
        core: FlexSN | Callable[..., Any],
        steps: int,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
        **options: Unpack[SequenceOptions],
    ) -> None:
        inner = core if isinstance(core, FlexSN) else FlexSN(core)
        counts = {"num_inputs": inner.num_inputs, "num_states": inner.num_states + 1}
        super().__init__(step_mode, backend, store_v_seq, counts=counts, **options)
        check_size(self, least=0, steps=steps)
        self.inner = inner
        self.steps = steps
        self.state_names = (*inner.state_names, "refractory")

    def init_states(self, num_states: int, step_mode: str, *args: Tensor) -> Sequence[Tensor]:  # type: ignore[override]
        states = list(self.inner.init_states(num_states - 1, step_mode, *args))
        zero = FlexSN.init_states(1, step_mode, *args)[0]
        return [*states, torch.zeros((), dtype=torch.int32, device=zero.device).expand_as(zero)]

    def core(self, *args: Tensor) -> tuple[Tensor, ...]:
        xs, states, wait = args[: self.num_inputs], args[self.num_inputs : -1], args[-1]
        silent = wait > 0
        values = self.inner.core(*(x.masked_fill(silent, 0.0) for x in xs), *states)
        values = tuple(values) if isinstance(values, (tuple, list)) else (values,)
        split = len(values) - len(states)
        s, others = values[0], values[1:split]
        undone = silent & (s != 0)
        news = (torch.where(undone, old, new) for old, new in zip(states, values[split:], strict=True))
        s = s.masked_fill(silent, 0.0)
        wait = (wait - 1).clamp_min(0).masked_fill(s != 0, self.steps)
        return s, *others, *news, wait

    def _options(self) -> dict[str, Any]:
        return {"steps": self.steps}
