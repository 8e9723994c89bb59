"""Built-in neurons that are fed their own output, on a backend and in the loop.

Each is a few kernels to build, so the C++ compiler sees some of them, and Triton's interpreter all.
"""

from __future__ import annotations

import pytest
import torch
from reference import BACKENDS
from test_masks import NEURONS, made
from torch import Tensor, nn

from flexsn import Recurrent

BACKEND = next(b for b in BACKENDS if b != "torch")
ALL = [name for name in NEURONS if name.count(".") == 2]
SOME = [f"flexsn.neurons.{name}" for name in ("LIF", "AdLIF", "Refractory")]


def run(name: str, backend: str, connection: nn.Linear) -> list[Tensor]:
    """The output; the gradients of input, matrix and bias."""
    layer = Recurrent(made(name, backend=backend), connection)
    x = torch.randint(-64, 192, (7, 3, 5), generator=torch.Generator().manual_seed(1)) / 32.0
    y = layer(x.requires_grad_())
    return [y, *torch.autograd.grad(y.sum() + layer.states[0].sum(), (x, *connection.parameters()))]


@pytest.mark.parametrize("backend", [BACKEND])
@pytest.mark.parametrize("name", ALL if BACKEND == "triton" else SOME)
def test_a_neuron_fed_its_own_output(name: str, backend: str) -> None:
    connection = nn.Linear(5, 5)
    with torch.no_grad():
        for p in connection.parameters():
            p.copy_(torch.randint(-32, 32, p.shape, generator=torch.Generator().manual_seed(2)) / 64.0)
    mine, loop = (run(name, b, connection) for b in (backend, "torch"))
    if torch.equal(loop[0], loop[0].round()):
        assert torch.equal(mine[0], loop[0]) and loop[0].any()
    for a, b in zip(mine, loop, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
