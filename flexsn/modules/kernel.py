"""FlexSNKernel: a core as a stateless function of sequences and initial states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor

from flexsn.execution.options import ScanOptions

__all__ = ["FlexSNKernel"]


class FlexSNKernel:
    """The stateless form: ``kernel(*input_seqs, *states) -> (*output_seqs, *state_seqs)``.

    Args:
        core: as for :class:`~flexsn.FlexSN`.
        num_inputs, num_states, num_outputs: the counts of the core.
        example_inputs: ``(*inputs, *states)``, only their number is used: states keep the dtypes they are given in.
        requires_grad: as for :class:`~flexsn.FlexSN`.
        backend: as for :class:`~flexsn.FlexSN`.

    Raises:
        CoreError: counts that contradict the core.

    Example:
        >>> import torch
        >>> kernel = FlexSNKernel(lambda x, v: (2 * (v + x), v + x), num_inputs=1, num_states=1, num_outputs=1)
        >>> y_seq, v_seq = kernel(torch.ones(3), torch.zeros(()))
        >>> y_seq.tolist(), v_seq.tolist()
        ([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    """

    neuron_type: ClassVar[Callable[..., Any]]  # FlexSN, which makes kernels of its own

    def __init__(
        self,
        core: Callable[..., Any],
        num_inputs: int,
        num_states: int,
        num_outputs: int,
        example_inputs: Sequence[Tensor] | None = None,
        requires_grad: Sequence[bool] | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        counts = num_inputs, num_states, num_outputs
        self._of(type(self).neuron_type(core, *counts, example_inputs, requires_grad, "m", backend))

    @classmethod
    def of(cls, neuron: Any) -> FlexSNKernel:
        """That of a neuron, with its core, its parameters and its backend; what the neuron holds stays as it is."""
        kernel = cls.__new__(cls)
        kernel._of(neuron)
        return kernel

    def _of(self, neuron: Any) -> None:
        self._neuron = neuron
        self._options = ScanOptions(neuron.backend, wanted_states=tuple(range(neuron.num_states)))

    def __call__(self, *args: Tensor) -> tuple[Tensor, ...]:
        """Scan the input sequences ``[T, ...]`` from the given states ``[...]``."""
        neuron = self._neuron
        split = neuron.num_inputs
        if len(args) != split + neuron.num_states:
            raise ValueError(
                f"expected {split} input sequence(s) and {neuron.num_states} state(s), got {len(args)} tensor(s)"
            )
        outputs, _, state_seqs = neuron._scan(args[:split], args[split:], self._options)
        return (*outputs, *state_seqs)

    def __repr__(self) -> str:
        return f"FlexSNKernel({self._neuron.extra_repr()})"
