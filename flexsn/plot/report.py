"""The one-page report about a neuron."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from flexsn.plot.parts import (
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    TIME,
    Array,
    as_array,
    draw_membrane,
    draw_raster,
    draw_spike_ticks,
    integer_ticks,
    pyplot,
    span_time,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["neuron_report"]


@styled
def neuron_report(
    neuron: Any,
    x_seq: Tensor | tuple[Tensor, ...],
    lanes: int | Sequence[int] = 3,
    v_threshold: float | Tensor | None = None,
    title: str | None = None,
    dpi: int = 150,
) -> Figure:
    """One page about a neuron: input, states, threshold and spikes of some lanes, spikes of all.

    The neuron runs ``x_seq`` from rest, without gradients. Afterwards it is as it was before: states,
    stored sequences and options.

    Args:
        neuron: a FlexSN, or anything with ``state_names``, ``store_state_seqs``, ``state_seqs``, ``reset()``.
        x_seq: its input, ``[T, ...]`` (time where the neuron's ``time_dim`` says), or a tuple of inputs.
        lanes: which neurons to show: their numbers in the flattened step shape, or how many, evenly spread.
        v_threshold: a number, or a tensor that broadcasts against ``[T, *step]``. Default is what the neuron
            says: ``firing_threshold(*states)``, of the states that a step starts from, if it has such a method;
            else its ``v_threshold``; no line if it has neither.
        title: of the page; default is the neuron's class.
        dpi: dots per inch.

    Raises:
        ImportError: no matplotlib.
        ValueError: a lane the neuron does not have, or no steps.

    Example:
        >>> from flexsn import FlexSN, surrogate
        >>> spike = surrogate.ATan()
        >>> def core(x, v):
        ...     h = v + (x - v) / 2.0
        ...     s = spike(h - 1.0)
        ...     return s, h * (1.0 - s)
        >>> figure = neuron_report(FlexSN(core), 3 * torch.rand(100, 16), lanes=[0, 5], v_threshold=1.0)
        >>> figure.savefig("report.png")  # doctest: +SKIP
    """
    inputs = x_seq if isinstance(x_seq, tuple) else (x_seq,)
    inputs = tuple(x.detach().movedim(getattr(neuron, "time_dim", 0), 0) for x in inputs)
    with _kept_as_it_was(neuron), torch.no_grad():
        neuron.reset()
        neuron.store_state_seqs = True
        for name, value in (("step_mode", "m"), ("time_dim", 0)):
            if hasattr(neuron, name):
                setattr(neuron, name, value)
        if hasattr(neuron, "record"):
            neuron.record()  # no longer: what is recorded stays
        outputs = neuron(*inputs)
        y_seq = outputs[0] if isinstance(outputs, tuple) else outputs
        state_seqs = dict(zip(neuron.state_names, neuron.state_seqs, strict=True))
        if v_threshold is None:
            v_threshold = _own_threshold(neuron, inputs)
    T, step = y_seq.shape[0], tuple(y_seq.shape[1:])
    if not y_seq.numel():
        raise ValueError(f"nothing to report on: the output has shape {tuple(y_seq.shape)}")

    def flat(seq: Tensor) -> Array:
        return as_array(torch.broadcast_to(seq, (T, *step)).reshape(T, -1), "sequence", 2)

    chosen = _choose_lanes(lanes, y_seq[0].numel())
    threshold = None if v_threshold is None else flat(torch.as_tensor(v_threshold, dtype=torch.float64))
    y, xs = flat(y_seq), [flat(x) for x in inputs]
    states = {name: flat(seq) for name, seq in state_seqs.items()}
    spiking = np.array_equal(y, y.astype(bool))
    page = _Page(T, len(chosen), list(states), spiking, dpi)
    for column, lane in enumerate(chosen):
        index = [int(i) for i in np.unravel_index(lane, step)] if len(step) > 1 else lane
        page.lane(
            column,
            f"neuron {index}",
            [x[:, lane] for x in xs],
            {name: seq[:, lane] for name, seq in states.items()},
            None if threshold is None else threshold[:, lane],
            y[:, lane],
        )
    page.everyone(y)
    mean = f"{y.mean():.3g} spikes / step / neuron" if spiking else f"mean output {y.mean():.3g}"
    page.figure.suptitle(f"{title or type(neuron).__name__}: {y.shape[1]} neurons, {T} steps, {mean}")
    return page.figure


def _own_threshold(neuron: Any, inputs: tuple[Tensor, ...]) -> float | Tensor | None:
    """The threshold of each step of the call that ``neuron`` has just run from rest."""
    moving = getattr(neuron, "firing_threshold", None)
    if moving is None:
        constant: float | Tensor | None = getattr(neuron, "v_threshold", None)
        return constant
    starts = neuron.init_states(len(neuron.state_names), "m", *inputs)
    before = [torch.cat([s.expand_as(seq[:1]), seq[:-1]]) for s, seq in zip(starts, neuron.state_seqs, strict=True)]
    threshold: Tensor = moving(*before)
    return threshold


@contextmanager
def _kept_as_it_was(neuron: Any) -> Iterator[None]:
    modules = list(neuron.modules()) if isinstance(neuron, nn.Module) else [neuron]
    before = [(module, dict(vars(module)), dict(vars(module).get("_buffers", {}))) for module in modules]
    try:
        for module in modules:
            if "_flexsn" in vars(module):  # a call writes into it
                vars(module)["_flexsn"] = copy.copy(vars(module)["_flexsn"])
        yield
    finally:
        for module, attributes, buffers in before:
            vars(module).clear()
            vars(module).update(attributes)
            if buffers:
                module._buffers.update(buffers)


def _choose_lanes(lanes: int | Sequence[int], N: int) -> list[int]:
    if isinstance(lanes, int):
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1, or a list of lanes; got {lanes}")
        return [int(lane) for lane in np.linspace(0, N - 1, min(lanes, N)).round()]
    chosen = [int(lane) for lane in lanes]
    if not chosen or min(chosen) < 0 or max(chosen) >= N:
        raise ValueError(f"lanes must be numbers in [0, {N}), got {chosen}")
    return chosen


class _Page:
    """The sheet of a report: a column for each chosen lane, below them a raster of all."""

    def __init__(self, T: int, columns: int, state_names: list[str], spiking: bool, dpi: int) -> None:
        self.T, self.spiking = T, spiking
        likely = ("v", "mem", "m", "u", *state_names)
        self.membrane = next((name for name in likely if name in state_names), None)
        self.others = [name for name in state_names if name != self.membrane]
        heights = [1.2, *[2.2] * bool(self.membrane), *[1.2] * len(self.others), 0.4 if spiking else 1.2]
        size = (max(6.0, 3.3 * columns), sum(heights) * 0.95 + 3.0)
        self.figure: Figure = pyplot().figure(figsize=size, dpi=dpi)
        top, bottom = self.figure.subfigures(2, 1, height_ratios=[sum(heights) * 0.95 + 0.4, 2.2])
        self.top: Array = top.subplots(
            len(heights), columns, sharex=True, sharey="row", squeeze=False, height_ratios=heights
        )
        self.bottom: Axes = bottom.subplots()

    def lane(
        self,
        column: int,
        title: str,
        inputs: list[Array],
        states: dict[str, Array],
        threshold: Array | None,
        y: Array,
    ) -> None:
        rows = iter(self.top[:, column])
        first = column == 0
        t = np.arange(self.T)
        axes = next(rows)
        axes.set_title(title)
        for k, x in enumerate(inputs):
            axes.step(t, x, where="mid", color=(GREY, ORANGE, GREEN)[k % 3], lw=0.9, label=f"input {k}")
        self._label(axes, "input x (a.u.)", first)
        if len(inputs) > 1 and first:
            axes.legend()
        fired = np.flatnonzero(y) if self.spiking else np.empty(0, int)
        if self.membrane is not None:
            axes = next(rows)
            draw_membrane(axes, states[self.membrane], threshold, fired, self.membrane)
            self._label(axes, f"membrane {self.membrane} (a.u.)", first)
            if first and threshold is not None:
                axes.legend(loc="lower left", bbox_to_anchor=(0.0, 0.98), ncols=3, borderaxespad=0.0)
        for k, name in enumerate(self.others):
            axes = next(rows)
            axes.plot(t, states[name], color=(PURPLE, GREEN, ORANGE)[k % 3])
            self._label(axes, f"state {name} (a.u.)", first)
        axes = next(rows)
        if self.spiking:
            draw_spike_ticks(axes, fired, self.T, labelled=first)
        else:
            axes.plot(t, y, color=ORANGE)
            self._label(axes, "output y (a.u.)", first)
        span_time(axes, self.T)
        axes.set_xlabel(TIME)

    def everyone(self, y: Array) -> None:
        if self.spiking:
            draw_raster(self.bottom, y)
        else:
            image = self.bottom.imshow(y.T, aspect="auto", interpolation="nearest", cmap="viridis")
            self.bottom.figure.colorbar(image, ax=self.bottom, label="output y (a.u.)", pad=0.02)
            integer_ticks(self.bottom.yaxis)
            span_time(self.bottom, self.T)
        self.bottom.set(title="all neurons", xlabel=TIME, ylabel="neuron")

    @staticmethod
    def _label(axes: Axes, text: str, first: bool) -> None:
        if first:
            axes.set_ylabel(text)
