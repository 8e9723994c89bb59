"""Recording: which states a neuron keeps of every step, and what it kept.

A kernel writes the sequence of a recorded state, and of no other, and writes all of it: ``every`` thins it out after
the call. So it saves memory between calls, not the traffic or the peak of one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["Recording"]


@dataclass
class Recording:
    """What to record, and the last call's record.

    Attributes:
        names: of the recorded states.
        states: which states these are.
        every: one step in so many is kept, of a sequence that the kernel wrote whole.
        taken: the sequences by name.
    """

    names: tuple[str, ...]
    states: tuple[int, ...]
    every: int
    taken: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, state_names: Sequence[str], names: Sequence[str], every: int) -> Recording:
        """Check the names against the states there are.

        Raises:
            ValueError: there is no state of that name, or ``every < 1``.
        """
        unknown = [name for name in names if name not in state_names]
        if unknown:
            raise ValueError(f"no state is called {unknown[0]!r}; the states are {tuple(state_names)}")
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        return cls(tuple(names), tuple(state_names.index(name) for name in names), every)

    def take(self, state_seqs: Mapping[int, Tensor], time_dim: int) -> None:
        """Keep what is asked for of a call's state sequences; nothing of a single step."""
        found = {n: state_seqs[j] for n, j in zip(self.names, self.states, strict=True) if j in state_seqs}
        if self.every > 1:  # copied, so that the steps between are given back
            found = {
                n: seq.movedim(time_dim, 0)[:: self.every].clone().movedim(0, time_dim) for n, seq in found.items()
            }
        self.taken = found
