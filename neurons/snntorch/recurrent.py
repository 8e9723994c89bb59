"""snnTorch's neurons whose spikes come back to them: RLeaky, RSynaptic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from typing_extensions import Unpack

from flexsn.neurons.arguments import MaskArguments, Number, check_flag, check_size, with_arguments_of
from flexsn.neurons.base_node import FedBack
from flexsn.neurons.snntorch.base import Options, Returned, SpikingNeuron, by_position
from flexsn.neurons.snntorch.lstm import kernel_sides

__all__ = ["RLeaky", "RSynaptic", "RecurrentOneToOne"]

_CONNECTION = ("V", "all_to_all", "linear_features", "conv2d_channels", "kernel_size")


class RecurrentOneToOne(nn.Module):
    """``V·x``: every neuron is fed its own spike.

    Args:
        V: a parameter, or a tensor that stays as it is.
    """

    V: Tensor

    def __init__(self, V: Tensor) -> None:
        super().__init__()
        if isinstance(V, nn.Parameter):
            self.V = V
        else:
            self.register_buffer("V", V, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.V


class RecurrentNeuron(FedBack, SpikingNeuron):
    """What both have: the connection in ``recurrent``, through which the spikes of the last step come back."""

    recurrent: nn.Module
    V: Tensor

    @property
    def product(self) -> str | None:  # type: ignore[override]
        """The connection, unless the neurons feed themselves alone, or a subclass charges them in its own way."""
        made: Any = type(self)
        ours = made._base_state_function.__module__ == __name__
        return "recurrent" if self.all_to_all and ours else None

    def _multiplied(self, *states: Tensor) -> tuple[Tensor, ...]:
        return (self.recurrent(states[0]),)

    def _connect(
        self,
        V: Number,
        all_to_all: bool,
        linear_features: int | None,
        conv2d_channels: int | None,
        kernel_size: int | tuple[int, int] | None,
        learn_recurrent: bool,
    ) -> None:
        check_flag(self, all_to_all=all_to_all, learn_recurrent=learn_recurrent)
        self._number("V", V)
        sizes = {"linear_features": linear_features, "conv2d_channels": conv2d_channels}
        check_size(self, **{name: size for name, size in sizes.items() if size is not None})
        height, width = (0, 0) if kernel_size is None else kernel_sides(self, kernel_size)
        self.all_to_all, self.learn_recurrent = all_to_all, learn_recurrent
        self.linear_features, self.conv2d_channels, self.kernel_size = linear_features, conv2d_channels, kernel_size
        self._check_connection()
        if not all_to_all:
            self._hold(learn_recurrent, V=V)
            self.recurrent = RecurrentOneToOne(self.V)
        elif linear_features:
            self.recurrent = nn.Linear(linear_features, linear_features)
        else:
            assert conv2d_channels
            self.recurrent = nn.Conv2d(
                conv2d_channels, conv2d_channels, (height, width), padding=(height // 2, width // 2)
            )
        if not learn_recurrent:
            self.recurrent.requires_grad_(False)

    def _check_connection(self) -> None:
        linear, channels, kernel = map(bool, (self.linear_features, self.conv2d_channels, self.kernel_size))
        shape = f"{type(self).__name__}(all_to_all={self.all_to_all})"
        if not self.all_to_all and (linear or channels or kernel):
            raise TypeError(
                f"{shape}: V is the weight; linear_features, conv2d_channels, kernel_size are of all_to_all"
            )
        if self.all_to_all and linear == (channels and kernel):
            raise TypeError(f"{shape} needs either linear_features, or conv2d_channels and kernel_size")
        if self.all_to_all and channels != kernel:
            raise TypeError(f"{shape}: conv2d_channels and kernel_size go together, and without linear_features")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RecurrentNeuron:
        super()._apply(fn, recurse)
        if isinstance(self.recurrent, RecurrentOneToOne) and not self.learn_recurrent:
            self.recurrent.V = self.V  # one tensor under two names
        return self


class RLeaky(RecurrentNeuron):
    r"""A :class:`~flexsn.neurons.snntorch.Leaky` that its spikes come back to.

    .. math:: U' = \beta U + x + V(S) - R\, \theta \text{ (subtract)}, \quad U' = (1 - R)(\beta U + x + V(S))
        \text{ (zero)}, \quad U' = \beta U + x + V(S) \text{ (none)}

    with :math:`R = \text{detach}(\Theta(U - \theta))`, :math:`S' = \Theta(U' - \theta)`, β clipped to [0, 1]; ``V`` is
    ``recurrent``: an ``nn.Linear``, an ``nn.Conv2d``, or a weight per neuron.

    Args:
        beta: decay of the membrane in one step; a number or a tensor that broadcasts against the step shape.
        V: weight of the spike that comes back, where ``all_to_all=False``; likewise.
        all_to_all: connect all neurons with each other.
        linear_features: their number, for an ``nn.Linear``.
        conv2d_channels, kernel_size: their channels and the size of the kernel, for an ``nn.Conv2d``.
        learn_beta: make ``beta`` a parameter.
        learn_recurrent: learn the connection.
        reset_delay: ``False`` resets in the step of the spike, through which the gradient then flows.
        threshold, spike_grad, surrogate_disable, init_hidden, inhibition, learn_threshold: as for
            :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`, with shapes, returned values and errors.
        reset_mechanism, state_quant, output, options: likewise.

    States:
        ``spk``, the spikes that come back, and ``mem``, the membrane. A call returns ``(spk, mem)``.

    Raises:
        TypeError: also for sizes of a connection that do not go together.

    Example:
        >>> import torch
        >>> neuron = RLeaky(beta=0.5, V=-1.0, all_to_all=False, step_mode="m")
        >>> neuron(torch.tensor([1.5, 2.5, 0.5])).tolist(), neuron.mem.item()
        ([1.0, 1.0, 0.0], -0.875)
    """

    beta: Tensor

    @with_arguments_of(
        SpikingNeuron,
        *by_position(
            "beta", *_CONNECTION, learned=("learn_beta",), fed_back=("learn_recurrent",), last=("reset_delay",)
        ),
    )
    def __init__(
        self,
        beta: Number,
        V: Number = 1.0,
        all_to_all: bool = True,
        linear_features: int | None = None,
        conv2d_channels: int | None = None,
        kernel_size: int | tuple[int, int] | None = None,
        *common: Any,
        learn_beta: bool = False,
        learn_recurrent: bool = True,
        reset_delay: bool = True,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        self._connect(V, all_to_all, linear_features, conv2d_channels, kernel_size, learn_recurrent)
        self._hold(learn_beta, beta=beta)
        check_flag(self, reset_delay=reset_delay)
        self.reset_delay = reset_delay

    def forward(  # type: ignore[override]
        self, input_: Tensor, spk: Tensor | None = None, mem: Tensor | None = None, **masks: Unpack[MaskArguments]
    ) -> Returned:
        """See :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`."""
        return super().forward(input_, spk, mem, **masks)

    def core(self, x: Tensor, spk: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        reset = self.mem_reset(mem)
        mem = self.charged(x, spk=spk, mem=mem, reset=reset)
        if self.reset_mechanism == "subtract":
            mem = mem - reset * self.threshold
        elif self.reset_mechanism == "zero":
            mem = mem - reset * mem
        mem = self.quantized(mem)
        spk = self.fire(mem)
        return spk, spk, mem if self.reset_delay else self.reset_at_once(mem, reset, spk)

    core.multiplies_once = True  # type: ignore[attr-defined]

    def _base_state_function(self, input_: Tensor) -> Any:
        return self.beta.clamp(0, 1) * self.mem + input_ + self.recurrent(self.spk)

    init_rleaky = SpikingNeuron.reset_mem


class RSynaptic(RecurrentNeuron):
    r"""A :class:`~flexsn.neurons.snntorch.Synaptic` whose spikes come back to its current.

    .. math:: I' = \alpha I + x + V(S), \qquad U' = \beta U + I' - R\, \theta \text{ (subtract)}, \quad
        U' = (1 - R)(\beta U + I') \text{ (zero)}, \quad U' = \beta U + I' \text{ (none)}

    Args:
        alpha: decay of the current in one step; a number or a tensor that broadcasts against the step shape.
        beta: decay of the membrane in one step; likewise.
        learn_alpha, learn_beta: make them parameters.
        V, all_to_all, linear_features, conv2d_channels, kernel_size, learn_recurrent, reset_delay: as for
            :class:`RLeaky`. snnTorch's ``reset_delay=False`` raises an UnboundLocalError.
        threshold, spike_grad, surrogate_disable, init_hidden, inhibition, learn_threshold: as for
            :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`, with shapes, returned values and errors.
        reset_mechanism, state_quant, output, options: likewise.

    States:
        ``spk``, the spikes that come back, ``syn``, the current, and ``mem``, the membrane. A call returns
        ``(spk, syn, mem)``.

    Example:
        >>> import torch
        >>> neuron = RSynaptic(alpha=0.5, beta=0.5, V=-1.0, all_to_all=False, step_mode="m")
        >>> neuron(torch.tensor([1.5, 2.0, 0.5])).tolist(), neuron.mem.item()
        ([1.0, 1.0, 0.0], 0.125)
    """

    alpha: Tensor
    beta: Tensor

    @with_arguments_of(
        SpikingNeuron,
        *by_position(
            *("alpha", "beta", *_CONNECTION),
            learned=("learn_alpha", "learn_beta"),
            fed_back=("learn_recurrent",),
            last=("reset_delay",),
        ),
    )
    def __init__(
        self,
        alpha: Number,
        beta: Number,
        V: Number = 1.0,
        all_to_all: bool = True,
        linear_features: int | None = None,
        conv2d_channels: int | None = None,
        kernel_size: int | tuple[int, int] | None = None,
        *common: Any,
        learn_alpha: bool = False,
        learn_beta: bool = False,
        learn_recurrent: bool = True,
        reset_delay: bool = True,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        self._connect(V, all_to_all, linear_features, conv2d_channels, kernel_size, learn_recurrent)
        self._hold(learn_alpha, alpha=alpha)
        self._hold(learn_beta, beta=beta)
        check_flag(self, reset_delay=reset_delay)
        self.reset_delay = reset_delay

    def forward(  # type: ignore[override]
        self,
        input_: Tensor,
        spk: Tensor | None = None,
        syn: Tensor | None = None,
        mem: Tensor | None = None,
        **masks: Unpack[MaskArguments],
    ) -> Returned:
        """See :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`."""
        return super().forward(input_, spk, syn, mem, **masks)

    def core(self, x: Tensor, spk: Tensor, syn: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        reset = self.mem_reset(mem)
        syn, mem = self.charged(x, spk=spk, syn=syn, mem=mem, reset=reset)
        if self.reset_mechanism == "subtract":
            mem = mem - reset * self.threshold
        elif self.reset_mechanism == "zero":
            mem = mem - reset * mem
        syn, mem = self.quantized(syn), self.quantized(mem)
        spk = self.fire(mem)
        return spk, spk, syn, mem if self.reset_delay else self.reset_at_once(mem, reset, spk)

    core.multiplies_once = True  # type: ignore[attr-defined]

    def _base_state_function(self, input_: Tensor) -> Any:
        syn = self.alpha.clamp(0, 1) * self.syn + input_ + self.recurrent(self.spk)
        return syn, self.beta.clamp(0, 1) * self.mem + syn

    init_rsynaptic = SpikingNeuron.reset_mem
