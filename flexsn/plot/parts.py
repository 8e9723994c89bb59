"""What the plots are made of: style, arrays from anything, and the marks drawn on an axes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

ArrayLike: TypeAlias = np.ndarray[Any, Any] | Tensor
Array: TypeAlias = np.ndarray[Any, Any]
P = ParamSpec("P")

# Colours that stay apart for colour-blind readers and in grey (Okabe & Ito).
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "figure.titlesize": "large",
    "axes.edgecolor": GREY,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "legend.frameon": False,
    "legend.fontsize": "small",
    "lines.linewidth": 1.4,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
}
TIME = "time (steps)"
MEMBRANE = "membrane potential (a.u.)"


def pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('flexsn.plot needs matplotlib: pip install "flexsn[plot]"') from error
    return plt


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with pyplot().rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def as_array(value: ArrayLike | Any, name: str, ndim: int) -> Array:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    array = np.asarray(value)
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), got shape {array.shape}")
    return array.astype(float)


def integer_ticks(axis: Axis, wanted: bool = True) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=7, integer=wanted, steps=[1, 2, 5, 10]))


def span_time(axes: Axes, T: int) -> None:
    axes.set_xlim(-0.5, max(T, 1) - 0.5)
    integer_ticks(axes.xaxis)


def draw_membrane(axes: Axes, v: Array, threshold: Array | None, fired: Array, label: str = "v") -> None:
    t = np.arange(len(v))
    axes.plot(t, v, color=BLUE, label=label)
    if threshold is not None:
        line = np.broadcast_to(threshold, v.shape)
        axes.plot(t, line, color=RED, ls="--", lw=1.1, label="threshold")
        axes.plot(fired, line[fired], ls="none", marker="v", ms=5, color=ORANGE, label="spike")
    span_time(axes, len(v))


def draw_spike_ticks(axes: Axes, fired: Array, T: int, labelled: bool = True) -> None:
    axes.eventplot(fired, colors=ORANGE, lineoffsets=0, linelengths=0.8, linewidths=1.4)
    axes.set_yticks([])
    axes.set_ylim(-0.6, 0.6)
    axes.set_ylabel("spikes" if labelled else "", rotation=0, ha="right", va="center")
    axes.spines["left"].set_visible(False)
    span_time(axes, T)


def draw_raster(axes: Axes, spikes: Array) -> None:
    T, N = spikes.shape
    t, n = np.nonzero(spikes)
    axes.vlines(t, n - 0.4, n + 0.4, lw=0.9, colors=BLUE)
    axes.set_ylim(N - 0.5, -0.5)
    integer_ticks(axes.yaxis)
    span_time(axes, T)
