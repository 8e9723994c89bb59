"""Every neuron against its equation written out separately, on every backend, forward and backward.

Options are resets, ``detach_reset``, ``decay_input``, the neuron's own, and the dtype. The loop sees all combinations;
the others, which run the same step graphs and for which each combination is two more kernels to build or to interpret,
as many as show every pair of option values.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import equations as eq
import pytest
import torch
from reference import BACKENDS, noise
from torch import Tensor

from flexsn import neurons

T, SHAPE = 9, (3, 7)
SINGLE = 5  # steps one by one, each a call of its own: enough to spike, reset and go on from the states
RESETS = ({"v_reset": 0.0}, {"v_reset": -0.25}, {"v_reset": None})
DETACH = ({"detach_reset": False}, {"detach_reset": True})
DECAY = ({"decay_input": True}, {"decay_input": False})
DTYPES = ({"dtype": torch.float32}, {"dtype": torch.float64})


@dataclass(frozen=True)
class Case:
    """One neuron: how it is built, its equation, its options, and how much its input is scaled."""

    name: str
    build: Callable[..., Any]
    step: eq.Step
    values: dict[str, Any] = field(default_factory=dict)
    options: tuple[tuple[dict[str, Any], ...], ...] = (RESETS, DETACH)
    gain: float = 2.0
    parameters: tuple[str, ...] = ()
    exact: bool = True  # no exp, tanh, sigmoid in the state: bits must agree

    def settings(self, every: bool) -> list[dict[str, Any]]:
        """All combinations of the options, or some in which every pair of option values is seen."""
        combinations = [
            {**self.values, **{name: value for part in chosen for name, value in part.items()}}
            for chosen in itertools.product(*self.options, DTYPES)
        ]
        return combinations if every else list(_pairwise(combinations))


def _pairwise(combinations: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    pairs = {i: set(itertools.combinations(given.items(), 2)) for i, given in enumerate(combinations)}
    while pairs:
        best = max(pairs, key=lambda i: len(pairs[i]))
        yield combinations[best]
        seen = pairs.pop(best)
        pairs = {i: rest for i, these in pairs.items() if (rest := these - seen)}


def _liaf(**kwargs: Any) -> neurons.LIAF:
    return neurons.LIAF(torch.tanh, kwargs.pop("threshold_related"), **kwargs)


CASES = [
    Case("IF", neurons.IF, eq.if_, {"v_threshold": 1.25}),
    Case("LIF", neurons.LIF, eq.lif, {"tau": 2.5, "v_threshold": 0.75}, (RESETS, DETACH, DECAY)),
    Case(
        "PLIF",
        neurons.PLIF,
        eq.plif,
        {"init_tau": 2.5},
        (RESETS, DETACH, DECAY),
        parameters=("w",),
        exact=False,
    ),
    Case("QIF", neurons.QIF, eq.qif, {"tau": 3.0, "v_c": 0.6, "a0": 1.5, "v_rest": 0.125}),
    Case(
        "EIF",
        neurons.EIF,
        eq.eif,
        {"tau": 3.0, "delta_T": 0.75, "theta_rh": 0.7, "v_rest": 0.125},
        exact=False,
    ),
    Case(
        "KLIF",
        neurons.KLIF,
        eq.klif,
        {"tau": 2.5},
        (RESETS, DETACH, DECAY, ({"scale_reset": False}, {"scale_reset": True})),
        parameters=("k",),
    ),
    Case(
        "LIAF",
        _liaf,
        eq.liaf,
        {"tau": 2.5},
        (RESETS, DETACH, DECAY, ({"threshold_related": False}, {"threshold_related": True})),
        exact=False,
    ),
    Case("ILIF", neurons.ILIF, eq.ilif, {"tau": 1.5, "D": 3, "v_threshold": 0.75}, (DETACH,), gain=3.0),
    Case(
        "CLIF",
        lambda **k: neurons.CLIF(surrogate_function=neurons.IF().surrogate_function, **k),
        eq.clif,
        {"tau": 2.5},
        (),
        exact=False,
    ),
    Case("TernaryIF", neurons.TernaryIF, eq.ternary, {"v_threshold": 0.75}),
    Case("TernaryLIF", neurons.TernaryLIF, eq.ternary, {"tau": 2.5}, (RESETS, DETACH, DECAY)),
    Case(
        "Izhikevich",
        neurons.Izhikevich,
        eq.izhikevich,
        {"tau": 3.0, "v_c": 0.6, "a0": 1.5, "tau_w": 5.0, "a": 0.3, "b": 0.2, "w_rest": 0.125},
    ),
    Case(
        "AdEx",
        neurons.AdEx,
        eq.adex,
        {"tau": 3.0, "delta_T": 0.75, "tau_w": 5.0, "a": 0.3, "b": 0.2},
        exact=False,
    ),
    Case("ALIF", neurons.ALIF, eq.alif, {"tau": 3.0, "tau_adapt": 7.0, "beta": 0.9}),
    Case("CubaLIF", neurons.CubaLIF, eq.cuba, {"alpha": 0.625, "beta": 0.8}),
    Case("AdLIF", neurons.AdLIF, eq.adlif, {"alpha": 0.625, "beta": 0.8, "a": 0.5, "b": 1.5}),
    Case(
        "AdLIF euler",
        neurons.AdLIF,
        eq.adlif_euler,
        {"alpha": 0.625, "beta": 0.8, "a": -0.5, "b": 0.75, "discretisation": "euler"},
    ),
    Case("AlphaLIF", neurons.AlphaLIF, eq.alpha_lif, {"alpha": 0.9, "beta": 0.7}, ()),
    Case("ResonateFire", neurons.ResonateFire, eq.resonate, {"b": -0.15, "omega": 0.9, "dt": 0.8}),
]


def _inputs(case: Case, dtype: torch.dtype, num_steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(num_steps, *SHAPE, generator=generator, dtype=torch.float64) * 2.4 - 0.7
    return (x * case.gain).to(dtype).requires_grad_()


def _close(got: Tensor, want: Tensor, exact: bool) -> None:
    if exact:
        assert torch.equal(got, want)
    else:
        eps = torch.finfo(want.dtype).eps
        torch.testing.assert_close(got, want, rtol=64 * eps, atol=64 * eps)


def _check(case: Case, given: dict[str, Any], backend: str, step_mode: str) -> None:
    dtype = (given := dict(given)).pop("dtype")
    neuron = case.build(**given, step_mode=step_mode, backend=backend, store_v_seq=True).to(dtype)
    p = SimpleNamespace(**{"v_threshold": 1.0, "v_reset": None, "detach_reset": False, "tau": None, **given})
    if case.name in ("Izhikevich", "AdEx"):
        p.__dict__.setdefault("theta_rh", 0.8)
        p.__dict__.setdefault("v_rest", -0.1 if case.name == "Izhikevich" else 0.0)
    for name in case.parameters:
        setattr(p, name, getattr(neuron, name).detach().clone().requires_grad_())
    x, x_ref = (_inputs(case, dtype, T if step_mode == "m" else SINGLE) for _ in range(2))
    starts = [neuron.start_of(name) for name in neuron.state_names]
    states = tuple(torch.full(SHAPE, start, dtype=dtype) for start in starts)
    out_ref, v_seq_ref, *states_ref = eq.run(case.step, p, x_ref, states)
    if step_mode == "m":
        out, v_seq = neuron(x), neuron.v_seq
    else:
        out, v_seq = (torch.stack(parts) for parts in zip(*((neuron(step), neuron.v_seq) for step in x), strict=True))
    if case.name != "LIAF":  # whose output is analog
        assert torch.equal(out, out_ref)
        assert 0.02 < out.ne(0).double().mean() < 0.98  # the case says something
    for got, want in zip((out, v_seq, *neuron.states), (out_ref, v_seq_ref, *states_ref), strict=True):
        _close(got, want, case.exact)
    weights = torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)
    for outs, finals in ((out, neuron.states), (out_ref, states_ref)):
        ((outs * weights).sum() + sum((state * state).sum() for state in finals)).backward()
    eps = torch.finfo(dtype).eps
    scale = x_ref.grad.abs().max().item()
    torch.testing.assert_close(x.grad, x_ref.grad, rtol=256 * eps, atol=256 * eps * max(scale, 1.0))
    for name in case.parameters:
        got, want = getattr(neuron, name).grad, getattr(p, name).grad
        torch.testing.assert_close(got, want, rtol=2048 * eps, atol=2048 * eps * max(scale, 1.0))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_sequences(case: Case, backend: str) -> None:
    for given in case.settings(every=backend == "torch"):
        _check(case, given, backend, "m")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_single_steps(case: Case, backend: str) -> None:
    given = case.settings(every=backend == "torch")
    # what an option does is seen in sequences; here, that states go from call to call, slowly in the interpreter
    for chosen in given[:2] if backend == "triton" else given:
        _check(case, chosen, backend, "s")


def test_every_pair_of_options_is_seen() -> None:
    case = next(case for case in CASES if case.name == "KLIF")
    every, some = case.settings(every=True), case.settings(every=False)
    assert len(every) == 48 and len(some) < 12
    pairs = [
        {pair for given in chosen for pair in itertools.combinations(given.items(), 2)} for chosen in (every, some)
    ]
    assert pairs[0] == pairs[1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_nonspiking_against_the_equation(backend: str) -> None:
    x = noise(T, *SHAPE).requires_grad_()
    v, lif = torch.zeros(SHAPE), torch.zeros(SHAPE)
    vs, lifs = [], []
    for step in x:
        v, lif = v + step, lif + (step - lif) / 2.5
        vs.append(v)
        lifs.append(lif)
    for build, want in ((neurons.NonSpikingIF, torch.stack(vs)), (neurons.NonSpikingLIF, torch.stack(lifs))):
        own = {} if build is neurons.NonSpikingIF else {"tau": 2.5}
        got, weights = build(**own, backend=backend)(x), noise(*want.shape, seed=1)
        assert torch.equal(got, want)
        grads = [torch.autograd.grad((seq * weights).sum(), x, retain_graph=True)[0] for seq in (got, want)]
        torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-6)
        single = build(**own, step_mode="s", backend=backend)
        assert torch.equal(torch.stack([single(step) for step in x]), want)
        decoded = {
            "max-mem": want.max(0).values,
            "mean-mem": want.mean(0),
            "last-mem": want[-1],
            "last_mem": want[-1],
            "max-abs-mem": torch.gather(want, 0, want.abs().argmax(0, keepdim=True))[0],
        }
        for decode, value in decoded.items():
            assert torch.equal(build(**own, decode=decode, backend=backend)(x), value), decode


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("v_reset", [0.0, None])
def test_refractory_against_a_loop_over_lanes(backend: str, v_reset: float | None) -> None:
    steps, tau = 2, 2.0
    x = torch.rand(20, 5, generator=torch.Generator().manual_seed(1)) * 5
    want = torch.zeros_like(x)
    for lane in range(x.shape[1]):
        v, wait = 0.0, 0
        for t in range(x.shape[0]):
            h = v + ((0.0 if wait else x[t, lane].item()) - v) / tau
            if wait:
                v, wait = (h if h < 1.0 else v), wait - 1
            elif h >= 1.0:
                want[t, lane], wait = 1.0, steps
                v = h - 1.0 if v_reset is None else v_reset
            else:
                v = h
    neuron = neurons.Refractory(neurons.LIF(tau, v_reset=v_reset), steps, "m", backend)
    assert torch.equal(neuron(x), want)
    assert neuron.state_names == ("v", "refractory") and neuron.refractory.dtype == torch.int32
    gaps = [torch.diff(torch.nonzero(neuron_spikes).flatten()) for neuron_spikes in want.T]
    assert min(gap.min().item() for gap in gaps if len(gap)) == steps + 1
