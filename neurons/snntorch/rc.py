"""snnTorch's Alpha and Lapicque neurons; see :mod:`flexsn.neurons.snntorch`, where they are found by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from flexsn.neurons.arguments import MaskArguments, Number, check_flag, with_arguments_of, wrong
from flexsn.neurons.snntorch.base import CommonOptions, Options, Returned, SpikingNeuron, by_position

__all__ = ["Alpha", "Lapicque"]


class Alpha(SpikingNeuron):
    r"""Alpha-function membrane: the difference of a slowly and a fast decaying current.

    .. math:: E' = \alpha E + x, \quad I' = \beta I - x, \quad U' = \tau_\alpha (E' + I'), \quad
        \tau_\alpha = \frac{\ln\alpha}{\ln\beta - \ln\alpha} + 1

    with :math:`S = \Theta(U' - \theta)` and, where the membrane the step starts from is above threshold,
    "zero": E', I' and U' become 0; "subtract": :math:`E' - \theta`, :math:`I' = 0`, :math:`U' + I`;
    "none": nothing. snnTorch's ``learn_alpha=True`` cannot be constructed; here it works.

    Args:
        alpha: decay of the excitatory current E in one step, above ``beta``; a number or a tensor that
            broadcasts against the step shape. Clipped to [0, 1].
        beta: decay of the inhibitory current I in one step, below 1; likewise.
        learn_alpha, learn_beta: make them parameters.
        threshold, spike_grad, surrogate_disable, init_hidden, inhibition, learn_threshold: as for
            :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`, with shapes, returned values and errors.
        reset_mechanism, state_quant, output, options: likewise.

    States:
        ``syn_exc`` (E), ``syn_inh`` (I, not above 0 for positive inputs) and ``mem`` (U).

    Raises:
        ValueError: also where ``alpha <= beta`` or ``beta = 1``.

    Example:
        >>> neuron = Alpha(alpha=0.9, beta=0.8, step_mode="m")
        >>> neuron(torch.tensor([2.0, 2.0, 2.0, 2.0, 0.0])).tolist()
        [0.0, 0.0, 1.0, 0.0, 0.0]
    """

    alpha: Tensor
    beta: Tensor

    @with_arguments_of(SpikingNeuron, *by_position("alpha", "beta", learned=("learn_alpha", "learn_beta")))
    def __init__(
        self,
        alpha: Number,
        beta: Number,
        *common: Any,
        learn_alpha: bool = False,
        learn_beta: bool = False,
        reset_mechanism: str = "zero",
        **options: Unpack[CommonOptions],
    ) -> None:
        super().__init__(reset_mechanism=reset_mechanism, **options)
        self._hold(learn_alpha, alpha=alpha)
        self._hold(learn_beta, beta=beta)
        for holds, rule in (
            (self.alpha.clamp(0, 1) > self.beta, "alpha must be > beta"),
            (self.beta != 1, "beta must not be 1, where tau_alpha has no value"),
        ):
            if not bool(holds.all()):
                raise wrong(self, rule, alpha=alpha, beta=beta)

    def forward(  # type: ignore[override]
        self,
        input_: Tensor,
        syn_exc: Tensor | None = None,
        syn_inh: Tensor | None = None,
        mem: Tensor | None = None,
        **masks: Unpack[MaskArguments],
    ) -> Returned:
        """See :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`."""
        return super().forward(input_, syn_exc, syn_inh, mem, **masks)

    def core(self, x: Tensor, syn_exc: Tensor, syn_inh: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        reset = self.mem_reset(mem)
        exc, inh, mem = self.charged(x, syn_exc=syn_exc, syn_inh=syn_inh, mem=mem, reset=reset)
        if self.reset_mechanism == "subtract":
            exc = exc - self.threshold * reset
            inh = inh - inh * reset
            mem = mem + syn_inh * reset
        elif self.reset_mechanism == "zero":
            exc, inh, mem = exc - exc * reset, inh - inh * reset, mem - mem * reset
        exc, inh, mem = self.quantized(exc), self.quantized(inh), self.quantized(mem)
        return self.fire(mem), exc, inh, mem

    def _base_state_function(self, input_: Tensor) -> Any:
        alpha, beta = self.alpha.clamp(0, 1), self.beta.clamp(0, 1)
        tau_alpha = torch.log(alpha) / (torch.log(beta) - torch.log(alpha)) + 1
        exc, inh = alpha * self.syn_exc + input_, beta * self.syn_inh - input_
        return exc, inh, tau_alpha * (exc + inh)

    init_alpha = SpikingNeuron.reset_mem


class Lapicque(SpikingNeuron):
    r"""Lapicque's RC circuit, integrated by Euler steps.

    .. math:: V = x R \frac{1}{RC} \Delta t + \left(1 - \frac{\Delta t}{RC}\right) U, \qquad
        U' = V - \rho\, \theta \text{ (subtract)}, \quad U' = V - \rho V \text{ (zero)}, \quad
        U' = V \text{ (none)}

    with :math:`\rho = \text{detach}(\Theta(U - \theta))` and :math:`S = \Theta(U' - \theta)`.
    What is not given follows from :math:`\beta = e^{-\Delta t / RC}`; ``beta`` alone sets R = 1. Since
    snnTorch computes R and C when the neuron is built, its ``learn_beta`` survives one backward pass only,
    and none with R or C given; here they follow ``beta`` from call to call.

    Args:
        beta: decay of the membrane in one step, in (0, 1); a number or a tensor of any shape that broadcasts.
        R: resistance; a number or a tensor.
        C: capacitance; a number or a tensor.
        time_step: Δt, in units of RC.
        learn_beta: make ``beta`` a parameter; needs ``beta``.
        threshold, spike_grad, surrogate_disable, init_hidden, inhibition, learn_threshold: as for
            :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`, with shapes, returned values and errors.
        reset_mechanism, state_quant, output, options: likewise.

    States:
        ``mem``, the membrane.

    Raises:
        ValueError: also where beta, R and C are all given, or too few of them.

    Example:
        >>> neuron = Lapicque(R=2.0, C=2.0, step_mode="m")
        >>> neuron(torch.tensor([1.5, 1.5, 0.0])).tolist(), round(neuron.mem.item(), 6)
        ([0.0, 1.0, 0.0], -0.015625)
    """

    beta: Tensor
    R: Tensor
    C: Tensor
    time_step: Tensor

    @with_arguments_of(SpikingNeuron, *by_position("beta", "R", "C", "time_step", learned=("learn_beta",)))
    def __init__(
        self,
        beta: Number | bool = False,
        R: Number | bool = False,
        C: Number | bool = False,
        time_step: Number = 1,
        *common: Any,
        learn_beta: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        given = {name: value for name, value in (("beta", beta), ("R", R), ("C", C)) if value is not False}
        call = f"Lapicque({', '.join(f'{name}={value!r}' for name, value in given.items())})"
        if set(given) not in ({"beta"}, {"R", "C"}, {"beta", "R"}, {"beta", "C"}):
            raise ValueError(f"{call}: give beta, or R and C, or beta and one of R and C")
        check_flag(self, learn_beta=learn_beta)
        if learn_beta and "beta" not in given:
            raise ValueError(f"{call}: learn_beta=True needs beta")
        for name, value in {**given, "time_step": time_step}.items():
            self._hold(learn_beta and name == "beta", **{name: value})
            held = getattr(self, name)
            if not bool(((held > 0) & ((held < 1) if name == "beta" else True)).all()):
                rule = "in (0, 1)" if name == "beta" else "> 0"
                raise ValueError(f"Lapicque({name}={value!r}): {name} must be {rule}")
        self._given = frozenset(given)
        with torch.no_grad():
            if "beta" not in given:
                self._hold(False, beta=torch.exp(torch.ones(1) * (-self.time_step / (self.R * self.C))))
            for name, value in zip("RC", self.circuit(), strict=True):
                if name not in given:
                    self._hold(False, **{name: value})

    def circuit(self) -> tuple[Tensor, Tensor]:
        """R and C, as given or as they follow from ``beta``."""
        if self._given == {"beta", "C"}:
            return self.time_step / (self.C * torch.log(1 / self.beta)), self.C
        R = self.R if "R" in self._given else torch.ones_like(self.time_step)
        return R, self.C if "C" in self._given else self.time_step / (R * torch.log(1 / self.beta))

    def forward(  # type: ignore[override]
        self, input_: Tensor, mem: Tensor | None = None, **masks: Unpack[MaskArguments]
    ) -> Returned:
        """See :class:`~flexsn.neurons.snntorch.base.SpikingNeuron`."""
        return super().forward(input_, mem, **masks)

    def core(self, x: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        reset = self.mem_reset(mem)
        mem = self.charged(x, mem=mem, reset=reset)
        if self.reset_mechanism == "subtract":
            mem = mem - reset * self.threshold
        elif self.reset_mechanism == "zero":
            mem = mem - reset * mem
        mem = self.quantized(mem)
        return self.fire(mem), mem

    def _base_state_function(self, input_: Tensor) -> Any:
        R, C = self.circuit()
        return input_ * R * (1 / (R * C)) * self.time_step + (1 - self.time_step / (R * C)) * self.mem

    init_lapicque = SpikingNeuron.reset_mem
