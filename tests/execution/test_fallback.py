"""What a kernel cannot express or a machine cannot build: the loop and one warning, or an error if asked by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn import FallbackWarning, FlexSN, UnsupportedOpError, scan
from flexsn.execution.backends import supported_backends
from tests.flexsn.contract_cores import sequence

COMPILED = [name for name in supported_backends() if name == "cpp"]


def cumsum(x: Tensor, v: Tensor) -> Any:
    h = v + x.cumsum(-1)
    return h, h


def matmul(x: Tensor, v: Tensor) -> Any:
    h = v + x @ (x.transpose(-1, -2) @ x)
    return h, h


def softmax(x: Tensor, v: Tensor) -> Any:
    h = v + x.softmax(-1)
    return h, h


def mean(x: Tensor, v: Tensor) -> Any:
    h = v + x.mean(-1, keepdim=True)
    return h, h


def branch(x: Tensor, v: Tensor) -> Any:
    if x.sum() > 0:
        v = v + x
    return v, v


def item(x: Tensor, v: Tensor) -> Any:
    v = v + x * x.max().item()
    return v, v


def random(x: Tensor, v: Tensor) -> Any:
    v = v + x * torch.rand_like(x)
    return v, v


def in_place(x: Tensor, v: Tensor) -> Any:
    v = v + x
    OUTSIDE.add_(v.detach().sum())
    return v * OUTSIDE, v


def fixed_shape(x: Tensor, v: Tensor) -> Any:
    v = v + x.reshape(2, 3)
    return v, v


OUTSIDE = torch.zeros(())
UNSUPPORTED: list[tuple[Callable[..., Any], str, str]] = [
    (cumsum, "cumsum", "h = v + x.cumsum(-1)"),
    (matmul, "mm", "h = v + x @ (x.transpose(-1, -2) @ x)"),
    (softmax, "softmax", "h = v + x.softmax(-1)"),
    (mean, "mean", "h = v + x.mean(-1, keepdim=True)"),
    (branch, "torch.where", "if x.sum() > 0:"),
    (item, "torch.where", "v = v + x * x.max().item()"),
    (random, "rand", "v = v + x * torch.rand_like(x)"),
    (in_place, "add_", "OUTSIDE.add_(v.detach().sum())"),
    (fixed_shape, "reshape", "v = v + x.reshape(2, 3)"),
]


def expected_of(core: Callable[..., Any], x: Tensor) -> Tensor:
    torch.manual_seed(0)
    OUTSIDE.zero_()
    y, _ = scan(core, x, torch.zeros(2, 3), backend="torch")
    return y


@pytest.mark.parametrize("core, op, line", UNSUPPORTED)
def test_auto_runs_the_loop_with_one_warning(core: Callable[..., Any], op: str, line: str) -> None:
    x = sequence(4, 2, 3)
    neuron = FlexSN(core)
    neuron.states = (torch.zeros(2, 3),)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.manual_seed(0)
        OUTSIDE.zero_()
        y = neuron(x)
        for shape in ((4, 2, 3), (5, 2, 3)):
            neuron.states = (torch.zeros(2, 3),)
            neuron(sequence(*shape))
    caught = [w for w in caught if not issubclass(w.category, ResourceWarning)]  # whatever else left open
    assert [w.category for w in caught] == [FallbackWarning]
    text = str(caught[0].message)
    assert op in text.replace(line, "")
    assert line in text
    assert "test_fallback.py" in text
    assert caught[0].filename == __file__
    torch.testing.assert_close(y, expected_of(core, x), rtol=0, atol=0)


@pytest.mark.parametrize("core, op, line", UNSUPPORTED)
@pytest.mark.parametrize("chosen", COMPILED)
def test_a_backend_asked_for_by_name_raises(core: Callable[..., Any], op: str, line: str, chosen: str) -> None:
    neuron = FlexSN(core, backend=chosen)
    for _ in range(2):
        with pytest.raises(UnsupportedOpError) as caught:
            neuron(sequence(4, 2, 3))
        assert op in str(caught.value).replace(line, "")
        assert line in str(caught.value)


class Counter:
    def __init__(self) -> None:
        self.count = 0
        self.log: list[Tensor] = []
        self.last: Tensor | None = None

    def counts(self, x: Tensor, v: Tensor) -> Any:
        self.count += 1
        return v + x * self.count, v

    def logs(self, x: Tensor, v: Tensor) -> Any:
        self.log.append(x)
        return v + x, v

    def keeps(self, x: Tensor, v: Tensor) -> Any:
        self.newest = x
        return v + x, v


@pytest.mark.parametrize("method, names", [("counts", "count"), ("logs", "log"), ("keeps", "newest")])
def test_a_core_with_side_effects_runs_as_a_loop(method: str, names: str) -> None:
    held = Counter()
    neuron = FlexSN(getattr(held, method))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        y = neuron(torch.ones(3, 2))
        for _ in range(3):
            neuron(torch.ones(3, 2))
    caught = [w for w in caught if not issubclass(w.category, ResourceWarning)]  # whatever else left open
    assert [w.category for w in caught] == [FallbackWarning]
    assert f"the core changes {names} while it runs" in str(caught[0].message)
    if method == "counts":
        assert y[:, 0].tolist() == [1.0, 2.0, 3.0]
        assert held.count == 12
    if method == "logs":
        assert [tuple(x.shape) for x in held.log] == [(2,)] * 12
    for chosen in COMPILED:
        with pytest.raises(UnsupportedOpError, match="while it runs"):
            FlexSN(getattr(held, method), backend=chosen)(torch.ones(3, 2))


def test_a_value_computed_at_first_use_is_compiled_from_then_on() -> None:
    class Lazy:
        gain: float | None = None

        def core(self, x: Tensor, v: Tensor) -> Any:
            if self.gain is None:
                self.gain = 2.0
            return v + x * self.gain, v

    neuron = FlexSN(Lazy().core)
    with pytest.warns(FallbackWarning, match="the core changes gain"):
        neuron(torch.ones(3, 2))
    neuron.reset()
    assert torch.equal(neuron(torch.ones(3, 2)), torch.full((3, 2), 2.0))
    if COMPILED:
        assert FlexSN(neuron.core, backend="cpp")(torch.ones(3, 2)).sum() == 12.0


def test_a_users_own_mistake_is_theirs() -> None:
    def core(x: Tensor, v: Tensor) -> Any:
        return undefined_name * x, v  # type: ignore[name-defined]  # noqa: F821

    with warnings.catch_warnings(), pytest.raises(NameError):
        warnings.simplefilter("ignore")
        FlexSN(core)(torch.ones(3, 2))
