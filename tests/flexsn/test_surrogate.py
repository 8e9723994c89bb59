"""Surrogates: the step forward, the stated slope backward, the primitive whose derivative it is."""

from __future__ import annotations

import doctest
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from surrogate_formulas import FORMULAS, others
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from flexsn import surrogate
from flexsn.surrogate import Surrogate, base, bells, custom_slope, tails

NAMES = sorted(FORMULAS)
PROBES = np.array([-7.5, -3.1, -1.3, -1.0, -0.5, -0.31, -1e-3, 0.0, 1e-3, 0.2, 0.5, 0.77, 1.0, 1.6, 4.2, 9.0])


def make(name: str, **arguments: Any) -> Surrogate:
    made: Surrogate = getattr(surrogate, name)(**arguments)
    return made


def slope(spike: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(spike(x).sum(), x)
    return grad


def away_from(kinks: list[float], x: np.ndarray) -> np.ndarray:
    return x[[all(abs(value - kink) > 1e-2 for kink in kinks) for value in x]]


def test_every_public_class_is_covered() -> None:
    classes = {
        name
        for name in surrogate.__all__
        if isinstance(getattr(surrogate, name), type) and name not in ("Surrogate", "Custom")
    }
    assert classes == set(FORMULAS)


@pytest.mark.parametrize("name", NAMES)
def test_forward_is_the_step(name: str) -> None:
    x = torch.tensor([-math.inf, -1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0, math.inf, math.nan])
    assert make(name)(x).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 0]
    assert make(name, strict=True)(x).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0]


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_the_documented_ones(name: str) -> None:
    spike = make(name)
    assert {key: getattr(spike, key) for key in FORMULAS[name][0]} == FORMULAS[name][0]
    assert spike.spiking and not spike.strict


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", ["defaults", "others"])
def test_gradient_is_the_formula(name: str, which: str) -> None:
    defaults, formula, _ = FORMULAS[name]
    coefficients = defaults if which == "defaults" else others(name)
    spike = make(name, **coefficients)
    x = torch.from_numpy(PROBES)
    expected = np.broadcast_to(formula(PROBES, **coefficients), PROBES.shape)
    np.testing.assert_allclose(slope(spike, x).numpy(), expected, rtol=1e-12, atol=1e-14)
    stated = torch.as_tensor(spike.derivative(x), dtype=torch.float64).expand(x.shape)
    np.testing.assert_allclose(stated.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_incoming_gradient_multiplies(name: str) -> None:
    spike = make(name)
    x = torch.from_numpy(PROBES).requires_grad_()
    g = torch.linspace(-2, 3, len(PROBES), dtype=torch.float64)
    (grad,) = torch.autograd.grad(spike(x), x, g)
    torch.testing.assert_close(grad, g * slope(spike, x), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_primitive_passes_gradcheck(name: str) -> None:
    spike = make(name, **others(name), spiking=False)
    kinks = [*FORMULAS[name][2], -0.7, 0.7, -1 / 1.6, 1 / 1.6, -0.3125, 0.3125]
    x = torch.from_numpy(away_from(kinks, PROBES)).requires_grad_()
    assert torch.autograd.gradcheck(spike, (x,))


@pytest.mark.parametrize("name", NAMES)
def test_slope_is_the_derivative_of_the_primitive(name: str) -> None:
    """Also at the threshold itself, where a primitive written with abs() would lose its slope."""
    for coefficients in (FORMULAS[name][0], others(name)):
        spike, smooth = make(name, **coefficients), make(name, **coefficients, spiking=False)
        jumps = {"LogTailedReLU": [0.0], "Rect": [-0.5, 0.5]}.get(name, [])
        x = torch.from_numpy(np.array([p for p in PROBES if p not in jumps]))
        torch.testing.assert_close(slope(smooth, x), slope(spike, x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_primitive_rises_and_is_continuous(name: str) -> None:
    x = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    steps = make(name, spiking=False)(x).diff()
    assert steps.abs().max() < 1e-3 * 1.3  # no jump: the largest slope shipped is 1.13
    if name != "SquarewaveFourierSeries":
        assert steps.min() >= 0


@pytest.mark.parametrize("name", ["Sigmoid", "ATan", "PiecewiseExp", "SoftSign", "Erf", "Gaussian", "QPseudoSpike"])
def test_primitive_of_a_density_runs_from_0_to_1(name: str) -> None:
    ends = make(name, spiking=False)(torch.tensor([-1e12, 0.0, 1e12], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    defaults, formula, _ = FORMULAS[name]
    spike = make(name)
    x = torch.from_numpy(PROBES).to(dtype)
    assert spike(x).dtype == dtype
    assert spike.primitive(x).dtype == dtype
    grad = slope(spike, x)
    assert grad.dtype == dtype
    expected = np.broadcast_to(formula(x.double().numpy(), **defaults), PROBES.shape)
    # Sigmoid's 1 - y and a cosine near its zero lose absolute, not relative, accuracy.
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(grad.double().numpy(), expected, rtol=6 * eps, atol=8 * eps)


@pytest.mark.parametrize("name", NAMES)
def test_far_away_gradients_are_finite(name: str) -> None:
    # A period of 8 means nothing in fp16 at 6e4, whose neighbours are 32 apart.
    for dtype in (torch.float32, torch.float16)[: 1 if name == "SquarewaveFourierSeries" else 2]:
        x = torch.tensor([-6e4, -1.0, -0.0, 0.0, 6e4], dtype=dtype)
        assert slope(make(name), x).isfinite().all()
        assert slope(make(name, spiking=False), x).isfinite().all()


@pytest.mark.parametrize("name", [name for name in NAMES if FORMULAS[name][0]])
def test_learnable_coefficients_get_the_gradient_of_the_primitive(name: str) -> None:
    values = {key: value for key, value in others(name).items() if key != "n"}
    fixed = {key: value for key, value in others(name).items() if key == "n"}
    learnable = {key: nn.Parameter(torch.tensor(value, dtype=torch.float64)) for key, value in values.items()}
    spike = make(name, **learnable, **fixed)
    assert dict(spike.named_parameters()) == learnable
    x = torch.from_numpy(PROBES).requires_grad_()
    g = torch.linspace(-1, 2, len(PROBES), dtype=torch.float64)
    grad_x, *grads = torch.autograd.grad(spike(x), [x, *learnable.values()], g)
    torch.testing.assert_close(grad_x, g * slope(make(name, **others(name)), x), rtol=1e-14, atol=1e-15)
    for (key, value), grad in zip(values.items(), grads, strict=True):
        step = 1e-6

        def total(coefficient: float, key: str = key) -> Tensor:
            smooth = make(name, **{**others(name), key: coefficient}, spiking=False)
            return torch.dot(g, smooth(x.detach()))

        numeric = (total(value + step) - total(value - step)) / (2 * step)
        torch.testing.assert_close(grad, numeric, rtol=1e-7, atol=1e-8)


def test_learnable_alpha_per_channel_on_request_only() -> None:
    alpha = nn.Parameter(torch.tensor([[1.0], [2.0], [4.0]]))
    spike = surrogate.ATan(alpha)
    x = torch.randn(5, 3, 7, generator=torch.Generator().manual_seed(0))
    spike(x).sum().backward()
    assert alpha.grad is not None and alpha.grad.shape == (3, 1)
    smooth = surrogate.ATan(alpha, spiking=False)
    (expected,) = torch.autograd.grad(smooth(x).sum(), alpha)
    torch.testing.assert_close(alpha.grad, expected, rtol=0, atol=0)
    with torch.no_grad():
        assert not spike(x).requires_grad
    buffered = surrogate.ATan(torch.tensor(3.0))
    assert list(buffered.parameters()) == [] and "alpha" in buffered.state_dict()
    assert buffered.double().alpha.dtype == torch.float64
    torch.testing.assert_close(slope(buffered, x), slope(surrogate.ATan(3.0), x))


def test_changing_a_coefficient_between_forward_and_backward_is_caught() -> None:
    alpha = nn.Parameter(torch.tensor(2.0))
    s = surrogate.ATan(alpha)(torch.zeros(3, requires_grad=True))
    with torch.no_grad():
        alpha.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        s.sum().backward()


def test_double_backward_differentiates_the_slope() -> None:
    x = torch.tensor([-0.4, 0.1], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(surrogate.ATan()(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    expected = -2 * math.pi**2 * x.detach() / (1 + (math.pi * x.detach()) ** 2) ** 2
    torch.testing.assert_close(second, expected)


@pytest.mark.parametrize("name", NAMES)
def test_traces_to_pointwise_ops_without_in_place(name: str) -> None:
    """The whole library rests on this: the joint graph of a core holds only out-of-place pointwise ops."""
    spike = make(name)

    def joint(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        s = spike(x)
        return s, torch.autograd.grad(s, x, g)[0]

    x, g = torch.randn(2, 3, 5, requires_grad=True), torch.randn(2, 3, 5)
    graph = make_fx(joint)(x, g)
    ops = [node for node in graph.graph.nodes if node.op == "call_function"]
    assert not [node for node in ops if node.target._schema.name.endswith("_")]
    assert {tuple(node.meta["val"].shape) for node in ops} <= {(2, 3, 5), ()}
    y = torch.randn(2, 3, 5, requires_grad=True)
    s, grad = graph(y, g)
    torch.testing.assert_close((s, grad), (spike(y), torch.autograd.grad(spike(y), y, g)[0]), rtol=0, atol=0)


def test_backward_of_atan_is_short() -> None:
    spike = surrogate.ATan(alpha=3.0)
    graph = make_fx(lambda x: spike.derivative(x))(torch.randn(3))
    names = [str(n.target).split(".")[1] for n in graph.graph.nodes if n.op == "call_function"]
    assert names == ["mul", "mul", "add", "reciprocal", "mul"]


def test_runs_under_torch_compile() -> None:
    for spike in (surrogate.ATan(), surrogate.ATan(nn.Parameter(torch.tensor(2.0))), surrogate.Rect()):
        x = torch.randn(7, requires_grad=True)
        compiled: Any = torch.compile(spike, backend="aot_eager", fullgraph=True)
        s = compiled(x)
        assert torch.equal(s, spike(x))
        assert torch.equal(torch.autograd.grad(s.sum(), x)[0], slope(spike, x))


def test_custom() -> None:
    spike = surrogate.custom(lambda x: x.abs() + 2.0, lambda x: x * x.abs() / 2 + 2 * x)
    x = torch.tensor([-1.5, 0.0, 3.0])
    assert spike(x).tolist() == [0.0, 1.0, 1.0]
    assert slope(spike, x).tolist() == [3.5, 2.0, 5.0]
    spike.set_spiking_mode(False)
    assert slope(spike, x).tolist() == [3.5, 2.0, 5.0]
    assert spike(x).tolist() == [-4.125, 0.0, 10.5]
    assert surrogate.custom(torch.ones_like, strict=True)(torch.zeros(2)).tolist() == [0.0, 0.0]


def test_custom_errors() -> None:
    with pytest.raises(ValueError, match=r"custom\(derivative=2.0\): derivative must be a function of one tensor"):
        surrogate.custom(2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"custom\(primitive='x'\): primitive must be a function"):
        surrogate.custom(torch.ones_like, "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="spiking=False needs a primitive"):
        surrogate.custom(torch.ones_like, spiking=False)
    spike = surrogate.custom(torch.ones_like)
    spike.set_spiking_mode(False)
    with pytest.raises(ValueError, match="spiking=False needs a primitive"):
        spike(torch.zeros(1))


def test_repr() -> None:
    assert repr(surrogate.ATan()) == "ATan(alpha=2.0)"
    assert repr(surrogate.Sigmoid(3, spiking=False, strict=True)) == "Sigmoid(alpha=3.0, spiking=False, strict=True)"
    assert repr(surrogate.PiecewiseLeakyReLU(c=0.5)) == "PiecewiseLeakyReLU(w=1.0, c=0.5)"
    assert repr(surrogate.SquarewaveFourierSeries()) == "SquarewaveFourierSeries(n=2, T_period=8.0)"
    assert repr(surrogate.ATan(nn.Parameter(torch.tensor(1.5)))) == "ATan(alpha=learnable 1.5)"
    assert repr(surrogate.ATan(torch.ones(3, 1))) == "ATan(alpha=tensor (3, 1))"
    assert repr(surrogate.DeterministicPass()) == "DeterministicPass()"
    assert repr(surrogate.custom(torch.ones_like, strict=True)) == "Custom(derivative=ones_like, strict=True)"


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("ATan", {"alpha": 0}, r"ATan\(alpha=0\): alpha must be a finite number > 0"),
        ("ATan", {"alpha": -2.0}, r"alpha=-2.0.*alpha must be a finite number > 0"),
        ("Sigmoid", {"alpha": math.inf}, r"alpha=inf.*finite"),
        ("Sigmoid", {"alpha": math.nan}, r"alpha=nan.*finite"),
        ("Erf", {"alpha": torch.tensor([1.0, -1.0])}, r"alpha must be a finite number > 0"),
        ("Erf", {"alpha": torch.tensor(2)}, r"floating-point tensor, got torch.int64"),
        (
            "Rect",
            {"alpha": "2"},
            r"Rect\(alpha='2'\): alpha must be a number or a tensor, got str",
        ),
        ("Rect", {"alpha": True}, r"got bool"),
        ("QPseudoSpike", {"alpha": 1.0}, r"alpha must be a finite number > 1"),
        ("PiecewiseLeakyReLU", {"w": 0.0}, r"w must be a finite number > 0"),
        ("PiecewiseLeakyReLU", {"c": math.nan}, r"c must be a finite number"),
        ("S2NN", {"beta": -1.0}, r"beta must be a finite number > 0"),
        ("SquarewaveFourierSeries", {"n": 0}, r"n=0.*n must be an integer >= 1"),
        ("SquarewaveFourierSeries", {"n": 2.0}, r"n=2.0.*n must be an integer, got float"),
        ("SquarewaveFourierSeries", {"T_period": 0}, r"T_period must be a finite number > 0"),
        ("Gaussian", {"sigma": 0.0}, r"sigma must be a finite number > 0"),
        ("ATan", {"spiking": 1}, r"ATan\(spiking=1\): spiking must be True or False"),
        ("ATan", {"strict": "yes"}, r"ATan\(strict='yes'\): strict must be True or False"),
    ],
)
def test_wrong_arguments(name: str, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make(name, **arguments)


def test_subclass_pickle_and_deepcopy() -> None:
    spike = surrogate.S2NN(alpha=nn.Parameter(torch.tensor(2.0)), strict=True)
    again = pickle.loads(pickle.dumps(spike))
    assert repr(again) == repr(spike)
    assert again(torch.zeros(1)).item() == 0.0


@pytest.mark.parametrize("module", [base, bells, custom_slope, tails])
def test_doctests(module: Any) -> None:
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("learnable", [False, True])
def test_under_vmap_and_grad(learnable: bool) -> None:
    alpha = nn.Parameter(torch.tensor(2.0)) if learnable else 2.0
    spike = surrogate.ATan(alpha=alpha)
    x = torch.linspace(-1.0, 1.0, 12).reshape(3, 4)
    weight = torch.arange(4.0)

    def loss(x: Tensor) -> Tensor:
        return (spike(x) * weight).sum()

    assert torch.equal(torch.func.vmap(spike)(x), spike(x))
    expected = spike.derivative(x).detach() * weight
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(x), expected, rtol=1e-6, atol=0)
