"""Norse's encoders: spike trains from values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flexsn import scan
from flexsn.neurons.arguments import check_callable, check_number, check_size, wrong
from flexsn.neurons.norse.base import spike_function
from flexsn.neurons.norse.parameters import LIFParameters

__all__ = [
    "ConstantCurrentLIFEncoder",
    "PoissonEncoder",
    "PopulationEncoder",
    "SignedPoissonEncoder",
    "SpikeLatencyEncoder",
    "SpikeLatencyLIFEncoder",
    "constant_current_lif_encode",
    "euclidean_distance",
    "gaussian_rbf",
    "poisson_encode",
    "poisson_encode_step",
    "population_encode",
    "signed_poisson_encode",
    "signed_poisson_encode_step",
    "spike_latency_encode",
    "spike_latency_lif_encode",
]

Pairwise = Callable[[Tensor, Tensor], Tensor]


def constant_current_lif_encode(input_current: Tensor, seq_length: int, p: Any = None, dt: float = 0.001) -> Tensor:
    """``[seq_length, ...]``: the spikes of a LIF without synaptic current that is driven by ``input_current``."""
    p = LIFParameters() if p is None else p
    spike = spike_function(p.method, p.alpha)

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        h = v + dt * p.tau_mem_inv * ((p.v_leak - v) + x)
        z = spike(h - p.v_th)
        return z, h - z * (h - p.v_reset)

    x = input_current if input_current.is_floating_point() else input_current.float()
    spikes: Tensor = scan(core, x.expand(seq_length, *x.shape), torch.zeros_like(x))[0]
    return spikes


def spike_latency_encode(input_spikes: Tensor) -> Tensor:
    """The first spike of every neuron, and no other."""
    before = input_spikes.cumsum(0) - input_spikes
    return torch.where(before > 0, torch.zeros_like(input_spikes), input_spikes)


def spike_latency_lif_encode(input_current: Tensor, seq_length: int, p: Any = None, dt: float = 0.001) -> Tensor:
    """The first spikes of :func:`constant_current_lif_encode`."""
    return spike_latency_encode(constant_current_lif_encode(input_current, seq_length, p, dt))


def poisson_encode(
    input_values: Tensor, seq_length: int, f_max: float = 100, dt: float = 0.001, generator: Any = None
) -> Tensor:
    """``[seq_length, ...]``: each step spikes with probability ``dt·f_max·input_values``."""
    return poisson_encode_step(input_values.expand(seq_length, *input_values.shape), f_max, dt, generator)


def poisson_encode_step(input_values: Tensor, f_max: float = 1000, dt: float = 0.001, generator: Any = None) -> Tensor:
    """Spikes with probability ``dt·f_max·input_values``."""
    drawn = torch.rand(input_values.shape, device=input_values.device, generator=generator)
    return (drawn < dt * f_max * input_values).float()


def signed_poisson_encode(
    input_values: Tensor, seq_length: int, f_max: float = 100, dt: float = 0.001, generator: Any = None
) -> Tensor:
    """:func:`poisson_encode` of the magnitude, with the sign of the value."""
    return input_values.sign() * poisson_encode(input_values.abs(), seq_length, f_max, dt, generator)


def signed_poisson_encode_step(
    input_values: Tensor, f_max: float = 1000, dt: float = 0.001, generator: Any = None
) -> Tensor:
    """:func:`poisson_encode_step` of the magnitude, with the sign of the value."""
    return input_values.sign() * poisson_encode_step(input_values.abs(), f_max, dt, generator)


def gaussian_rbf(tensor: Tensor, sigma: float = 1) -> Tensor:
    """``exp(−x/2σ²)`` of a squared distance."""
    return torch.exp(-tensor / (2 * sigma**2))


def euclidean_distance(x: Tensor, y: Tensor) -> Tensor:
    """The squared difference."""
    return (x - y).pow(2)


def population_encode(
    input_values: Tensor,
    out_features: int,
    scale: float | Tensor | None = None,
    kernel: Callable[[Tensor], Tensor] = gaussian_rbf,
    distance_function: Pairwise = euclidean_distance,
) -> Tensor:
    """``[..., out_features]``: how near a value is to each of as many centres between 0 and ``scale``, its largest."""
    reach = float(scale) if scale else float(input_values.max())
    centres = torch.linspace(0, reach, out_features, device=input_values.device)
    return kernel(distance_function(input_values.unsqueeze(-1), centres) * reach)


def _chosen(arguments: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: arguments[name] for name in names if name in arguments}


class _Encoder(nn.Module):
    """A module that keeps the arguments of an encoder function."""

    def __init__(self, encode: Callable[..., Tensor], **arguments: Any) -> None:
        super().__init__()
        check_size(self, **_chosen(arguments, "seq_length", "out_features"))
        check_number(self, above=0, **_chosen(arguments, "f_max", "dt"))
        check_callable(self, "gaussian_rbf", **_chosen(arguments, "kernel", "distance_function"))
        p, scale = arguments.get("p"), arguments.get("scale")
        if p is not None and not hasattr(p, "tau_mem_inv"):
            raise wrong(self, "p must be LIFParameters(...), it has no tau_mem_inv", p=p)
        if scale is not None and not isinstance(scale, Tensor):
            check_number(self, above=0, scale=scale)
        self.encode, self.arguments = encode, arguments
        vars(self).update(arguments)

    def forward(self, values: Tensor) -> Tensor:
        return self.encode(values, **self.arguments)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())


class ConstantCurrentLIFEncoder(_Encoder):
    """:func:`constant_current_lif_encode` as a module."""

    def __init__(self, seq_length: int, p: Any = None, dt: float = 0.001) -> None:
        super().__init__(constant_current_lif_encode, seq_length=seq_length, p=p, dt=dt)


class SpikeLatencyLIFEncoder(_Encoder):
    """:func:`spike_latency_lif_encode` as a module."""

    def __init__(self, seq_length: int, p: Any = None, dt: float = 0.001) -> None:
        super().__init__(spike_latency_lif_encode, seq_length=seq_length, p=p, dt=dt)


class SpikeLatencyEncoder(_Encoder):
    """:func:`spike_latency_encode` as a module."""

    def __init__(self) -> None:
        super().__init__(spike_latency_encode)


class PoissonEncoder(_Encoder):
    """:func:`poisson_encode` as a module."""

    def __init__(self, seq_length: int, f_max: float = 100, dt: float = 0.001) -> None:
        super().__init__(poisson_encode, seq_length=seq_length, f_max=f_max, dt=dt)


class SignedPoissonEncoder(_Encoder):
    """:func:`signed_poisson_encode` as a module."""

    def __init__(self, seq_length: int, f_max: float = 100, dt: float = 0.001) -> None:
        super().__init__(signed_poisson_encode, seq_length=seq_length, f_max=f_max, dt=dt)


class PopulationEncoder(_Encoder):
    """:func:`population_encode` as a module."""

    def __init__(
        self,
        out_features: int,
        scale: float | Tensor | None = None,
        kernel: Callable[[Tensor], Tensor] = gaussian_rbf,
        distance_function: Pairwise = euclidean_distance,
    ) -> None:
        arguments = {"out_features": out_features, "scale": scale, "kernel": kernel}
        super().__init__(population_encode, **arguments, distance_function=distance_function)
