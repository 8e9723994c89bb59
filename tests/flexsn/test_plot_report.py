"""The report: what is drawn where, how it is labelled, and that it leaves no trace on its neuron."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from figures import lines, ticks_of
from torch import Tensor, nn

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from flexsn import FlexSN, neurons, surrogate  # noqa: E402
from flexsn.neurons import norse, rnnbuilder  # noqa: E402
from flexsn.plot import neuron_report, report  # noqa: E402


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


class Neuron(nn.Module):
    """The least a report asks for: integrate-and-fire, with a second state that counts spikes."""

    state_names = ("a", "v")
    calls: Tensor
    v_threshold: Any
    inner: nn.Module

    def __init__(self, spiking: bool = True) -> None:
        super().__init__()
        self.spiking = spiking
        self.store_state_seqs = False
        self.state_seqs: tuple[Tensor, ...] | None = None
        self.states: tuple[Tensor, Tensor] | None = None
        self.register_buffer("calls", torch.zeros(()))

    def reset(self) -> None:
        self.states = None

    def forward(self, *inputs: Tensor) -> Tensor:
        x_seq = sum(inputs[1:], inputs[0])
        self.calls = self.calls + 1
        a, v = self.states or (torch.zeros_like(x_seq[0]), torch.zeros_like(x_seq[0]))
        ys, seqs = [], []
        for x in x_seq:
            v = v + x
            s = (v >= 1.0).to(v)
            v, a = v * (1 - s), a + s
            ys.append(s if self.spiking else v)
            seqs.append((a, v))
        self.states = (a, v)
        if self.store_state_seqs:
            self.state_seqs = tuple(torch.stack(seq) for seq in zip(*seqs, strict=True))
        return torch.stack(ys)


def test_report_draws_the_chosen_lanes() -> None:
    x = torch.tensor([0.25, 0.5]).expand(9, 2).clone().view(9, 2, 1)
    figure = neuron_report(Neuron(), x, lanes=[1, 0], v_threshold=torch.tensor([[1.0], [1.5]]), title="IF")
    grid = np.array(figure.axes[:-1]).reshape(4, 2)
    assert [axes.get_title() for axes in grid[0]] == ["neuron [1, 0]", "neuron [0, 0]"]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == [
        "input x (a.u.)",
        "membrane v (a.u.)",  # found by its name, though it is the second state
        "state a (a.u.)",
        "spikes",
    ]
    assert [axes.get_xlabel() for axes in grid[-1]] == ["time (steps)"] * 2
    fast, slow = lines(grid[1, 0]), lines(grid[1, 1])
    np.testing.assert_array_equal(fast["v"][:, 1], [0.5, 0, 0.5, 0, 0.5, 0, 0.5, 0, 0.5])
    np.testing.assert_array_equal(slow["v"][:, 1], [0.25, 0.5, 0.75, 0, 0.25, 0.5, 0.75, 0, 0.25])
    assert set(fast["threshold"][:, 1]) == {1.5} and set(slow["threshold"][:, 1]) == {1.0}
    assert ticks_of(grid[3, 0]) == [1, 3, 5, 7] and ticks_of(grid[3, 1]) == [3, 7]
    assert next(iter(lines(grid[2, 1]).values()))[-1, 1] == 2.0
    everyone = figure.axes[-1]
    assert (everyone.get_title(), everyone.get_xlabel(), everyone.get_ylabel()) == (
        "all neurons",
        "time (steps)",
        "neuron",
    )
    assert len(ticks_of(everyone)) == 6
    assert figure.get_suptitle() == "IF: 2 neurons, 9 steps, 0.333 spikes / step / neuron"
    figure.canvas.draw()


def test_report_of_outputs_that_are_no_spikes_and_of_two_inputs() -> None:
    x = torch.full((6, 5), 0.1)
    figure = neuron_report(Neuron(spiking=False), (x, 2 * x), lanes=9)
    assert len(figure.axes) == 4 * 5 + 2  # the raster gives way to a heat map with its colour bar
    assert figure.axes[15].get_ylabel() == "output y (a.u.)"
    assert "threshold" not in lines(figure.axes[5])
    assert sorted(lines(figure.axes[0])) == ["input 0", "input 1"]
    assert "mean output" in figure.get_suptitle()
    figure.canvas.draw()


def test_report_uses_the_neurons_own_threshold() -> None:
    neuron = Neuron()
    neuron.v_threshold = 0.7
    figure = neuron_report(neuron, torch.ones(4, 3), lanes=1)
    assert set(lines(figure.axes[1])["threshold"][:, 1]) == {0.7}


def steep(h: Tensor) -> Tensor:
    return (h >= 0).to(h)


@pytest.mark.parametrize(
    ("neuron", "rest"),
    [
        (neurons.ALIF(5.0, 20.0, v_reset=0.0, surrogate_function=steep, step_mode="m"), 1.0),
        (norse.LSNN(), 1.0),
        (rnnbuilder.Adaptive(gamma=0.5), 1.0),
    ],
)
def test_report_of_a_threshold_that_moves(neuron: Any, rest: float) -> None:
    """Up after a spike, down otherwise, and never below its rest; the spikes are drawn on it."""
    figure = neuron_report(neuron, 3 * torch.rand(60, 4, generator=torch.Generator().manual_seed(0)), lanes=1)
    figure.canvas.draw()
    drawn = next(lines(axes) for axes in figure.axes if "membrane" in axes.get_ylabel())
    threshold, fired = drawn["threshold"][:, 1], drawn["spike"][:, 0].astype(int)
    assert threshold[0] == rest and 1 < len(fired) < 30
    np.testing.assert_array_equal(drawn["spike"][:, 1], threshold[fired])
    rises = np.isin(np.arange(59), fired)
    np.testing.assert_array_equal(np.diff(threshold) > 0, rises)


def test_report_of_alif_is_its_threshold() -> None:
    """Of the membrane before the reset, computed anew from the states, the drawn line decides every spike."""
    x = 4 * torch.rand(60, 1, generator=torch.Generator().manual_seed(0))
    figure = neuron_report(neurons.ALIF(5.0, 20.0, step_mode="m"), x)
    drawn = lines(figure.axes[1])
    rho = np.exp(-0.2)
    before = np.concatenate([[0.0], drawn["v"][:-1, 1]])
    h = rho * before + (1 - rho) * x[:, 0].numpy()
    np.testing.assert_array_equal(np.flatnonzero(h >= drawn["threshold"][:, 1]), drawn["spike"][:, 0])


def test_report_leaves_the_neuron_as_it_was() -> None:
    neuron = Neuron()
    inner = Neuron()
    neuron.inner = inner
    neuron.state_seqs = (torch.ones(1),)
    states = neuron.states = (torch.ones(3), torch.zeros(3))
    stored, calls = neuron.state_seqs, neuron.calls
    neuron_report(neuron, torch.ones(4, 7), lanes=1)
    assert neuron.states is states and neuron.state_seqs is stored and neuron.calls is calls
    assert neuron.store_state_seqs is False and neuron.inner is inner
    with pytest.raises(RuntimeError):
        neuron_report(neuron, (torch.ones(4, 3), torch.ones(4, 2)))
    assert neuron.states is states and neuron.store_state_seqs is False


def test_report_of_a_flexsn_neuron() -> None:
    spike = surrogate.ATan()

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + (x - v) / 2.0
        s = spike(h - 1.0)
        return s, h * (1.0 - s)

    neuron = FlexSN(core, step_mode="s", time_dim=1)
    x = torch.full((3, 8, 2), 1.5)
    neuron(x[:, 0])
    states = neuron.states
    figure = neuron_report(neuron, x, v_threshold=1.0)  # [B, T, N], as the neuron says
    assert figure.get_suptitle() == "FlexSN: 6 neurons, 8 steps, 0.5 spikes / step / neuron"
    np.testing.assert_array_equal(lines(figure.axes[3])["v"][:, 1], [0.75, 0] * 4)
    assert neuron.states is states and neuron.step_mode == "s" and neuron.time_dim == 1
    assert not neuron.store_state_seqs and neuron.state_seqs is None


def test_report_leaves_what_a_neuron_recorded() -> None:
    neuron = FlexSN(lambda x, v: (v + x, v + x))
    neuron.record("v")
    neuron(torch.ones(4, 1))
    recorded = neuron.recorded["v"]
    neuron_report(neuron, torch.ones(5, 3))
    assert neuron.recorded["v"] is recorded
    neuron(torch.ones(2, 1))
    assert neuron.recorded["v"].tolist() == [[5.0], [6.0]]


@pytest.mark.parametrize(
    ("lanes", "x", "text"),
    [
        ([3], torch.ones(4, 3), r"lanes must be numbers in \[0, 3\), got \[3\]"),
        ([], torch.ones(4, 3), r"lanes must be numbers in \[0, 3\), got \[\]"),
        (0, torch.ones(4, 3), r"lanes must be at least 1, or a list of lanes; got 0"),
        (1, torch.ones(4, 0), r"nothing to report on: the output has shape \(4, 0\)"),
    ],
)
def test_report_errors(lanes: Any, x: Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        neuron_report(Neuron(), x, lanes=lanes)


def test_doctests() -> None:
    result = doctest.testmod(report)
    assert result.attempted > 0 and result.failed == 0
