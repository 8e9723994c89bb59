"""neuron.record: named states of every step, or of one step in so many."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from flexsn import FlexSN, surrogate

spike = surrogate.ATan()


def core(x: Tensor, v: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h = v + (x - v) / 2
    s = spike(h - (1 + a))
    return s, h * (1 - s), a / 2 + s


@pytest.fixture
def neuron(backend: str) -> FlexSN:
    return FlexSN(core, backend=backend)


X = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(0)) * 2


def test_a_record_is_the_state_sequence_thinned_out(neuron: FlexSN) -> None:
    neuron.store_state_seqs = True
    neuron(X)
    assert neuron.state_seqs is not None
    v, a = neuron.state_seqs
    neuron.store_state_seqs = False
    neuron.reset()
    neuron.record("a", "v", every=3)
    neuron(X)
    assert neuron.state_seqs is None and list(neuron.recorded) == ["a", "v"]
    assert torch.equal(neuron.recorded["v"], v[::3]) and torch.equal(neuron.recorded["a"], a[::3])


def test_a_record_carries_gradients(neuron: FlexSN) -> None:
    x, reference = X.clone().requires_grad_(), X.clone().requires_grad_()
    neuron.record("v", every=2)
    neuron(x)
    neuron.recorded["v"].sum().backward()
    loop = FlexSN(core, backend="torch", store_state_seqs=True)
    loop(reference)
    assert loop.state_seqs is not None
    loop.state_seqs[0][::2].sum().backward()
    # a state that is an output too has three gradients to add, and the kernel adds them in another order
    torch.testing.assert_close(x.grad, reference.grad, rtol=1e-6, atol=1e-7)


def test_only_the_recorded_state_is_written(neuron: FlexSN, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    scan = neuron._scan
    monkeypatch.setattr(neuron, "_scan", lambda *args: seen.append(args[-1].wanted_states) or scan(*args))
    neuron(X)
    neuron.record("a")
    neuron(X)
    neuron.record()
    neuron(X)
    assert seen == [(), (1,), ()] and neuron.recorded == {}


def test_the_steps_between_are_given_back(neuron: FlexSN) -> None:
    neuron.record("v", every=3)
    neuron(X)
    kept = neuron.recorded["v"]
    assert kept.shape == (3, 3, 5) and kept.untyped_storage().nbytes() == kept.numel() * kept.element_size()


def test_batch_first(neuron: FlexSN) -> None:
    neuron.record("v", every=2)
    neuron(X)
    expected = neuron.recorded["v"]
    neuron.reset()
    neuron.time_dim = 1
    neuron(X.transpose(0, 1))
    assert torch.equal(neuron.recorded["v"].transpose(0, 1), expected)


def test_a_copy_has_the_record_without_its_graph(neuron: FlexSN) -> None:
    neuron.record("v")
    neuron(X.clone().requires_grad_())
    for clone in (copy.deepcopy(neuron), copy.copy(neuron)):
        assert not clone.recorded["v"].requires_grad
        assert torch.equal(clone.recorded["v"], neuron.recorded["v"])
        clone.reset()
        clone(X + 1.0)
        assert not torch.equal(clone.recorded["v"], neuron.recorded["v"])


def test_wrong_names_and_intervals(neuron: FlexSN) -> None:
    with pytest.raises(ValueError, match=r"no state is called 'w'; the states are \('v', 'a'\)"):
        neuron.record("w")
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        neuron.record("v", every=0)
