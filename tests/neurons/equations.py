"""Every built-in neuron once more: its equation written out in an eager step that shares no code with flexsn.

``step(p, x, *states) -> (output, *states)`` with ``p`` a namespace of numbers and tensors. Spikes are
``x >= 0`` with the gradient of a logistic of slope 4, written by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

Step = Callable[..., tuple[Tensor, ...]]


class _Logistic4(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        y = torch.sigmoid(4.0 * x)
        return grads[0] * (4.0 * y * (1.0 - y))


def spike(x: Tensor) -> Tensor:
    out: Tensor = _Logistic4.apply(x)  # type: ignore[no-untyped-call]
    return out


def run(step: Step, p: SimpleNamespace, xs: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Scan; the outputs and the first states of all steps, then the final states."""
    outs, firsts = [], []
    for x in xs:
        out, *states = step(p, x, *states)  # type: ignore[assignment]
        outs.append(out)
        firsts.append(states[0])
    return torch.stack(outs), torch.stack(firsts), *states


def reset(p: SimpleNamespace, h: Tensor, s: Tensor, th: Any = None) -> Tensor:
    if p.detach_reset:
        s = s.detach()
    if p.v_reset is None:
        return h - s * (p.v_threshold if th is None else th)
    return s * p.v_reset + (1.0 - s) * h


def _fire(p: SimpleNamespace, h: Tensor) -> tuple[Tensor, Tensor]:
    s = spike(h - p.v_threshold)
    return s, reset(p, h, s)


def _lif_charge(p: SimpleNamespace, x: Tensor, v: Tensor) -> Tensor:
    rest = 0.0 if p.v_reset is None else p.v_reset
    return v + (x - (v - rest)) / p.tau if p.decay_input else v - (v - rest) / p.tau + x


def if_(p: SimpleNamespace, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    return _fire(p, v + x)


def lif(p: SimpleNamespace, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    return _fire(p, _lif_charge(p, x, v))


def plif(p: SimpleNamespace, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    rest = 0.0 if p.v_reset is None else p.v_reset
    rate = 1.0 / (1.0 + torch.exp(-p.w))
    return _fire(p, v + (x - (v - rest)) * rate if p.decay_input else v - (v - rest) * rate + x)


def qif(p: SimpleNamespace, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    return _fire(p, v + (x + p.a0 * (v - p.v_rest) * (v - p.v_c)) / p.tau)


def eif(p: SimpleNamespace, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    return _fire(p, v + (x + p.v_rest - v + p.delta_T * torch.exp((v - p.theta_rh) / p.delta_T)) / p.tau)


def klif(p: SimpleNamespace, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    h = torch.relu(p.k * _lif_charge(p, x, v))
    s = spike(h - p.v_threshold)
    return s, reset(p, h / p.k, s, p.v_threshold / p.k) if p.scale_reset else reset(p, h, s)


def liaf(p: SimpleNamespace, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    h = _lif_charge(p, x, v)
    y = torch.tanh(h - p.v_threshold if p.threshold_related else h)
    return y, reset(p, h, spike(h - p.v_threshold))


def ilif(p: SimpleNamespace, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    h = (1.0 - 1.0 / p.tau) * v + x
    u = torch.clamp(h / p.v_threshold, 0.0, float(p.D))
    c = u + (torch.round(u) - u).detach()
    return c, h - (c.detach() if p.detach_reset else c) * p.v_threshold


def clif(p: SimpleNamespace, x: Tensor, v: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    h = v - v / p.tau + x
    s = spike(h - p.v_threshold)
    m = m * torch.sigmoid(h / p.tau) + s
    return s, h - s * (p.v_threshold + torch.sigmoid(m)), m


def ternary(p: SimpleNamespace, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    h = v + x if p.tau is None else _lif_charge(p, x, v)
    up, down = spike(h - p.v_threshold), spike(-h - p.v_threshold)
    return up - down, reset(p, h, up - down if p.v_reset is None else up + down)


def _adapt(p: SimpleNamespace, h: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    w1 = w + (p.a * (h - p.v_rest) - w) / p.tau_w
    s = spike(h - p.v_threshold)
    sd = s.detach() if p.detach_reset else s
    v = h - sd * p.v_threshold if p.v_reset is None else (1.0 - sd) * h + s * p.v_reset
    return s, v, w1 + p.b * s


def izhikevich(p: SimpleNamespace, x: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    return _adapt(p, v + (x + p.a0 * (v - p.v_rest) * (v - p.v_c) - w) / p.tau, w)


def adex(p: SimpleNamespace, x: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    up = p.delta_T * torch.exp((v - p.theta_rh) / p.delta_T)
    return _adapt(p, v + (x + p.v_rest - v + up - w) / p.tau, w)


def alif(p: SimpleNamespace, x: Tensor, v: Tensor, a: Tensor) -> tuple[Tensor, ...]:
    rho_v, rho_a = math.exp(-1.0 / p.tau), math.exp(-1.0 / p.tau_adapt)
    h = rho_v * v + (1.0 - rho_v) * x
    th = p.v_threshold + p.beta * a
    s = spike(h - th)
    return s, reset(p, h, s, th), rho_a * a + (1.0 - rho_a) * s


def cuba(p: SimpleNamespace, x: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, ...]:
    i = p.alpha * i + x
    return (*_fire(p, p.beta * v + i), i)


def adlif(p: SimpleNamespace, x: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    s, v = _fire(p, p.alpha * v + (1.0 - p.alpha) * (x - w))
    return s, v, p.beta * w + (1.0 - p.beta) * (p.a * v + p.b * s)


def adlif_euler(p: SimpleNamespace, x: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    h = p.alpha * v + (1.0 - p.alpha) * (x - w)
    s, v = _fire(p, h)
    return s, v, p.beta * w + p.a * h + p.b * s


def alpha_lif(p: SimpleNamespace, x: Tensor, v: Tensor, e: Tensor, n: Tensor) -> tuple[Tensor, ...]:
    e, n = p.alpha * e + x, p.beta * n - x
    h = (math.log(p.alpha) / (math.log(p.beta) - math.log(p.alpha)) + 1.0) * (e + n)
    return spike(h - p.v_threshold), h, e, n


def resonate(p: SimpleNamespace, x: Tensor, v: Tensor, u: Tensor) -> tuple[Tensor, ...]:
    rho, c, s = math.exp(p.b * p.dt), math.cos(p.omega * p.dt), math.sin(p.omega * p.dt)
    return (*_fire(p, rho * (u * s + v * c)), rho * (u * c - v * s) + x)
