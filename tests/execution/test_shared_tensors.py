"""Names that hold one tensor today may hold two tomorrow: the kernel reads what each holds at the call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flexsn import FlexSN
from flexsn.execution.backends import supported_backends

BACKEND = "cpp" if "cpp" in supported_backends() else "torch"


class TwoWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Parameter(torch.tensor(0.5))
        self.leak = self.inward

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.inward + v, v * self.leak + x


def outcome(core: TwoWeights, neuron: FlexSN) -> list[Tensor]:
    neuron.reset()
    y = neuron(torch.arange(6.0).reshape(3, 2))
    return [y.detach(), *torch.autograd.grad(y.sum(), list(core.parameters()))]


def test_tying_and_untying_take_effect_at_the_next_call() -> None:
    core = TwoWeights()
    compiled, loop = FlexSN(core, backend=BACKEND), FlexSN(core, backend="torch")
    alone, other = core.inward, nn.Parameter(torch.tensor(2.0))
    for leak in (alone, other, alone, other):
        core.leak = leak
        got, want = outcome(core, compiled), outcome(core, loop)
        assert len(got) == len(want) == (2 if leak is alone else 3)
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a, b)


def test_which_of_three_names_share_makes_a_difference() -> None:
    held = {"a": torch.tensor(0.5), "b": torch.tensor(0.5), "c": torch.tensor(2.0)}

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return x * held["a"] + v * held["b"], v * held["c"] + x

    compiled, loop = FlexSN(core, backend=BACKEND), FlexSN(core, backend="torch")
    one, two = torch.tensor(0.25), torch.tensor(3.0)
    for held["a"], held["b"], held["c"] in ((one, one, two), (one, two, two), (one, two, one), (two, two, two)):
        x = torch.arange(6.0).reshape(3, 2)
        compiled.reset(), loop.reset()
        assert torch.equal(compiled(x), loop(x))
