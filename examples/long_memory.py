# %% [markdown]
# # Long memory: adaptive neurons against plain ones
#
# A cue of twenty steps drives one half of the inputs or the other. Then nothing but noise for 400 steps, and then a
# question, the same for both cues: which half was it? A leaky membrane forgets within a few time constants. A threshold
# that rises with each spike and sinks slowly remembers: whom the cue drove answers the question with fewer spikes.
#
#     python examples/long_memory.py

# %%
from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm import trange

from flexsn import neurons, plot

INPUTS, HIDDEN, CUE, DELAY, QUESTION = 20, 64, 20, 400, 60


# %% [markdown]
# One sequence has 480 steps. The loop over them is inside the kernel, so a training step takes milliseconds.


# %%
def sequences(count: int) -> tuple[Tensor, Tensor]:
    """Spikes ``[T, count, 20]``, and which half of the inputs the cue drove."""
    halves = torch.randint(0, 2, (count,))
    rates = torch.full((CUE + DELAY + QUESTION, count, INPUTS), 0.01)
    first = torch.arange(INPUTS) < INPUTS // 2
    rates[:CUE] += torch.where(first == (halves[:, None] == 0), 0.5, 0.0)
    rates[-QUESTION:] += 0.25
    return torch.bernoulli(rates), halves


class Network(nn.Module):
    """One layer of neurons; the answer is read from the spikes during the question."""

    def __init__(self, neuron: neurons.Neuron) -> None:
        super().__init__()
        self.expand, self.neuron, self.read = nn.Linear(INPUTS, HIDDEN), neuron, nn.Linear(HIDDEN, 2)
        nn.init.normal_(self.expand.weight, std=4.0)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``[B, 2]``."""
        self.neuron.reset()
        spikes = self.neuron(self.expand(x))
        scores: Tensor = self.read(10.0 * spikes[-QUESTION:].mean(0))
        return scores


def train(network: Network, steps: int = 100, progress: bool = True) -> list[float]:
    """Train on new sequences all the time; the accuracy of every step."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    accuracies = []
    bar = trange(steps, desc=type(network.neuron).__name__, disable=not progress)
    for _ in bar:
        x, halves = sequences(64)
        scores = network(x)
        optimizer.zero_grad()
        nn.functional.cross_entropy(scores, halves).backward()
        optimizer.step()
        accuracies.append((scores.argmax(-1) == halves).float().mean().item())
        bar.set_postfix(accuracy=f"{sum(accuracies[-20:]) / len(accuracies[-20:]):.0%}")
    return accuracies


# %%
if __name__ == "__main__":
    torch.manual_seed(0)
    plain = train(Network(neurons.LIF(tau=10.0, step_mode="m")))
    network = Network(neurons.ALIF(tau=10.0, tau_adapt=400.0, beta=150.0, step_mode="m"))
    adaptive = train(network)
    for name, accuracies in (("plain", plain), ("adaptive", adaptive)):
        print(f"{name:>9}: {sum(accuracies[-20:]) / 20:.0%} right at the end of training, {DELAY} steps after the cue")

# %% [markdown]
# What the adaptive neurons do with one sequence: many spikes at the cue, few in between, and at the question more or
# fewer, by what the cue has left behind.

# %%
if __name__ == "__main__":
    x, _ = sequences(1)
    network.neuron.reset()
    spikes = network.neuron(network.expand(x))[:, 0].detach()
    figure = plot.plot_1d_spikes(spikes, "Spikes of the adaptive layer", dpi=80)
