"""Monitor: which states a neuron records of every step, and the record of the last call.

A kernel writes the sequence of a monitored state, and of no other, and writes all of it: ``every`` thins it out after
the call. So it saves memory between calls, not the traffic or the peak of one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

__all__ = ["Monitor"]


@dataclass
class Monitor:
    """What to record, and the last call's record.

    Attributes:
        names: of the monitored states.
        states: which states these are.
        every: one step in so many is recorded, of a sequence that the kernel wrote whole.
        recorded: the sequences by name.
    """

    names: tuple[str, ...]
    states: tuple[int, ...]
    every: int
    recorded: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, state_names: Sequence[str], names: Sequence[str], every: int) -> Monitor:
        """Check the names against the states there are.

        Raises:
            ValueError: there is no state of that name, or ``every < 1``.
        """
        unknown = [name for name in names if name not in state_names]
        if unknown:
            raise ValueError(f"no state is called {unknown[0]!r}; the states are {tuple(state_names)}")
        if not isinstance(every, int):
            raise ValueError(f"every must be a number of steps, got {every!r}")
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        return cls(tuple(names), tuple(state_names.index(name) for name in names), every)

    def record(self, state_seqs: Mapping[int, Tensor], time_dim: int) -> None:
        """Record what is asked for of a call's state sequences; nothing of a single step."""
        found = {n: state_seqs[j] for n, j in zip(self.names, self.states, strict=True) if j in state_seqs}
        if self.every > 1:  # copied, so that the steps between are given back
            found = {
                n: seq.movedim(time_dim, 0)[:: self.every].clone().movedim(0, time_dim) for n, seq in found.items()
            }
        self.recorded = found

    def without_graph(self) -> Monitor:
        """The same with a record that no gradient flows through."""
        return replace(self, recorded={name: seq.detach() for name, seq in self.recorded.items()})
