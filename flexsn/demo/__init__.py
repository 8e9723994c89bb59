"""The demo: a convolutional spiking network, with a neuron of its own, learns to read handwritten digits.

``python -m flexsn demo`` (or ``make demo``). Read it top to bottom: the neuron, the network, the training,
then what was gained, and a picture. The digits (UCI, 8 x 8, 1,797 of them) ship inside scikit-learn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flexsn import surrogate
from flexsn.errors import BackendError
from flexsn.modules.flexsn import FlexSN

__all__ = ["AdaptiveLIF", "Digits", "DigitsNet", "main"]

T = 6  # time steps per digit
spike = surrogate.ATan(alpha=2.0)


# ---- the neuron -----------------------------------------------------------------------------------------------


class AdaptiveLIF(FlexSN):
    """A leaky neuron whose threshold rises with every spike; both time constants are learned per channel.

    The core is one step on tensors of any shape. Its parameters, of shape ``(C, 1, 1)``, broadcast against
    the step ``[B, C, H, W]``; flexsn finds them by tracing and the kernel reads them in place.
    """

    def __init__(self, channels: int, **options: Any) -> None:
        super().__init__(**options)
        self.leak = nn.Parameter(torch.zeros(channels, 1, 1))
        self.memory = nn.Parameter(torch.ones(channels, 1, 1))

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        return v + (x - v) * torch.sigmoid(self.leak)

    def core(self, x: Tensor, v: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.charge(x, v)
        s = spike(h - (1.0 + a))  # fire above a moving threshold
        return s, h * (1.0 - s), a * torch.sigmoid(self.memory) + 0.2 * s


# ---- the network ----------------------------------------------------------------------------------------------


class DigitsNet(nn.Module):
    """Two convolutions, each followed by spiking neurons; the answer is read from the firing rates."""

    def __init__(self, backend: str = "auto") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(32)
        self.neuron1 = AdaptiveLIF(32, backend=backend)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(64)
        self.neuron2 = AdaptiveLIF(64, backend=backend)
        self.head = nn.Linear(64 * 4 * 4, 10)

    @property
    def neurons(self) -> tuple[AdaptiveLIF, AdaptiveLIF]:
        return self.neuron1, self.neuron2

    def use(self, backend: str) -> None:
        """Let ``backend`` run the neurons."""
        for neuron in self.neurons:
            neuron.backend = backend

    def layers(self, images: Tensor, steps: int = T) -> list[tuple[Tensor, Tensor]]:
        """``(input, spikes)`` of both spiking layers, ``[T, B, C, 8, 8]`` each, for images ``[B, 1, 8, 8]``."""
        for neuron in self.neurons:
            neuron.reset()  # every batch starts from rest
        x1 = self.norm1(self.conv1(images)).expand(steps, -1, -1, -1, -1)  # the same image at every step
        s1 = self.neuron1(x1)
        x2 = self.norm2(self.conv2(s1.flatten(0, 1))).unflatten(0, (steps, -1))
        s2 = self.neuron2(x2)
        return [(x1, s1), (x2, s2)]

    def forward(self, images: Tensor, steps: int = T) -> Tensor:
        """Class scores ``[B, 10]``."""
        _, spikes = self.layers(images, steps)[-1]
        scores: Tensor = self.head(F.avg_pool2d(spikes.mean(0), 2).flatten(1))
        return scores


# ---- the data and the training --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """Images ``[N, 1, 8, 8]`` in [0, 1] and labels; a quarter is held out, a fixed, class-balanced quarter."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @classmethod
    def load(cls, device: torch.device) -> Digits:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        raw = load_digits()
        parts = train_test_split(raw.images / 16.0, raw.target, test_size=0.25, stratify=raw.target, random_state=0)
        train_images, test_images = (torch.tensor(p, dtype=torch.float32, device=device) for p in parts[:2])
        train_labels, test_labels = (torch.tensor(p, device=device) for p in parts[2:])
        return cls(train_images.unsqueeze(1), train_labels, test_images.unsqueeze(1), test_labels)


class Trainer:
    """The network, its optimizer and one training step."""

    def __init__(self, net: DigitsNet, data: Digits, epochs: int, batch: int = 64) -> None:
        self.net, self.data, self.epochs, self.batch = net, data, epochs, batch
        self.optimizer = torch.optim.AdamW(net.parameters(), 5e-3, weight_decay=1e-2)
        self.batches = -(-len(data.train_labels) // batch)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, 5e-3, total_steps=max(1, epochs * self.batches)
        )

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Forward, backward, update; the loss."""
        self.net.train()
        loss = F.cross_entropy(self.net(images), labels, label_smoothing=0.1)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.item())

    @torch.no_grad()
    def accuracy(self) -> float:
        """Share of the held-out digits read correctly."""
        self.net.eval()
        right: Tensor = self.net(self.data.test_images).argmax(1) == self.data.test_labels
        return float(right.float().mean().item())

    def fit(self) -> list[float]:
        """Train; the held-out accuracy after every epoch (watched, never used to choose)."""
        from tqdm import tqdm

        history: list[float] = []
        labels = self.data.train_labels
        every = 0.1 if sys.stderr.isatty() else 5.0  # a log file wants a line now and then
        with tqdm(total=self.epochs * self.batches, unit="step", desc="training", mininterval=every) as bar:
            for epoch in range(1, self.epochs + 1):
                order = torch.randperm(len(labels)).to(labels.device)
                for first in range(0, len(labels), self.batch):
                    chosen = order[first : first + self.batch]
                    loss = self.step(self.data.train_images[chosen], labels[chosen])
                    self.schedule.step()
                    bar.update()
                history.append(self.accuracy())
                bar.set_postfix(epoch=epoch, loss=f"{loss:.3f}", held_out=f"{history[-1]:.2%}", refresh=False)
        return history


# ---- what was gained ------------------------------------------------------------------------------------------


def median_times(net: DigitsNet, backends: Sequence[str], job: Callable[[], object], rounds: int = 15) -> list[float]:
    """Median time of the same job on each backend, in milliseconds, taken in turns."""
    times: dict[str, list[float]] = {backend: [] for backend in backends}
    for number in range(rounds + 2):
        for backend in backends:
            net.use(backend)
            start = time.perf_counter()
            job()
            if number >= 2:  # the first rounds compile and warm up
                times[backend].append(1e3 * (time.perf_counter() - start))
    return [statistics.median(taken) for taken in times.values()]


def neurons_alone(net: DigitsNet, images: Tensor) -> Callable[[], None]:
    """Forward and backward through both spiking layers, on the inputs they get, without the rest of the network."""
    with torch.no_grad():
        inputs = [x for x, _ in net.layers(images)]

    def job() -> None:
        for neuron, x in zip(net.neurons, inputs, strict=True):
            neuron.reset()
            loss = neuron(x.detach().requires_grad_()).sum()
            loss.backward()
        loss.item()  # waits for the device

    return job


def compare(trainer: Trainer, fused: str) -> bool:
    """Print the step on ``fused`` and on the loop, and whether all spikes agree; ``False`` if they do not."""
    net, data, batch = trainer.net, trainer.data, trainer.batch
    images, labels = data.train_images[:batch], data.train_labels[:batch]
    learned = {name: value.clone() for name, value in net.state_dict().items()}
    chosen = net.neuron1.backend
    try:
        net.use(fused)
        with torch.no_grad():
            ours = [spikes for _, spikes in net.eval().layers(data.test_images)]
            net.use("torch")
            loop = [spikes for _, spikes in net.layers(data.test_images)]
        step = median_times(net, (fused, "torch"), lambda: trainer.step(images, labels))
        alone = median_times(net, (fused, "torch"), neurons_alone(net, images))
    except BackendError as error:
        print(f"\nno fused kernel here, all of this ran as the loop: {error}")
        return True
    finally:
        net.use(chosen)
        net.load_state_dict(learned)  # timing trained it on
        trainer.optimizer.zero_grad()
    print(f"\nmedian times, batch {batch}, T = {T}       {fused:>8}     loop")
    for what, (fast, slow) in (("a whole training step", step), ("its neurons alone, both ways", alone)):
        print(f"  {what:34} {fast:8.2f} {slow:8.2f} ms   {slow / fast:.1f} x")
    differing = sum(int((a != b).sum()) for a, b in zip(ours, loop, strict=True))
    fired, of = sum(int(s.sum()) for s in loop), sum(s.numel() for s in loop)
    print(
        f"spikes of the {len(data.test_labels)} held-out digits: {fired:,} in {of:,} neuron steps, {differing} differ"
    )
    return differing == 0


# ---- the command ----------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m flexsn demo", description=main_description())
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="auto", choices=("auto", "triton", "cpp", "torch"))
    parser.add_argument("--picture", default="demo.png", help="where to write it (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        import sklearn  # noqa: F401
        import tqdm  # noqa: F401

        from flexsn.demo.picture import draw
    except ImportError as error:
        print(f"the demo needs {error.name}: pip install 'flexsn[demo]'", file=sys.stderr)
        return 2

    torch.manual_seed(options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = Digits.load(device)
    net = DigitsNet(options.backend).to(device)
    count = sum(p.numel() for p in net.parameters())
    print(
        f"{net}\n{count:,} parameters, {len(data.train_labels)} digits to learn from, "
        f"{len(data.test_labels)} held out, T = {T}, {device}, {torch.get_num_threads()} threads"
    )
    trainer = Trainer(net, data, options.epochs)
    start = time.perf_counter()
    history = trainer.fit() or [trainer.accuracy()]
    print(f"held-out accuracy {history[-1]:.2%} after {time.perf_counter() - start:.1f} s of training")
    same = compare(trainer, "triton" if device.type == "cuda" else "cpp")
    draw(net, data, history, options.picture)
    print(f"picture: {options.picture}")
    print("see the kernel: FLEXSN_PRINT_CODE=1 python -m flexsn demo --epochs 0, or python -m flexsn explain LIF")
    if not same:
        print("the fused kernel and the loop disagree: please report this", file=sys.stderr)
    return 0 if same else 1


def main_description() -> str:
    return (__doc__ or "").split("\n", maxsplit=1)[0]
