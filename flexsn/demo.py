"""The demo: a convolutional spiking network, with a neuron of its own, learns to read handwritten digits.

``python -m flexsn demo`` (or ``make demo``). Read it top to bottom: the neuron, the network, the training,
then what was gained, and a picture. The digits (UCI, 8 x 8, 1,797 of them) ship inside scikit-learn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flexsn import surrogate
from flexsn.errors import BackendError
from flexsn.module import FlexSN

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
        return loss.item()

    @torch.no_grad()
    def accuracy(self) -> float:
        """Share of the held-out digits read correctly."""
        self.net.eval()
        right: Tensor = self.net(self.data.test_images).argmax(1) == self.data.test_labels
        return right.float().mean().item()

    def fit(self) -> list[float]:
        """Train; the held-out accuracy after every epoch (watched, never used to choose)."""
        from tqdm import tqdm

        history: list[float] = []
        with tqdm(total=self.epochs * self.batches, unit="step", desc="training", dynamic_ncols=True) as bar:
            for epoch in range(1, self.epochs + 1):
                order = torch.randperm(len(self.data.train_labels)).to(self.data.train_labels.device)
                for chosen in torch.split(order, self.batch):
                    loss = self.step(self.data.train_images[chosen], self.data.train_labels[chosen])
                    self.schedule.step()
                    bar.update()
                history.append(self.accuracy())
                bar.set_postfix(epoch=epoch, loss=f"{loss:.3f}", held_out=f"{history[-1]:.2%}")
        return history


# ---- what was gained ------------------------------------------------------------------------------------------


def median_times(trainer: Trainer, backends: Sequence[str], repeats: int = 15) -> dict[str, float]:
    """Median time of the same training step on each backend, in milliseconds, taken in turns.

    Runs after training and puts the network back as it was.
    """
    images, labels = trainer.data.train_images[: trainer.batch], trainer.data.train_labels[: trainer.batch]
    before = {name: value.clone() for name, value in trainer.net.state_dict().items()}
    times: dict[str, list[float]] = {backend: [] for backend in backends}
    for repeat in range(repeats + 2):
        for backend in backends:
            for neuron in trainer.net.neurons:
                neuron.backend = backend
            start = time.perf_counter()
            trainer.step(images, labels)  # ends in .item(), which waits for the device
            if repeat >= 2:  # the first rounds compile and warm up
                times[backend].append(1e3 * (time.perf_counter() - start))
    trainer.net.load_state_dict(before)
    return {backend: statistics.median(taken) for backend, taken in times.items()}


@torch.no_grad()
def spikes_of(net: DigitsNet, images: Tensor, backend: str) -> list[Tensor]:
    """The spikes of both layers, computed by ``backend``."""
    net.eval()
    for neuron in net.neurons:
        neuron.backend = backend
    return [spikes for _, spikes in net.layers(images)]


def compare(trainer: Trainer, fused: str) -> bool:
    """Print the step on ``fused`` and on the loop, and whether all spikes agree; ``False`` if they do not."""
    net, images = trainer.net, trainer.data.test_images
    if fused not in net.neuron1.supported_backends:
        print(f"\nno fused kernel here: backend {fused!r} is not supported on this machine, the loop ran instead")
        return True
    chosen = net.neuron1.backend
    try:
        took = median_times(trainer, (fused, "torch"))
        pairs = list(zip(spikes_of(net, images, fused), spikes_of(net, images, "torch"), strict=True))
    except BackendError as error:
        print(f"\nno fused kernel here, the loop ran instead: {error}")
        return True
    finally:
        for neuron in net.neurons:
            neuron.backend = chosen
    differing = sum(int((ours != loop).sum()) for ours, loop in pairs)
    total = sum(int(loop.sum()) for _, loop in pairs)
    lanes = sum(loop.numel() for _, loop in pairs)
    print(f"\none training step, batch {trainer.batch}, median (convolutions and optimizer included)")
    print(f"  fused, backend={fused!r:9} {took[fused]:8.2f} ms")
    print(f"  loop,  backend='torch'   {took['torch']:8.2f} ms   {took['torch'] / took[fused]:.1f} x")
    print(f"spikes of {len(images)} held-out digits: {total:,} in {lanes:,} neuron steps, {differing} differ")
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

        from flexsn.demo_picture import draw
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
    print("the generated kernel: FLEXSN_PRINT_CODE=1 python -m flexsn demo --epochs 0")
    if not same:
        print("the fused kernel and the loop disagree: please report this", file=sys.stderr)
    return 0 if same else 1


def main_description() -> str:
    return (__doc__ or "").split("\n", maxsplit=1)[0]
