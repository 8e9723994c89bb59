"""JapaneseVowels: who of nine speakers says "ae"? 12 channels, 7 to 29 steps, with and without recurrence.

python examples/vowels.py

The data (Kudo, Toyama & Shimbo, 1999) is one file of the aeon package, whose wheel is downloaded once.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import trange

from flexsn import Recurrent
from flexsn.neurons import AdLIF, NonSpikingLIF

CHANNELS, SPEAKERS = 12, 9
CACHE = Path.home() / ".cache" / "flexsn" / "vowels"
FILES = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_{}.ts"

Samples = tuple[Tensor, Tensor, Tensor]
"""Sequences ``[T, B, 12]`` with zeros behind their ends, their lengths ``[B]``, the speakers ``[B]``."""


class Network(nn.Module):
    """A layer of adaptive neurons, fed its own spikes or not, and a leaky readout per speaker.

    Args:
        hidden: neurons of the layer.
        recurrent: whether they are connected.
    """

    def __init__(self, hidden: int, recurrent: bool) -> None:
        super().__init__()
        self.expand = nn.Linear(CHANNELS, hidden)
        neuron = AdLIF(alpha=0.8, beta=0.95, a=0.1, b=0.5, step_mode="m")
        self.layer = Recurrent(neuron, nn.Linear(hidden, hidden, bias=False), autapses=False) if recurrent else neuron
        self.collect = nn.Linear(hidden, SPEAKERS)
        self.readout = NonSpikingLIF(tau=10.0, step_mode="m", time_reduction="mean")
        nn.init.normal_(self.expand.weight, std=2.0)
        if recurrent:
            nn.init.normal_(self.layer.connection.weight, std=0.5 / hidden**0.5)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Scores ``[B, 9]``, of every sample's own steps."""
        self.layer.reset()
        self.readout.reset()
        spikes = self.layer(self.expand(x), lengths=lengths)
        return 20.0 * self.readout(self.collect(spikes), lengths=lengths)


def train(network: Network, samples: Samples, epochs: int, batch: int = 64) -> float:
    """Train; returns the last epoch's mean loss."""
    x, lengths, speakers = samples
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    total = 0.0
    for _ in trange(epochs, desc="epochs"):
        total = 0.0
        for chosen in torch.randperm(len(speakers)).split(batch):
            loss = nn.functional.cross_entropy(network(x[:, chosen], lengths[chosen]), speakers[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(chosen) / len(speakers)
    return total


@torch.no_grad()
def accuracy(network: Network, samples: Samples) -> float:
    x, lengths, speakers = samples
    return (network(x, lengths).argmax(-1) == speakers).float().mean().item()


def load(part: str) -> Samples:
    """The samples of ``"TRAIN"`` or ``"TEST"``."""
    path = CACHE / Path(FILES.format(part)).name
    if not path.exists():
        _download()
    return parse(path.read_text())


def parse(text: str) -> Samples:
    """Read aeon's format: a line per sample, its channels between colons, its speaker last."""
    lines = [line for line in text.partition("@data")[2].splitlines() if line]
    rows = [line.split(":") for line in lines]
    series = [torch.tensor([[float(v) for v in channel.split(",")] for channel in row[:-1]]).T for row in rows]
    lengths = torch.tensor([len(s) for s in series])
    return nn.utils.rnn.pad_sequence(series), lengths, torch.tensor([int(row[-1]) - 1 for row in rows])


def _download() -> None:
    with tempfile.TemporaryDirectory() as folder:
        get = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-d", folder, "aeon"]
        subprocess.run(get, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        CACHE.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            for part in ("TRAIN", "TEST"):
                name = FILES.format(part)
                (CACHE / Path(name).name).write_bytes(archive.read(name))


if __name__ == "__main__":
    training, test = load("TRAIN"), load("TEST")
    for recurrent in (False, True):
        torch.manual_seed(0)
        network = Network(hidden=128, recurrent=recurrent)
        train(network, training, epochs=60)
        kind = "recurrent" if recurrent else "feedforward"
        print(f"{kind:>11}: {accuracy(network, test):.1%} of {len(test[2])} test samples")
