"""snnTorch's long short-term memories that spike: SLSTM, SConv2dLSTM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from typing_extensions import Unpack

from flexsn.neurons.arguments import MaskArguments, check_flag, check_size, with_arguments_of, wrong
from flexsn.neurons.base_node import FedBack
from flexsn.neurons.snntorch.base import CommonOptions, Returned, SpikingNeuron, by_position

__all__ = ["SLSTM", "SConv2dLSTM", "kernel_sides"]

Size = int | tuple[int, int]


def kernel_sides(owner: object, kernel_size: Size, name: str = "kernel_size") -> tuple[int, int]:
    """Height and width of a kernel, or ``ValueError``."""
    sides = kernel_size if isinstance(kernel_size, tuple | list) else (kernel_size, kernel_size)
    if len(sides) != 2:
        raise wrong(owner, f"{name} must be an integer >= 1 or two of them", **{name: kernel_size})
    for side in sides:
        check_size(owner, **{name: side})
    return sides[0], sides[1]


class _LSTM(FedBack, SpikingNeuron):
    """What both have: the step behind the weights. The four gates i, f, g, o are inputs of the core."""

    num_drives: ClassVar[int] = 4

    def __init__(self, *, reset_mechanism: str = "none", inhibition: bool = False, **options: Any) -> None:
        super().__init__(reset_mechanism=reset_mechanism, **options)
        check_flag(self, inhibition=inhibition)  # and no more: snnTorch's layers do not inhibit

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_base_state_function" in vars(cls):
            raise TypeError(f"{cls.__name__} defines _base_state_function, which no LSTM calls here; override core")

    def recurrence(self, mem: Tensor) -> Sequence[Tensor]:
        """What the last membrane adds to the gates, a product each."""
        raise NotImplementedError

    def recurrence_at_once(self, mem: Tensor) -> tuple[Tensor, ...]:
        """The same in one product."""
        raise NotImplementedError

    def core(self, i: Tensor, f: Tensor, g: Tensor, o: Tensor, syn: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        reset = self.mem_reset(mem)
        i, f, g, o = (x + back for x, back in zip((i, f, g, o), self.recurrence(mem), strict=True))
        syn = torch.sigmoid(f) * syn + torch.sigmoid(i) * torch.tanh(g)
        mem = torch.sigmoid(o) * torch.tanh(syn)
        if self.reset_mechanism == "subtract":
            mem = mem - reset * self.threshold
        elif self.reset_mechanism == "zero":
            mem = mem - reset * mem
        syn, mem = self.quantized(syn), self.quantized(mem)
        return self.output_of(mem), syn, mem

    core.multiplies_once = True  # type: ignore[attr-defined]

    def output_of(self, mem: Tensor) -> Tensor:
        """What a step puts out."""
        return self.fire(mem)

    def _multiplied(self, *states: Tensor) -> tuple[Tensor, ...]:
        return self.recurrence_at_once(states[1])

    def forward(  # type: ignore[override]
        self, input_: Tensor, syn: Tensor | None = None, mem: Tensor | None = None, **masks: Unpack[MaskArguments]
    ) -> Returned:
        """See :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`."""
        return super().forward(input_, syn, mem, **masks)

    _advance = forward  # type: ignore[assignment]


class SLSTM(_LSTM):
    r"""A long short-term memory whose hidden state is a membrane that fires.

    .. math:: I' = \sigma(f) I + \sigma(i) \tanh(g), \quad U' = \sigma(o) \tanh(I') - R\, \theta \text{ (subtract)},
        \quad U' = (1 - R)\, \sigma(o) \tanh(I') \text{ (zero)}, \quad S = \Theta(U' - \theta)

    with :math:`R = \text{detach}(\Theta(U - \theta))` and the gates i, f, g, o of an ``nn.LSTMCell`` of x and U.
    The input's part of the gates is one product for all steps. snnTorch's starts anew at every step unless
    ``input_size == hidden_size``; here it remembers.

    Args:
        input_size, hidden_size, bias: of ``lstm_cell``.
        inhibition: without effect, as in snnTorch.
        threshold, spike_grad, surrogate_disable, init_hidden, learn_threshold, reset_mechanism: as for
            :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`, with returned values and errors.
        state_quant, output, options: likewise.

    Shapes:
        input ``[B, input_size]`` (``"s"``) or ``[T, B, input_size]`` (``"m"``); spikes and states with
        ``hidden_size``.

    States:
        ``syn``, the cell state, and ``mem``, the hidden state.

    Example:
        >>> import torch
        >>> layer = SLSTM(3, 2, threshold=0.1, step_mode="m")
        >>> layer(torch.rand(5, 4, 3)).shape, layer.mem.shape
        (torch.Size([5, 4, 2]), torch.Size([4, 2]))
    """

    @with_arguments_of(SpikingNeuron, *by_position("input_size", "hidden_size", "bias", learned=()))
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *common: Any,
        reset_mechanism: str = "none",
        **options: Unpack[CommonOptions],
    ) -> None:
        super().__init__(reset_mechanism=reset_mechanism, **options)
        check_size(self, input_size=input_size, hidden_size=hidden_size)
        check_flag(self, bias=bias)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self.lstm_cell = nn.LSTMCell(input_size, hidden_size, bias)

    def drives(self, input_: Tensor) -> tuple[Tensor, ...]:
        return nnf.linear(input_, self.lstm_cell.weight_ih, self.lstm_cell.bias_ih).chunk(4, -1)

    def recurrence(self, mem: Tensor) -> list[Tensor]:
        weights, bias = self.lstm_cell.weight_hh.chunk(4), self.lstm_cell.bias_hh
        biases = bias.chunk(4) if self.bias else [None] * 4
        return [nnf.linear(mem, w, b) for w, b in zip(weights, biases, strict=True)]

    def recurrence_at_once(self, mem: Tensor) -> tuple[Tensor, ...]:
        return nnf.linear(mem, self.lstm_cell.weight_hh, self.lstm_cell.bias_hh).chunk(4, -1)

    init_slstm = SpikingNeuron.reset_mem


class SConv2dLSTM(_LSTM):
    """A :class:`SLSTM` whose gates are a convolution of the input and the membrane.

    Args:
        in_channels, out_channels, kernel_size, bias: of ``conv``, which keeps height and width.
        max_pool, avg_pool: size of a pooling of the membrane before it fires; one of the two.
        inhibition: without effect, as in snnTorch.
        threshold, spike_grad, surrogate_disable, init_hidden, learn_threshold, reset_mechanism: as for
            :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`, with returned values.
        state_quant, output, options: likewise.

    Shapes:
        input ``[B, in_channels, H, W]`` (``"s"``) or ``[T, B, in_channels, H, W]`` (``"m"``); states with
        ``out_channels``; spikes as the states, or as their pooling.

    States:
        ``syn``, the cell state, and ``mem``, the hidden state.

    Raises:
        ValueError: also for two poolings, and for ``time_reduction`` or ``rate`` with one.

    Example:
        >>> import torch
        >>> layer = SConv2dLSTM(1, 2, 3, max_pool=2, step_mode="m")
        >>> layer(torch.rand(5, 3, 1, 8, 8)).shape, layer.mem.shape
        (torch.Size([5, 3, 2, 4, 4]), torch.Size([3, 2, 8, 8]))
    """

    @with_arguments_of(
        SpikingNeuron,
        *by_position("in_channels", "out_channels", "kernel_size", "bias", "max_pool", "avg_pool", learned=()),
    )
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        bias: bool = True,
        max_pool: Size = 0,
        avg_pool: Size = 0,
        *common: Any,
        reset_mechanism: str = "none",
        **options: Unpack[CommonOptions],
    ) -> None:
        super().__init__(reset_mechanism=reset_mechanism, **options)
        check_size(self, in_channels=in_channels, out_channels=out_channels)
        check_flag(self, bias=bias)
        for name, size in (("max_pool", max_pool), ("avg_pool", avg_pool)):
            if size != 0:
                kernel_sides(self, size, name)
        if max_pool and avg_pool:
            raise wrong(self, "only one of the two may be given", max_pool=max_pool, avg_pool=avg_pool)
        over_time = options.get("time_reduction") or options.get("rate")
        if (max_pool or avg_pool) and over_time:
            raise wrong(self, "it is taken of the spikes, which are pooled after the scan", reduction=over_time)
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.max_pool, self.avg_pool, self.bias = max_pool, avg_pool, bias
        height, width = kernel_sides(self, kernel_size)
        self.padding = height // 2, width // 2
        channels = in_channels + out_channels, 4 * out_channels
        self.conv = nn.Conv2d(*channels, (height, width), padding=self.padding, bias=bias)

    def drives(self, input_: Tensor) -> tuple[Tensor, ...]:
        images, weight = input_.flatten(0, -4), self.conv.weight[:, : self.in_channels]
        gates = nnf.conv2d(images, weight, self.conv.bias, padding=self.padding)
        i, f, o, g = gates.unflatten(0, input_.shape[:-3]).chunk(4, -3)  # type: ignore[no-untyped-call]
        return i, f, g, o

    def recurrence(self, mem: Tensor) -> list[Tensor]:
        i, f, o, g = self.conv.weight[:, self.in_channels :].chunk(4)
        return [nnf.conv2d(mem, weight, padding=self.padding) for weight in (i, f, g, o)]

    def recurrence_at_once(self, mem: Tensor) -> tuple[Tensor, ...]:
        gates = nnf.conv2d(mem, self.conv.weight[:, self.in_channels :], padding=self.padding)
        i, f, o, g = gates.chunk(4, -3)
        return i, f, g, o

    def output_of(self, mem: Tensor) -> Tensor:
        return mem if self.max_pool or self.avg_pool else self.fire(mem)

    def forward(  # type: ignore[override]
        self, input_: Tensor, syn: Tensor | None = None, mem: Tensor | None = None, **masks: Unpack[MaskArguments]
    ) -> Returned:
        """See :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`."""
        returned = super().forward(input_, syn, mem, **masks)
        if not (self.max_pool or self.avg_pool):
            return returned
        pool, size = (nnf.max_pool2d, self.max_pool) if self.max_pool else (nnf.avg_pool2d, self.avg_pool)
        out, *states = returned if isinstance(returned, tuple) else (returned,)
        pooled = pool(out.flatten(0, -4), size).unflatten(0, out.shape[:-3])  # type: ignore[no-untyped-call]
        spk = self.fire(pooled)
        return (spk, *states) if isinstance(returned, tuple) else spk

    _advance = forward

    init_sconv2dlstm = SpikingNeuron.reset_mem
