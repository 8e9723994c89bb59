"""Recurrent: a neuron whose output comes back as input at the next step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flexsn.modules.flexsn import FlexSN

__all__ = ["Recurrent"]


class Recurrent(FlexSN):
    """A neuron that is fed an output of its last step: what enters is ``x[t] + connection(y[t-1])``, ``y[-1] = 0``.

    The output fed back is one more state, ``y``, so a call in chunks equals the whole, and ``reset``, ``detach`` and
    ``states`` treat it as any other. Products with a matrix and convolutions are compiled with the step.

    Args:
        neuron: any :class:`~flexsn.FlexSN`; step mode, backend and the other options are taken from it.
        connection: an ``nn.Linear`` between all lanes of the last dimension, an ``nn.Conv2d``, an ``nn.Parameter`` that
            multiplies lane by lane, or any module that keeps the shape. What cannot be compiled runs as the loop.
        output: which output is fed back.
        input: which input it is added to.
        autapses: whether a neuron may feed itself; without them the diagonal of an ``nn.Linear`` counts as 0, in the
            gradient too.

    Shapes:
        as of the neuron; ``y`` is ``[*step]``.

    Raises:
        ValueError: an output or input that is not there, or a connection that cannot do what is asked.

    Example:
        >>> import torch
        >>> from flexsn import FlexSN, Recurrent
        >>> layer = Recurrent(FlexSN(lambda x, v: (v + x, v + x)), torch.nn.Parameter(torch.tensor(-1.0)))
        >>> layer(torch.ones(3, 1)).flatten().tolist()
        [1.0, 1.0, 1.0]
    """

    _flexsn_internal: ClassVar[frozenset[str]] = frozenset()
    neuron: FlexSN
    connection: nn.Module | nn.Parameter

    def __init__(
        self,
        neuron: FlexSN,
        connection: nn.Module | nn.Parameter,
        output: int = 0,
        input: int = 0,
        autapses: bool = True,
    ) -> None:
        _check(neuron, connection, output, input, autapses)
        options = neuron.scan_options
        super().__init__(
            num_inputs=neuron.num_inputs,
            num_states=neuron.num_states + 1,
            step_mode=neuron.step_mode,
            backend=options.backend,
            store_state_seqs=neuron.store_state_seqs,
            checkpoint=options.checkpoint,
            time_dim=options.time_dim,
            output_dtype=options.output_dtype,
            detach_every=options.detach_every,
            time_reduction=options.time_reduction,
            rate=options.rate,
        )
        self.neuron, self.connection = neuron, connection
        self.output, self.input, self.autapses = output, input, autapses
        self.state_names = (*neuron.state_names, "y")
        if not autapses:
            assert isinstance(connection, nn.Linear)
            diagonal = torch.eye(connection.in_features, dtype=torch.bool, device=connection.weight.device)
            self.register_buffer("_diagonal", diagonal, persistent=False)

    def core(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The neuron's core, with ``connection(y)`` added to its input and the output as the next ``y``."""
        *given, y = arguments
        given[self.input] = given[self.input] + self._connected(y)
        returned: Any = self.neuron.core(*given)
        values = tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)
        return (*values, values[self.output])

    def _connected(self, y: Tensor) -> Tensor:
        connection: Any = self.connection
        if isinstance(connection, Tensor):
            return connection * y
        if self.autapses:
            fed: Tensor = connection(y)
            return fed
        return F.linear(y, connection.weight.masked_fill(self._diagonal, 0.0), connection.bias)

    def init_states(self, num_states: int, step_mode: str, *args: Tensor) -> Sequence[Tensor]:  # type: ignore[override]
        """The neuron's own, and zeros for ``y``."""
        own = self.neuron.init_states(num_states - 1, step_mode, *args)
        return [*own, *FlexSN.init_states(1, step_mode, *args)]


def _check(neuron: FlexSN, connection: object, output: int, input: int, autapses: bool) -> None:
    if not isinstance(neuron, FlexSN):
        raise ValueError(f"neuron must be a FlexSN, got {type(neuron).__name__}")
    if not isinstance(connection, (nn.Module, nn.Parameter)):
        raise ValueError(f"connection must be a module or an nn.Parameter, got {type(connection).__name__}")
    if not 0 <= input < neuron.num_inputs:
        raise ValueError(f"input={input}, but the neuron has {neuron.num_inputs} input(s)")
    if not 0 <= output < neuron.num_outputs:
        raise ValueError(f"output={output}, but the neuron has {neuron.num_outputs} output(s)")
    sizes: tuple[int, ...] = ()
    if isinstance(connection, nn.Linear):
        sizes = connection.in_features, connection.out_features
    elif isinstance(connection, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        sizes = connection.in_channels, connection.out_channels
    if len(set(sizes)) > 1:
        raise ValueError(f"connection must lead from a layer to itself, got {sizes[0]} to {sizes[1]}")
    if not autapses and not isinstance(connection, nn.Linear):
        raise ValueError(f"autapses=False needs an nn.Linear, got {type(connection).__name__}")
