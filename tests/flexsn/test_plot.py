"""The single figures: what is drawn where, and how it is labelled."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from figures import labels, lines, ticks_of

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from flexsn.plot import (  # noqa: E402
    figures,
    plot_1d_spikes,
    plot_2d_bar_in_3d,
    plot_2d_heatmap,
    plot_one_neuron_v_s,
)
from tests import fresh  # noqa: E402


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def test_one_neuron() -> None:
    v = torch.tensor([0.2, 0.6, 0.0, 0.5], requires_grad=True)
    s = torch.tensor([0.0, 0.0, 1.0, 0.0])
    figure = plot_one_neuron_v_s(v, s, v_threshold=0.8, v_reset=-0.1, title="One")
    assert labels(figure) == [("", "membrane potential (a.u.)"), ("time (steps)", "spikes")]
    assert figure.get_suptitle() == "One"
    above, below = figure.axes
    drawn = lines(above)
    np.testing.assert_allclose(drawn["v"], np.stack([np.arange(4), v.detach().numpy()], 1))
    np.testing.assert_array_equal(drawn["threshold"][:, 1], [0.8] * 4)
    np.testing.assert_array_equal(drawn["spike"], [[2, 0.8]])
    np.testing.assert_array_equal(drawn["reset"][:, 1], [-0.1, -0.1])
    assert above.get_legend_handles_labels()[1] == [
        "v",
        "threshold",
        "spike",
        "reset",
    ]
    assert ticks_of(below) == [2.0]
    assert "reset" not in lines(plot_one_neuron_v_s(v, s, v_reset=None).axes[0])
    assert lines(plot_one_neuron_v_s(v, s, v_threshold=None).axes[0]).keys() == {"v", "reset"}


def test_one_neuron_with_a_moving_threshold_and_other_types() -> None:
    v, s = np.array([0.1, 0.2, 0.0]), np.array([False, False, True])
    figure = plot_one_neuron_v_s(v, s, v_threshold=torch.tensor([1.0, 1.5, 2.0], dtype=torch.bfloat16))
    np.testing.assert_array_equal(lines(figure.axes[0])["threshold"][:, 1], [1.0, 1.5, 2.0])
    np.testing.assert_array_equal(lines(figure.axes[0])["spike"], [[2, 2.0]])


def test_heatmap() -> None:
    array = torch.arange(12.0).view(4, 3)
    figure = plot_2d_heatmap(array, title="Heat")
    axes = figure.axes[0]
    assert labels(figure) == [("time (steps)", "neuron"), ("", "membrane potential (a.u.)")]
    assert axes.get_title() == "Heat"
    image = axes.images[0]
    np.testing.assert_array_equal(np.asarray(image.get_array()), array.T.numpy())
    assert tuple(image.get_extent()) == (-0.5, 3.5, 2.5, -0.5)
    figure = plot_2d_heatmap(array, plot_colorbar=False, x_max=0.3, xlabel="time (s)", int_x_ticks=False)
    assert labels(figure) == [("time (s)", "neuron")]
    np.testing.assert_allclose(figure.axes[0].images[0].get_extent(), (-0.05, 0.35, 2.5, -0.5))
    assert any(0 < tick < 0.3 for tick in figure.axes[0].get_xticks())


def test_raster() -> None:
    spikes = torch.tensor([[0, 1], [1, 1], [0, 0], [0, 1]], dtype=torch.int64)
    figure = plot_1d_spikes(spikes, title="Raster")
    assert labels(figure) == [("time (steps)", "neuron"), ("firing rate\n(spikes / step)", "")]
    axes, rates = figure.axes
    assert axes.get_title() == "Raster"
    bars: Any = axes.collections[0]
    drawn = [(float(p[0, 0]), float(p[:, 1].mean())) for p in bars.get_segments()]
    assert sorted(drawn) == [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (3.0, 1.0)]
    patches: Any = rates.patches
    assert [bar.get_width() for bar in patches] == [0.25, 0.75]
    assert axes.get_ylim() == (1.5, -0.5) and axes.get_xlim() == (-0.5, 3.5)
    assert len(plot_1d_spikes(spikes, plot_firing_rate=False).axes) == 1
    plot_1d_spikes(torch.zeros(5, 3))  # nobody spikes


def test_bars() -> None:
    array = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    figure = plot_2d_bar_in_3d(array, title="Bars")
    assert labels(figure) == [("neuron", "time (steps)")]
    axes: Any = figure.axes[0]
    assert axes.get_zlabel() == "firing rate (spikes / step)" and figure.get_suptitle() == "Bars"
    assert len(axes.patches) == array.size


def test_style_does_not_leak() -> None:
    before = dict(matplotlib.rcParams)
    plot_2d_heatmap(torch.zeros(2, 2))
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: plot_one_neuron_v_s(torch.zeros(3, 1), torch.zeros(3)),
            r"v must have 1 dimension\(s\), got shape \(3, 1\)",
        ),
        (lambda: plot_one_neuron_v_s(torch.zeros(3), torch.zeros(4)), r"same number of steps, got 3 and 4"),
        (
            lambda: plot_one_neuron_v_s(torch.zeros(3), torch.zeros(3), torch.zeros(2)),
            r"v_threshold must be a number or \[T\] = \(3,\), got shape \(2,\)",
        ),
        (lambda: plot_2d_heatmap(torch.zeros(3)), r"array must have 2 dimension\(s\), got shape \(3,\)"),
        (lambda: plot_1d_spikes(torch.zeros(3)), r"spikes must have 2 dimension\(s\)"),
        (lambda: plot_2d_bar_in_3d(torch.zeros(3)), r"array must have 2 dimension\(s\)"),
    ],
)
def test_wrong_shapes(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


def test_without_matplotlib_the_error_names_the_extra() -> None:
    """In a process of its own, where importing matplotlib fails; importing flexsn.plot must not."""
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import torch, flexsn.plot as plot\n"
        "for draw in (plot.plot_1d_spikes, plot.plot_2d_heatmap, plot.plot_2d_bar_in_3d):\n"
        "    try: draw(torch.zeros(2, 2))\n"
        "    except ImportError as error: print(error)\n"
    )
    run = fresh.run(program)
    assert run.stdout == 'flexsn.plot needs matplotlib: pip install "flexsn[plot]"\n' * 3


def test_doctests() -> None:
    result = doctest.testmod(figures)
    assert result.attempted > 0 and result.failed == 0
