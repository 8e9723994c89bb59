"""Errors say what, where, why and what to do; a mistake raises the same class on every backend."""

from __future__ import annotations

import linecache
import re
import sys
import threading
import warnings
from typing import Any

import pytest
import torch
from contract_cores import lif, sequence, two
from torch import Tensor

from flexsn import (
    BackendError,
    CoreError,
    FallbackWarning,
    FlexSN,
    FlexSNError,
    GradientError,
    UnsupportedOpError,
    scan,
    surrogate,
)
from flexsn.errors import SourceLine, calling_line, defined_at, failing_line, is_users_frame, stack_level
from flexsn.neurons import LIF


def test_layout() -> None:
    line = SourceLine("a.py", 3, "core", "s = h > 1")
    error = FlexSNError("it broke", where=line, why="because", hint="mend it")
    assert str(error).splitlines() == [
        "it broke",
        "  where: a.py:3, in core: s = h > 1",
        "  why:   because",
        "  hint:  mend it",
    ]
    assert str(FlexSNError("it broke")) == "it broke"


def test_classes() -> None:
    assert issubclass(CoreError, ValueError)
    assert issubclass(UnsupportedOpError, NotImplementedError)
    assert issubclass(BackendError, RuntimeError)
    assert issubclass(GradientError, RuntimeError)
    assert all(issubclass(e, FlexSNError) for e in (CoreError, UnsupportedOpError, BackendError, GradientError))
    assert issubclass(FallbackWarning, UserWarning)


def test_mismatched_steps(backend: str) -> None:
    with pytest.raises(ValueError, match=r"number of steps T: shapes \(4, 3\), \(5, 3\)"):
        FlexSN(two, 2, backend=backend)(sequence(4, 3), sequence(5, 3))


def test_mismatched_shapes(backend: str) -> None:
    with pytest.raises(ValueError, match=r"do not broadcast: inputs \(3,\), \(2,\); states \(2,\), \(2,\)"):
        scan(two, (sequence(4, 3), sequence(4, 2)), (torch.zeros(2), torch.zeros(2)), backend=backend)
    neuron = FlexSN(lif, backend=backend)
    neuron.v = torch.zeros(5)
    with pytest.raises(ValueError, match=r"do not broadcast: inputs \(3,\); states \(5,\)"):
        neuron(sequence(4, 3))


def test_a_parameter_that_fits_no_such_step() -> None:
    gain = torch.ones(5)
    neuron = FlexSN(lambda x, v: (x * gain, v), backend="cpp")
    neuron(sequence(4, 5))
    neuron.reset()
    with pytest.raises(
        ValueError, match=r"reads gain of shape \(5,\), which does not broadcast with a step of shape \(3,\)"
    ):
        neuron(sequence(4, 3))


@pytest.mark.parametrize("shape", [(8, 1), (1, 1), (1, 3)])
def test_a_parameter_that_enlarges_the_step(shape: tuple[int, ...]) -> None:
    gain = torch.ones(shape)
    with pytest.raises(UnsupportedOpError, match=re.escape(f"parameters of shape {shape} enlarge the step (3,)")):
        FlexSN(lambda x, v: (x, v + gain * x), backend="cpp")(sequence(4, 3))
    with pytest.raises(CoreError, match="state 0 'v' changes its shape"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        FlexSN(lambda x, v: (x, v + gain * x))(sequence(4, 3))


def test_mismatched_devices(backend: str) -> None:
    with pytest.raises(ValueError, match="different devices: cpu, meta"):
        scan(lif, sequence(4, 3), torch.zeros(3, device="meta"), backend=backend)


def test_a_parameter_elsewhere() -> None:
    weight = torch.nn.Parameter(torch.ones(3, device="meta"))
    with pytest.raises(ValueError, match="inputs are on cpu, but weight, which the core reads, is on meta"):
        FlexSN(lambda x, v: (x * weight, v), backend="cpp")(sequence(4, 3))


def test_no_tensor(backend: str) -> None:
    with pytest.raises(ValueError, match="input 0 must be a tensor, got list"):
        FlexSN(lif, backend=backend)([[1.0]])  # type: ignore[arg-type]


def test_no_time_axis(backend: str) -> None:
    with pytest.raises(ValueError, match=r"input 0 of shape \(4,\) has no time axis 1"):
        FlexSN(lif, time_dim=1, backend=backend)(sequence(4))


def no_surrogate(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + x
    s = (h > 1.0).to(h)
    return s, h * (1.0 - s)


def detached(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return (v + x).detach(), v + x


@pytest.mark.parametrize("core, op, line", [
    (no_surrogate, "gt", "s = (h > 1.0).to(h)"),
    (detached, "detach", "return (v + x).detach(), v + x"),
])  # fmt: skip
def test_a_blocked_gradient_names_op_and_line(core: object, op: str, line: str, backend: str) -> None:
    x = sequence(4, 3).requires_grad_()
    neuron = FlexSN(core, backend=backend)  # type: ignore[arg-type]
    y = neuron(x)
    with pytest.raises(GradientError) as caught:
        y.sum().backward()
    assert f"{op} has no derivative" in str(caught.value)
    assert line in str(caught.value)
    assert "test_errors.py" in str(caught.value)
    assert "surrogate" in str(caught.value)


def holds_the_spike(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return v + x, (v + x > 1.0).to(x)


def test_a_gradient_of_a_final_state_alone_is_blocked_too(backend: str) -> None:
    x = sequence(4, 3).requires_grad_()
    y, v = scan(holds_the_spike, x, torch.zeros(3), backend)
    (gradient,) = torch.autograd.grad(y.sum() + v.sum(), x, retain_graph=True)
    assert torch.equal(gradient, torch.ones(4, 3))
    with pytest.raises(GradientError, match=r"gt has no derivative[\s\S]*\(v \+ x > 1.0\).to\(x\)"):
        v.sum().backward()


def test_a_gradient_with_another_way_is_not_blocked(backend: str) -> None:
    x = torch.full((3, 3), 0.3).requires_grad_()
    grads = []
    for chosen in (backend, "torch"):
        neuron = FlexSN(no_surrogate, backend=chosen)
        y = neuron(x)
        grads.append(torch.autograd.grad(y.sum() + neuron.v.sum(), x)[0])
    assert torch.equal(*grads)
    assert grads[0].any()


def test_no_gradient_wanted_no_complaint(backend: str) -> None:
    y = FlexSN(no_surrogate, backend=backend)(sequence(4, 3))
    assert not y.requires_grad


def test_a_surrogate_heals_it(backend: str) -> None:
    spike = surrogate.Sigmoid()
    x = sequence(4, 3).requires_grad_()
    FlexSN(lambda x, v: (spike(v + x - 1.0), v), backend=backend)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.any()


def test_where_things_are() -> None:
    assert defined_at(lif).endswith(", lif")
    assert "contract_cores.py:" in defined_at(lif)
    assert defined_at(torch.nn.ReLU()) == "ReLU"
    try:
        FlexSN(lambda x, v: (x.no_such_thing, v), backend="torch")(sequence(2, 2))
    except AttributeError as error:
        line = failing_line(error)
        assert line is not None
        assert "no_such_thing" in line.text
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("here", stacklevel=stack_level())
    assert caught[0].filename == __file__


# ---- whose line, whose fault ------------------------------------------------------------------------------


def run_in(module: str, filename: str, source: str, **known: Any) -> Any:
    """Run source as a line of that module would run, wherever the package lies; returns its ``result``."""
    known |= {"__name__": module, "sys": sys}
    exec(compile(source, filename, "exec"), known)
    return known.get("result")


@pytest.mark.parametrize("module, filename, users", [
    ("__main__", "/home/user/train.py", True),
    ("net.neurons", "/env/lib/python3.11/site-packages/net/neurons.py", True),
    ("flexsnet", "/home/user/flexsnet.py", True),
    ("torchvision.ops", "/home/user/torchvision/ops.py", True),
    ("flexsn.neurons.integrate", "/env/lib/python3.11/site-packages/flexsn/neurons/integrate.py", False),
    ("flexsn.neurons.integrate", "/home/user/flexsn/neurons/integrate.py", False),
    ("flexsn.kernels.cache", "/home/user/flexsn/kernels/cache.py", False),
    ("flexsn", "/home/user/flexsn/flexsn/__init__.py", False),
    ("torch.nn.modules.module", "/env/lib/python3.11/site-packages/torch/nn/modules/module.py", False),
    ("numpy", "/env/lib/python3.11/site-packages/numpy/__init__.py", False),
    ("threading", threading.__file__, False),
    ("importlib._bootstrap", "<frozen importlib._bootstrap>", False),
])  # fmt: skip
def test_the_users_frames(module: str, filename: str, users: bool) -> None:
    assert is_users_frame(run_in(module, filename, "result = sys._getframe()")) is users


def test_lines_are_the_users_with_our_frames_in_between() -> None:
    between = "def ours(call): return call()"
    ours = run_in("flexsn.neurons.base", "/home/user/neurons/base.py", between + "\nresult = ours")
    line = ours(calling_line)
    assert line is not None
    assert line.filename == __file__
    assert line.text == "line = ours(calling_line)"
    try:
        ours(lambda: ours([].pop))  # the innermost of ours
    except IndexError as error:
        line = failing_line(error)
        assert line is not None
        assert line.text == "ours(lambda: ours([].pop))  # the innermost of ours"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours(lambda: ours(lambda: warnings.warn("here", stacklevel=stack_level())))
    assert caught[0].filename == __file__


def test_a_warning_from_within_a_built_in_neuron_points_at_the_users_line() -> None:
    class Sorted(LIF):
        def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            s, v = super().core(x, v)
            return s, v.sort().values

    neuron = Sorted(step_mode="m")
    with pytest.warns(FallbackWarning) as caught:
        neuron(sequence(2, 3))
    assert caught[0].filename == __file__
    assert linecache.getline(__file__, caught[0].lineno).strip() == "neuron(sequence(2, 3))"
    assert "return s, v.sort().values" in str(caught[0].message)


class Broken(Exception):
    pass


def breaks(*_: Any, **__: Any) -> Any:
    raise Broken


@pytest.mark.parametrize(
    "ours",
    [
        "tracing.partition.Partitioner.run",
        "tracing.recorder._is_alias",
        "tracing.sentinel._probe",
        "captures.snapshot.SnapshotCore.__init__",
    ],
)
@pytest.mark.parametrize("chosen", ["auto", "cpp"])
def test_a_fault_of_ours_is_raised_as_it_is(ours: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"flexsn.{ours}", breaks)
    with pytest.raises(Broken):
        FlexSN(lambda x, v: (x + v, v), backend=chosen)(sequence(2, 3))


def raises(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    raise Broken if x.shape != (3,) else ValueError


def of_the_wrong_shape(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return x.view(4, 11) + v, v


def in_place_of_the_wrong_shape(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 1.0
    y[(slice(None),) * 9] = 0.0
    return y, v


def of_the_wrong_type(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return surrogate.ATan()(None), v  # type: ignore[arg-type]


class Misled(LIF):
    """A built-in core whose line fails on what a user set."""

    def __init__(self, backend: str) -> None:
        super().__init__(step_mode="m", backend=backend)
        self.surrogate_function = None


@pytest.mark.parametrize(
    "core",
    [raises, of_the_wrong_shape, in_place_of_the_wrong_shape, of_the_wrong_type, torch.linalg.det],
)
def test_a_fault_of_the_core_is_the_cores(core: Any) -> None:
    with pytest.raises(UnsupportedOpError, match="cannot be traced"):
        scan(core, sequence(2, 3), torch.zeros(3), backend="cpp")


def test_a_fault_in_a_built_in_neurons_core_is_the_cores() -> None:
    with pytest.raises(UnsupportedOpError, match="cannot be traced"):
        Misled("cpp")(sequence(2, 3))
    with pytest.warns(FallbackWarning), pytest.raises(TypeError):  # and the loop says it as it is
        Misled("auto")(sequence(2, 3))
