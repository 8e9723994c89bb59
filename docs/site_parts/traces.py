"""What a neuron does with a current that is switched on and off: its membrane and spikes, as a picture in the page."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
import torch
from matplotlib import pyplot
from torch import Tensor

from flexsn import FlexSN, plot

__all__ = ["trace"]

STEPS, ON, OFF = 80, 10, 60
CURRENTS = [k * 10**e for e in range(-2, 4) for k in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)]
WANTED = 8  # spikes, which show a rhythm and still stand apart
MEMBRANES = ("v", "mem", "m")
THRESHOLDS = ("v_threshold", "threshold", "v_th")


def trace(neuron: FlexSN, prefix: str, features: tuple[int, ...]) -> tuple[str, float]:
    """The picture, as SVG for the middle of a page, and the current that it took.

    Args:
        neuron: in step mode "m".
        prefix: of the names inside the picture, which must differ from those of others in the page.
        features: what its input has behind the batch.
    """
    x = torch.zeros(STEPS, len(CURRENTS), *features)
    x[ON:OFF] = torch.tensor(CURRENTS).view(-1, *(1 for _ in features))
    neuron.backend, neuron.store_state_seqs = "torch", True
    with torch.no_grad():
        out = neuron(x)
    y = _lanes(_first(out))
    states = dict(zip(neuron.state_names, neuron.state_seqs or (), strict=True))
    v = _lanes(states[next(name for name in MEMBRANES if name in states)])
    spiking = not torch.equal(y, v)
    n = _lane(y) if spiking else CURRENTS.index(1.0)
    threshold = _threshold(neuron, states, x) if spiking else None
    figure = plot.plot_one_neuron_v_s(
        v[:, n],
        y[:, n] if spiking else torch.zeros(STEPS),
        threshold if not isinstance(threshold, Tensor) else _lanes(threshold.expand_as(_first(out)))[:, n],
        None,
        title="",
        figsize=(7.0, 2.6),
    )
    figure.axes[0].set_ylabel("membrane")
    return _svg(figure, prefix), CURRENTS[n]


def _first(out: Any) -> Tensor:
    while not isinstance(out, Tensor):
        out = out[0]
    return out


def _lanes(seq: Tensor) -> Tensor:
    """``[T, B]``: of each sample the first neuron."""
    return seq.reshape(STEPS, len(CURRENTS), -1)[..., 0]


def _lane(y: Tensor) -> int:
    """The current whose number of spikes comes next to what is wanted, and is not 0; the first of several."""
    spikes = (y != 0).sum(0)
    return int((spikes - WANTED).abs().masked_fill(spikes == 0, STEPS).argmin())


def _threshold(neuron: Any, states: dict[str, Tensor], x: Tensor) -> float | Tensor | None:
    """A number, or its course over the steps where it moves."""
    moving = getattr(neuron, "firing_threshold", None)
    if moving is None:
        owners = [owner for owner in (neuron, getattr(neuron, "p", None), getattr(neuron, "lif", None)) if owner]
        found = (getattr(owner, name, None) for owner in owners for name in THRESHOLDS)
        return next((float(torch.as_tensor(value).detach()) for value in found if value is not None), None)
    starts = neuron.init_states(len(states), "m", x)
    before = [torch.cat([s.expand_as(seq[:1]), seq[:-1]]) for s, seq in zip(starts, states.values(), strict=True)]
    threshold: Tensor = moving(*before)
    return threshold


def _svg(figure: Any, prefix: str) -> str:
    """Text in the colour and font of the page, no background, names of its own."""
    figure.set_layout_engine(None)  # which would draw everything twice
    figure.subplots_adjust(left=0.105, right=0.86, bottom=0.17, top=0.97)
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    drawn = file.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{prefix}-", drawn)
    drawn = re.sub(r"font: (\d+)px[^;\"]*", r"font-size: \1px", drawn).replace("#666666", "#888888")
    drawn = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'class="trace" role="img"', drawn, count=1)
    return re.sub(r"\n\s*", "\n", drawn)
