"""The picture the demo leaves behind: a digit, what three neurons make of it, and the accuracy."""

from __future__ import annotations

from typing import Any

import matplotlib
import torch
from torch import Tensor

from flexsn.demo.network import AdaptiveLIF, Digits, DigitsNet

__all__ = ["draw"]

STEPS = 40  # far more than in training: T is a run-time value of the kernel
BLUE, RED, GREY = "#2a6fbb", "#d1495b", "#8d99ae"


@torch.no_grad()
def record(net: DigitsNet, image: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """``(membrane before the reset, threshold, spikes)`` of both layers, ``[STEPS, C, 8, 8]`` each."""
    net.eval()
    for neuron in net.neurons:
        neuron.store_state_seqs = True
    layers = net.layers(image, STEPS)
    traces = [membrane(neuron, x, s) for neuron, (x, s) in zip(net.neurons, layers, strict=True)]
    for neuron in net.neurons:
        neuron.store_state_seqs = False
    return traces


def membrane(neuron: AdaptiveLIF, x: Tensor, spikes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    assert neuron.state_seqs is not None
    # what step t starts from is what step t - 1 left
    v, a = (torch.cat([torch.zeros_like(seq[:1]), seq[:-1]]) for seq in neuron.state_seqs)
    h, threshold = neuron.charge(x, v), 1.0 + a
    return h[:, 0].cpu(), threshold[:, 0].cpu(), spikes[:, 0].cpu()


def lane_of(traces: tuple[Tensor, Tensor, Tensor], rate: float) -> tuple[int, int, int]:
    """The lane ``(c, y, x)`` whose firing rate is nearest to ``rate``, its input moving as little as can be."""
    h, _, spikes = traces
    score = (spikes.mean(0) - rate).abs() + 0.02 * h.std(0)
    c, y, x = (int(i) for i in torch.unravel_index(score.argmin(), score.shape))
    return c, y, x


def draw(net: DigitsNet, data: Digits, history: list[float], path: str) -> None:
    """Write the picture to ``path``."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    image = data.test_images[:1]
    traces = record(net, image)
    with torch.no_grad():
        answer = int(net(image).argmax())
    with plt.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 10}):
        figure = plt.figure(figsize=(11, 6), layout="constrained")
        grid = figure.add_gridspec(6, 2, width_ratios=(1, 2.2))
        draw_digit(figure.add_subplot(grid[0:3, 0]), image[0, 0], answer, int(data.test_labels[0]))
        draw_accuracy(figure.add_subplot(grid[3:6, 0]), history)
        axes = [figure.add_subplot(grid[2 * row : 2 * row + 2, 1]) for row in range(3)]
        for axis, (layer, rate) in zip(axes, [(0, 0.1), (0, 0.3), (1, 0.25)], strict=True):
            c, y, x = lane_of(traces[layer], rate)
            h, threshold, spikes = (trace[:, c, y, x] for trace in traces[layer])
            draw_neuron(axis, h, threshold, spikes)
            axis.set_title(f"layer {layer + 1}, channel {c}, row {y}, column {x}", loc="left", fontsize=10)
        axes[0].legend(loc="lower right", ncols=3, frameon=False, fontsize=9, bbox_to_anchor=(1.0, 0.98))
        axes[-1].set_xlabel("time step")
        figure.savefig(path, dpi=130)
        plt.close(figure)


def draw_digit(axis: Any, image: Tensor, answer: int, truth: int) -> None:
    axis.imshow(image.cpu().numpy(), cmap="gray_r", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(visible=True, color=GREY)
    axis.set_title(f"a held-out {truth}, read as {answer}", fontsize=10)


def draw_accuracy(axis: Any, history: list[float]) -> None:
    percent = [100 * a for a in history]
    axis.plot(range(1, len(percent) + 1), percent, "o-", color=BLUE, markersize=4)
    if len(percent) > 2:
        axis.set_ylim(min(percent[1:]) - 3, 100.5)  # the first epoch is at chance and would flatten the rest
    axis.set(xlabel="epoch", ylabel="held-out accuracy, %")
    axis.set_title(f"{percent[-1]:.1f} % of the held-out digits read correctly", fontsize=10)
    axis.grid(alpha=0.25)


def draw_neuron(axis: Any, h: Tensor, threshold: Tensor, spikes: Tensor) -> None:
    steps = torch.arange(1, len(h) + 1)
    fired = steps[spikes > 0]
    after = h * (1 - spikes)  # two points a step: charged, then reset
    path = torch.stack([h, after], 1).flatten()
    axis.plot(steps.repeat_interleave(2).numpy(), path.numpy(), color=BLUE, label="membrane")
    axis.step(steps.numpy(), threshold.numpy(), "--", where="mid", color=GREY, label="threshold")
    top = 1.12 * max(float(h.max()), float(threshold.max()))
    axis.vlines(fired.numpy(), top, 1.15 * top, color=RED, linewidth=2, label="spike")
    axis.axhline(0.0, color=GREY, linewidth=0.5)
    axis.set_xlim(0.5, len(h) + 0.5)
