"""The training, and what the fused kernels gained."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from flexsn import BackendError
from flexsn.demo.network import Digits, DigitsNet, T

__all__ = ["Trainer", "compare"]


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
