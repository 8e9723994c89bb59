"""What a figure shows, read back from it."""

from __future__ import annotations

from typing import Any

import numpy as np


def labels(figure: Any) -> list[tuple[str, str]]:
    figure.canvas.draw()  # a figure that cannot be laid out fails here
    return [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]


def lines(axes: Any) -> dict[str, np.ndarray]:
    return {line.get_label(): np.stack(line.get_data(), 1).astype(float) for line in axes.get_lines()}


def ticks_of(axes: Any) -> list[float]:
    """Times of the spikes drawn as vertical bars."""
    return sorted(float(path[0, 0]) for c in axes.collections for path in c.get_segments() if len(path))
