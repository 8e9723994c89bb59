"""Single figures: one neuron's membrane, heat maps, rasters, bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flexsn.plot.parts import (
    BLUE,
    GREEN,
    MEMBRANE,
    TIME,
    ArrayLike,
    as_array,
    draw_membrane,
    draw_raster,
    draw_spike_ticks,
    integer_ticks,
    pyplot,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_1d_spikes", "plot_2d_bar_in_3d", "plot_2d_heatmap", "plot_one_neuron_v_s"]


@styled
def plot_one_neuron_v_s(
    v: ArrayLike,
    s: ArrayLike,
    v_threshold: float | ArrayLike | None = 1.0,
    v_reset: float | None = 0.0,
    title: str = "Membrane potential and spikes of one neuron",
    figsize: tuple[float, float] = (8.0, 4.0),
    dpi: int = 150,
) -> Figure:
    """Membrane potential of one neuron over time, above its spikes.

    Args:
        v: membrane potential ``[T]``.
        s: spikes ``[T]``; what is not zero is a spike.
        v_threshold: a number, or ``[T]`` where it moves; ``None`` draws no line.
        v_reset: where a hard reset goes; ``None`` (soft reset) draws no line.
        title: of the figure.
        figsize: inches.
        dpi: dots per inch.

    Raises:
        ImportError: no matplotlib.
        ValueError: shapes other than these.

    Example:
        >>> import torch
        >>> figure = plot_one_neuron_v_s(torch.tensor([0.4, 0.8, 0.0]), torch.tensor([0.0, 0.0, 1.0]))
        >>> figure.savefig("one_neuron.png")  # doctest: +SKIP
    """
    v, s = as_array(v, "v", 1), as_array(s, "s", 1)
    if v.shape != s.shape:
        raise ValueError(f"v and s must have the same number of steps, got {len(v)} and {len(s)}")
    threshold = None if v_threshold is None else as_array(v_threshold, "v_threshold", np.ndim(v_threshold) and 1)
    if threshold is not None and threshold.shape not in ((), v.shape):
        raise ValueError(f"v_threshold must be a number or [T] = {v.shape}, got shape {threshold.shape}")
    figure, (above, below) = pyplot().subplots(2, 1, sharex=True, figsize=figsize, dpi=dpi, height_ratios=[6, 1])
    fired = np.flatnonzero(s)
    draw_membrane(above, v, threshold, fired)
    if v_reset is not None:
        above.axhline(v_reset, color=GREEN, ls=":", lw=1.1, label="reset")
    above.set_ylabel(MEMBRANE)
    above.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    draw_spike_ticks(below, fired, len(s))
    below.set_xlabel(TIME)
    figure.suptitle(title)
    return figure  # type: ignore[no-any-return]


@styled
def plot_2d_heatmap(
    array: ArrayLike,
    title: str = "Membrane potentials",
    xlabel: str = TIME,
    ylabel: str = "neuron",
    int_x_ticks: bool = True,
    int_y_ticks: bool = True,
    plot_colorbar: bool = True,
    colorbar_y_label: str = MEMBRANE,
    x_max: float | None = None,
    figsize: tuple[float, float] = (8.0, 4.0),
    dpi: int = 150,
) -> Figure:
    """A quantity of many neurons over time, as colours.

    Args:
        array: ``[T, N]``.
        title: of the figure.
        xlabel: of the time axis.
        ylabel: of the neuron axis.
        int_x_ticks: only whole numbers on the time axis.
        int_y_ticks: only whole numbers on the neuron axis.
        plot_colorbar: draw the colour scale.
        colorbar_y_label: what the colours mean, with unit.
        x_max: the time of the last step, where time is not counted in steps.
        figsize: inches.
        dpi: dots per inch.

    Raises:
        ImportError: no matplotlib.
        ValueError: another shape.

    Example:
        >>> import torch
        >>> plot_2d_heatmap(torch.rand(50, 20)).axes[0].get_xlabel()
        'time (steps)'
    """
    array = as_array(array, "array", 2)
    figure, axes = pyplot().subplots(figsize=figsize, dpi=dpi)
    T, N = array.shape
    # Steps are cells centred on their number, so the axis starts half a cell before 0.
    step = 1.0 if x_max is None else x_max / max(T - 1, 1)
    image = axes.imshow(
        array.T,
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        extent=(-step / 2, (T - 0.5) * step, N - 0.5, -0.5),
    )
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.spines[:].set_visible(False)
    integer_ticks(axes.xaxis, int_x_ticks)
    integer_ticks(axes.yaxis, int_y_ticks)
    if plot_colorbar:
        bar = figure.colorbar(image, ax=axes, pad=0.02)
        bar.set_label(colorbar_y_label)
        bar.outline.set_visible(False)
    return figure  # type: ignore[no-any-return]


@styled
def plot_1d_spikes(
    spikes: ArrayLike,
    title: str = "Spikes",
    xlabel: str = TIME,
    ylabel: str = "neuron",
    int_x_ticks: bool = True,
    int_y_ticks: bool = True,
    plot_firing_rate: bool = True,
    firing_rate_map_title: str = "firing rate\n(spikes / step)",
    figsize: tuple[float, float] = (8.0, 4.0),
    dpi: int = 150,
) -> Figure:
    """A raster: one row a neuron, one tick a spike; beside it each neuron's firing rate.

    Args:
        spikes: ``[T, N]``; what is not zero is a spike.
        title: of the raster.
        xlabel: of the time axis.
        ylabel: of the neuron axis.
        int_x_ticks: only whole numbers on the time axis.
        int_y_ticks: only whole numbers on the neuron axis.
        plot_firing_rate: draw the rates, the mean of ``spikes`` over time.
        firing_rate_map_title: label of the rate axis.
        figsize: inches.
        dpi: dots per inch.

    Raises:
        ImportError: no matplotlib.
        ValueError: another shape.

    Example:
        >>> import torch
        >>> figure = plot_1d_spikes(torch.rand(100, 8) < 0.2)
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['time (steps)', 'firing rate\\n(spikes / step)']
    """
    spikes = as_array(spikes, "spikes", 2)
    plt = pyplot()
    if plot_firing_rate:
        figure, (axes, rates) = plt.subplots(1, 2, sharey=True, figsize=figsize, dpi=dpi, width_ratios=[5, 1])
        rates.barh(np.arange(spikes.shape[1]), spikes.mean(0), height=0.8, color=BLUE)
        rates.set_xlabel(firing_rate_map_title)
        rates.set_xlim(left=min(0.0, rates.get_xlim()[0]))
        rates.tick_params(left=False)
    else:
        figure, axes = plt.subplots(figsize=figsize, dpi=dpi)
    draw_raster(axes, spikes)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    integer_ticks(axes.xaxis, int_x_ticks)
    integer_ticks(axes.yaxis, int_y_ticks)
    return figure  # type: ignore[no-any-return]


@styled
def plot_2d_bar_in_3d(
    array: ArrayLike,
    title: str = "Firing rates",
    xlabel: str = "neuron",
    ylabel: str = TIME,
    zlabel: str = "firing rate (spikes / step)",
    int_x_ticks: bool = True,
    int_y_ticks: bool = True,
    int_z_ticks: bool = False,
    dpi: int = 150,
) -> Figure:
    """A matrix as rows of bars in space.

    Args:
        array: ``[T, N]``: bars along y for the first axis, one row of bars along x for each of the second.
        title: of the figure.
        xlabel: what the rows are.
        ylabel: what the bars of a row are.
        zlabel: what the height means, with unit.
        int_x_ticks: only whole numbers along x.
        int_y_ticks: only whole numbers along y.
        int_z_ticks: only whole numbers for the height.
        dpi: dots per inch.

    Raises:
        ImportError: no matplotlib.
        ValueError: another shape.

    Example:
        >>> import torch
        >>> plot_2d_bar_in_3d(torch.rand(10, 5)).axes[0].get_zlabel()
        'firing rate (spikes / step)'
    """
    array = as_array(array, "array", 2)
    # The layout engine does not see 3D axis labels and would cut the height's.
    figure = pyplot().figure(figsize=(6.5, 5.0), dpi=dpi, layout="none")
    axes: Any = figure.add_axes((0.0, 0.02, 0.92, 0.92), projection="3d")
    colours = pyplot().get_cmap("viridis")(np.linspace(0.1, 0.9, array.shape[1]))
    for n in reversed(range(array.shape[1])):
        axes.bar(np.arange(array.shape[0]), array[:, n], n, zdir="x", color=colours[n], alpha=0.85, width=0.8)
    axes.set(xlabel=xlabel, ylabel=ylabel, zlabel=zlabel)
    figure.suptitle(title)
    for axis, wanted in ((axes.xaxis, int_x_ticks), (axes.yaxis, int_y_ticks), (axes.zaxis, int_z_ticks)):
        integer_ticks(axis, wanted)
    return figure  # type: ignore[no-any-return]
