"""ScanDispatcher: the guard, the cache and the choice of what runs a call."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn import FallbackWarning, UnsupportedOpError, scan
from flexsn.execution.backends import supported_backends
from flexsn.execution.dispatch import ScanDispatcher
from flexsn.execution.options import ScanOptions
from flexsn.execution.spike_tensor import SpikeTensor

pytestmark = pytest.mark.skipif("cpp" not in supported_backends(), reason="needs a C++ compiler")
X, V = torch.linspace(-1.0, 2.0, 24).reshape(4, 2, 3), torch.zeros(2, 3)


@pytest.fixture(autouse=True)
def no_forced_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEXSN_BACKEND", raising=False)


def leaky(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    v = 0.5 * v + x
    return v * v, v


def mixes_lanes(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    v = v + x.cumsum(-1)
    return v, v


def run(dispatcher: ScanDispatcher, x: Tensor = X, **options: Any) -> Tensor:
    (y,), _, _ = dispatcher([x], [V], ScanOptions(**options))
    return y


def entries(dispatcher: ScanDispatcher) -> list[Any]:
    return list(dispatcher._entries.values())


# ---- cache --------------------------------------------------------------------------------------------------


def test_a_call_like_one_before_finds_its_entry() -> None:
    dispatcher = ScanDispatcher(leaky, 1)
    run(dispatcher)
    (entry,) = entries(dispatcher)
    run(dispatcher, X + 1.0)
    assert entries(dispatcher) == [entry]


@pytest.mark.parametrize(
    "x, options",
    [
        (X[:3], {}),
        (X.transpose(1, 2).contiguous().transpose(1, 2), {}),
        (X.clone().requires_grad_(), {}),
        (X, {"checkpoint": 2}),
        (X, {"wanted_states": (0,)}),
        (X, {"output_dtype": torch.float16}),
    ],
)
def test_a_call_of_another_kind_has_its_own(x: Tensor, options: dict[str, Any]) -> None:
    dispatcher = ScanDispatcher(leaky, 1)
    run(dispatcher)
    run(dispatcher, x, **options)
    first, second = entries(dispatcher)
    assert first.bound is not second.bound
    assert (first.traced is second.traced) == (not options.get("wanted_states"))


def test_ways_to_say_the_same_share_kernels() -> None:
    dispatcher = ScanDispatcher(leaky, 1)
    for options in ({}, {"backend": "cpp"}, {"time_dim": -3}):
        run(dispatcher, **options)
    assert len(entries(dispatcher)) == 3
    assert len({id(entry.bound) for entry in entries(dispatcher)}) == 1


def test_results_are_told_apart() -> None:
    dispatcher = ScanDispatcher(lambda x, v, w: (x + v, x - w, v + x, w * 0.5 + x), 2)
    outputs, finals, state_seqs = dispatcher([X], [V, V], ScanOptions(wanted_states=(1,)))
    loop = ScanDispatcher(dispatcher.core, 2)([X], [V, V], ScanOptions("torch", wanted_states=(1,)))
    for mine, theirs in zip((outputs, finals, state_seqs), loop, strict=True):
        assert len(mine) == len(theirs)
        assert all(map(torch.equal, mine, theirs))


def test_whether_it_trains() -> None:
    weight = torch.ones(3, requires_grad=True)
    dispatcher = ScanDispatcher(lambda x, v: (x * weight, v + x), 1)
    assert run(dispatcher).requires_grad
    with torch.no_grad():
        assert not run(dispatcher).requires_grad
    assert [entry.training for entry in entries(dispatcher)] == [True, False]


# ---- guard --------------------------------------------------------------------------------------------------


def amplifier() -> tuple[Callable[..., Any], Callable[[float], None]]:
    gain = 2.0

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return gain * x, v

    def change(value: float) -> None:
        nonlocal gain
        gain = value

    return core, change


def test_a_changed_constant_is_another_trace_and_the_old_one_is_found_again() -> None:
    core, change = amplifier()
    dispatcher = ScanDispatcher(core, 1)
    traced = []
    for gain in (2.0, 3.0, 2.0):
        change(gain)
        assert torch.equal(run(dispatcher), gain * X)
        (entry,) = entries(dispatcher)  # of what the core reads now
        traced.append(entry.traced)
    assert traced[0] is traced[2] and traced[0] is not traced[1]


# ---- dispatch -----------------------------------------------------------------------------------------------


def test_auto_falls_back_with_one_warning() -> None:
    dispatcher = ScanDispatcher(mixes_lanes, 1)
    with pytest.warns(FallbackWarning, match="cumsum"):
        run(dispatcher)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (X, X[:2]):
            y = run(dispatcher, x)
            assert torch.equal(y, run(ScanDispatcher(mixes_lanes, 1), x, backend="torch"))
    assert entries(dispatcher) == [None, None]


def test_a_backend_by_name_raises_each_time() -> None:
    dispatcher = ScanDispatcher(mixes_lanes, 1)
    for _ in range(2):
        with pytest.raises(UnsupportedOpError, match="cumsum"):
            run(dispatcher, backend="cpp")
    assert entries(dispatcher) == []


def test_the_environment_speaks_where_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = ScanDispatcher(leaky, 1)
    monkeypatch.setenv("FLEXSN_BACKEND", "torch")
    run(dispatcher)
    run(dispatcher, backend="cpp")
    monkeypatch.setenv("FLEXSN_BACKEND", "cpp")
    run(dispatcher)
    assert [entry is None for entry in entries(dispatcher)] == [True, False, False]


def test_what_only_the_loop_follows_leaves_nothing_behind() -> None:
    dispatcher = ScanDispatcher(leaky, 1)
    y = torch.vmap(lambda x: run(dispatcher, x))(torch.stack((X, X + 1.0)))
    assert entries(dispatcher) == []
    for mine, x in zip(y, (X, X + 1.0), strict=True):
        assert torch.equal(mine, run(dispatcher, x))


def test_no_steps_are_the_loops() -> None:
    dispatcher = ScanDispatcher(leaky, 1)
    assert run(dispatcher, X[:0]).shape == (0, 2, 3)
    assert entries(dispatcher) == [None]


def test_spikes_stored_in_a_byte_are_read_as_floats() -> None:
    dispatcher = ScanDispatcher(leaky, 1)
    spikes = (X > 0).float()
    assert torch.equal(run(dispatcher, SpikeTensor(spikes.bool(), torch.float32)), run(dispatcher, spikes))
    assert len(entries(dispatcher)) == 1


def test_what_had_to_be_broadcast_is_looked_at_anew() -> None:
    dispatcher = ScanDispatcher(leaky, 1)
    (y,), (v,), _ = dispatcher([X], [torch.zeros(())], ScanOptions())
    assert v.shape == (2, 3) and torch.equal(y, run(dispatcher))
    assert len(entries(dispatcher)) == 1


def test_what_the_core_makes_of_numbers_has_the_default_dtype_of_the_call(backend: str) -> None:
    core = lambda x, v: (x * torch.tensor([0.1, 0.7, 0.3]) + torch.zeros(()), v)  # noqa: E731
    try:
        for dtype in (torch.float32, torch.float64, torch.float32):
            torch.set_default_dtype(dtype)
            mine, expected = (scan(core, X, V, backend=b)[0] for b in (backend, "torch"))
            assert mine.dtype == expected.dtype == dtype and torch.equal(mine, expected)
    finally:
        torch.set_default_dtype(torch.float32)
