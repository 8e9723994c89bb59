"""snnTorch's neurons that take whole sequences and never reset: StateLeaky, LinearLeaky, LeakyParallel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from flexsn import FlexSN, surrogate
from flexsn.neurons.arguments import (
    Number,
    SpikeFunction,
    check_callable,
    check_flag,
    check_number,
    check_size,
    float_tensor,
    wrong,
)
from flexsn.neurons.peer_class import PeerClass
from flexsn.neurons.snntorch.base import CommonOptions, Returned, SpikingNeuron

__all__ = ["LeakyParallel", "LinearLeaky", "StateLeaky"]


class StateLeaky(SpikingNeuron):
    r"""A leaky membrane without reset, over a whole sequence.

    .. math:: U[t] = e^{-1/\tau}\, U[t-1] + x[t], \qquad \tau = \frac{1}{1 - \beta}, \qquad
        S = \Theta(U - \theta)

    snnTorch convolves the input with :math:`e^{-k/\tau}`, T² products a lane; here it is a scan, and agrees to
    rounding. A call starts from 0.

    Args:
        beta: decay of the membrane in one step; a number or a tensor ``[channels]``.
        channels: size of the last dimension.
        learn_beta: make ``tau`` a parameter.
        output: return ``(spk, mem)``; ``False`` returns ``mem`` alone.
        kernel_truncation_steps: how many steps back the membrane reaches; by default to the first.
        threshold, spike_grad, surrogate_disable, learn_threshold, state_quant, graded_spikes_factor: as for
            :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`. The factor counts twice, as in snnTorch.
        learn_graded_spikes_factor: likewise.

    Shapes:
        input ``[T, B, channels]``; spikes and membrane alike.

    Example:
        >>> spk, mem = StateLeaky(beta=0.5, channels=1)(torch.ones(3, 1, 1))
        >>> spk.flatten().tolist()
        [0.0, 1.0, 1.0]
    """

    tau: Tensor

    def __init__(
        self,
        beta: Number,
        channels: int,
        threshold: Number = 1.0,
        spike_grad: SpikeFunction | None = None,
        surrogate_disable: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        state_quant: Any = False,
        output: bool = True,
        graded_spikes_factor: Number = 1.0,
        learn_graded_spikes_factor: bool = False,
        kernel_truncation_steps: int | None = None,
        **others: Any,
    ) -> None:
        options: CommonOptions = {**others}  # type: ignore[typeddict-item]
        options |= {"threshold": threshold, "spike_grad": spike_grad, "surrogate_disable": surrogate_disable}
        options |= {"learn_threshold": learn_threshold, "state_quant": state_quant, "output": output}
        options |= {"graded_spikes_factor": graded_spikes_factor, "step_mode": "m"}
        options |= {"learn_graded_spikes_factor": learn_graded_spikes_factor}
        super().__init__(**options)
        check_size(self, channels=channels)
        check_flag(self, learn_beta=learn_beta)
        if kernel_truncation_steps is not None:
            check_size(self, kernel_truncation_steps=kernel_truncation_steps)
        beta = float_tensor(self, "beta", beta)
        if bool(beta.isnan().any()):
            raise wrong(self, "beta must not be NaN", beta=beta.tolist())
        if beta.shape not in ((), (1,), (channels,)):
            raise wrong(self, f"beta must be a number or of shape ({channels},)", beta=tuple(beta.shape))
        self.kernel_truncation_steps = kernel_truncation_steps
        self._hold(False, tau=1 / (1 - beta + 1e-12))
        if learn_beta:
            del self.tau
            self.tau = nn.Parameter(1 / (1 - beta + 1e-12))

    @property
    def beta(self) -> Tensor:
        """Decay of the membrane in one step, ``(τ − 1)/τ``."""
        return (self.tau - 1) / self.tau

    def core(self, x: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        mem = torch.exp(-1 / self.tau) * mem + x
        seen = self.quantized(mem)
        return self.fire(seen) * self.graded_spikes_factor, seen, mem

    def forward(self, input_: Tensor) -> Returned:  # type: ignore[override]
        """``(spk, mem)`` of the whole sequence, or ``mem``."""
        reach = self.kernel_truncation_steps
        if reach is not None and reach < len(input_):
            mem = self.quantized(self._convolved(input_, reach))
            spk = self.fire(mem) * self.graded_spikes_factor
        else:
            self.states = None
            spk, mem = FlexSN.forward(self, input_)
        return (spk, mem) if self.output else mem

    def _convolved(self, x: Tensor, reach: int) -> Tensor:
        steps = torch.arange(reach - 1, -1, -1, device=x.device)
        kernel = torch.exp(-steps / self.tau.reshape(-1, 1)).expand(x.shape[-1], reach).unsqueeze(1)
        lanes = nnf.pad(x.permute(1, 2, 0), (reach - 1, 0))
        return nnf.conv1d(lanes, kernel.to(x), groups=x.shape[-1]).permute(2, 0, 1)

    _advance: ClassVar[Callable[..., Any]] = forward


class LinearLeaky(StateLeaky):
    r"""An ``nn.Linear`` in front of a :class:`StateLeaky`.

    Args:
        beta: as for :class:`StateLeaky`.
        in_features, out_features, bias, device, dtype: as for ``nn.Linear``.
        options: the other arguments of :class:`StateLeaky`, in its order.

    Shapes:
        input ``[T, B, in_features]``; spikes and membrane ``[T, B, out_features]``.
    """

    def __init__(
        self,
        beta: Number,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *args: Any,
        **options: Any,
    ) -> None:
        check_size(self, in_features=in_features, out_features=out_features)
        check_flag(self, bias=bias)
        super().__init__(beta, out_features, *args, **options)
        self.linear = nn.Linear(in_features, out_features, bias, device, dtype)

    def forward(self, input_: Tensor) -> Returned:  # type: ignore[override]
        """``(spk, mem)`` of the whole sequence, or ``mem``."""
        return super().forward(self.linear(input_))

    _advance: ClassVar[Callable[..., Any]] = forward


class _Weights(nn.Module):
    """The parameters of an ``nn.RNN``, under its names."""

    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter | None
    bias_hh_l0: nn.Parameter | None

    def __init__(self, rnn: nn.RNN) -> None:
        super().__init__()
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            self.register_parameter(name, getattr(rnn, name, None))


class LeakyParallel(FlexSN, metaclass=PeerClass):
    r"""A linear layer, and a rectified leaky membrane that spikes without reset.

    .. math:: U[t] = \max(0,\; W x[t] + b + \beta\, U[t-1] + b'), \qquad S = \Theta(U - \theta)

    Its parameters are those of an ``nn.RNN`` named ``rnn``, as in snnTorch; the diagonal of ``rnn.weight_hh_l0`` is
    :math:`\beta`, one per neuron. With ``weight_hh_enable=True`` the whole matrix counts, and torch runs it.

    Args:
        input_size, hidden_size: of the linear layer.
        beta: decay of the membrane; a number or a tensor ``[hidden_size]``. By default as ``nn.RNN`` starts.
        bias, dropout, device, dtype: as for ``nn.RNN``.
        learn_beta: learn it.
        weight_hh_enable: let every neuron reach every other.
        threshold, spike_grad, surrogate_disable, learn_threshold, graded_spikes_factor, learn_graded_spikes_factor:
            as for :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`.

    Shapes:
        input ``[T, B, input_size]``, spikes ``[T, B, hidden_size]``. A call starts from 0.
    """

    threshold: Tensor
    graded_spikes_factor: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        beta: Number | None = None,
        bias: bool = True,
        threshold: Number = 1.0,
        dropout: float = 0.0,
        spike_grad: SpikeFunction | None = None,
        surrogate_disable: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        graded_spikes_factor: Number = 1.0,
        learn_graded_spikes_factor: bool = False,
        weight_hh_enable: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_size(self, input_size=input_size, hidden_size=hidden_size)
        check_number(self, above=-1, dropout=dropout)
        check_flag(self, bias=bias, weight_hh_enable=weight_hh_enable, surrogate_disable=surrogate_disable)
        check_flag(self, learn_beta=learn_beta)
        rnn = nn.RNN(
            input_size, hidden_size, nonlinearity="relu", bias=bias, dropout=dropout, device=device, dtype=dtype
        )
        self.rnn = _Weights(rnn)
        self.hidden_size = hidden_size
        self.all_to_all = weight_hh_enable
        held = None if beta is None else float_tensor(self, "beta", beta).reshape(-1).clamp(0, 1)
        if held is not None and bool(held.isnan().any()):
            raise wrong(self, "beta must not be NaN", beta=beta)
        self.register_buffer("beta", held)
        weight = self.rnn.weight_hh_l0
        with torch.no_grad():
            if held is not None:
                weight.copy_(held.expand(hidden_size).unsqueeze(1).expand_as(weight))
            if not weight_hh_enable:
                weight.copy_(weight.diagonal().diag())
        weight.requires_grad_(learn_beta)
        default = surrogate.ATan(2.0, strict=True) if spike_grad is None else spike_grad
        check_callable(self, "flexsn.surrogate.ATan(strict=True)", spike_grad=default)
        self.spike_grad = surrogate.custom(torch.zeros_like, strict=True) if surrogate_disable else default
        self.surrogate_disable = surrogate_disable
        SpikingNeuron._hold(self, learn_threshold, threshold=threshold)  # type: ignore[arg-type]
        SpikingNeuron._hold(self, learn_graded_spikes_factor, graded_spikes_factor=graded_spikes_factor)  # type: ignore[arg-type]

    def spikes_of(self, mem: Tensor) -> Tensor:
        """The spikes of a membrane."""
        spk: Tensor = self.spike_grad(mem - self.threshold) * self.graded_spikes_factor
        return spk

    def core(self, x: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        """One step, of the input behind the linear layer."""
        kept, bias = self.rnn.weight_hh_l0.diagonal() * mem, self.rnn.bias_hh_l0
        mem = torch.relu(x + (kept if bias is None else kept + bias))
        return self.spikes_of(mem), mem

    def forward(self, input_: Tensor) -> Tensor:  # type: ignore[override]
        """The spikes of the whole sequence."""
        if self.all_to_all:
            weights: list[Tensor] = list(self.rnn.parameters())
            start = input_.new_zeros(1, input_.shape[1], self.hidden_size)
            mem, _ = torch.rnn_relu(
                input_, start, tuple(weights), len(weights) == 4, 1, 0.0, self.training, False, False
            )
            return self.spikes_of(mem)
        self.states = None
        drive = nnf.linear(input_, self.rnn.weight_ih_l0, self.rnn.bias_ih_l0)
        spk: Tensor = super().forward(drive)  # type: ignore[assignment]
        return spk

    _advance: ClassVar[Callable[..., Any]] = forward
