"""The demo: a convolutional spiking network, with a neuron of its own, learns to read handwritten digits.

``python -m flexsn demo`` (or ``make demo``). Read ``network.py`` (the neuron, the network), then ``training.py``
(the training, and what was gained). The digits (UCI, 8 x 8, 1,797 of them) ship inside scikit-learn.
"""

from __future__ import annotations

import sys
import time

import torch

from flexsn.demo.network import Digits, DigitsNet, T
from flexsn.demo.training import Trainer, compare

__all__ = ["main"]


def main(epochs: int = 12, seed: int = 0, backend: str = "auto", picture: str = "demo.png") -> int:
    """Run the demo; the process's exit status."""
    try:
        import sklearn  # noqa: F401
        import tqdm  # noqa: F401

        from flexsn.demo.picture import draw
    except ImportError as error:
        print(f"the demo needs {error.name}: pip install 'flexsn[demo]'", file=sys.stderr)
        return 2

    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = Digits.load(device)
    net = DigitsNet(backend).to(device)
    count = sum(p.numel() for p in net.parameters())
    print(
        f"{net}\n{count:,} parameters, {len(data.train_labels)} digits to learn from, "
        f"{len(data.test_labels)} held out, T = {T}, {device}, {torch.get_num_threads()} threads"
    )
    trainer = Trainer(net, data, epochs)
    start = time.perf_counter()
    history = trainer.fit() or [trainer.accuracy()]
    print(f"held-out accuracy {history[-1]:.2%} after {time.perf_counter() - start:.1f} s of training")
    same = compare(trainer, "triton" if device.type == "cuda" else "cpp")
    draw(net, data, history, picture)
    print(f"picture: {picture}")
    print("see the kernel: FLEXSN_PRINT_CODE=1 python -m flexsn demo --epochs 0, or python -m flexsn explain LIF")
    if not same:
        print("the fused kernel and the loop disagree: please report this", file=sys.stderr)
    return 0 if same else 1
