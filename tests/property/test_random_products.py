"""Random cores with products have the bits of the loop where all sums are exact, in every value and gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from test_random_cores import BACKEND, examples
from torch import Tensor, nn

from flexsn import scan, surrogate

Map = Callable[[Tensor], Tensor]
spike = surrogate.Rect()
# of numbers with few digits, numbers with few digits: in fp64 every sum of products of them is exact
MAPS: dict[str, Map] = {
    "itself": lambda v: v,
    "spikes": lambda v: spike(v - 0.5),
    "positive part": torch.relu,
    "bounded": lambda v: v.clamp(-2.0, 2.0),
    "half": lambda v: v * 0.5,
    "larger ones": lambda v: torch.where(v > 1.0, v, torch.zeros_like(v)),
}
MULTIPLY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": lambda v, w: nn.functional.linear(v, w),
    "matmul": lambda v, w: v @ w,
    "einsum": lambda v, w: torch.einsum("bi,ij->bj", v, w),
}


@dataclass(frozen=True)
class Recurrent:
    """``h`` of inputs, states and products; each product is of one of these or of the product before."""

    products: tuple[tuple[str, str, str, int], ...]  # source, map, way to multiply, which matrix
    after: str
    resets: bool
    returns_charge: bool

    def __call__(self, x: Tensor, v: Tensor, z: Tensor, matrices: list[nn.Parameter]) -> tuple[Tensor, ...]:
        values = {"x": x, "v": v, "z": z, "before": z}
        h = v * 0.5 + x
        for source, of, way, number in self.products:
            values["before"] = MULTIPLY[way](MAPS[of](values[source]), matrices[number]).clamp(-8.0, 8.0)
            h = h + values["before"]
        s = spike(h - 1.0)
        following = h * (1.0 - s) if self.resets else h.clamp(-4.0, 4.0)
        return (h if self.returns_charge else s), following, MAPS[self.after](h)


@st.composite
def recurrent(draw: Callable[..., Any]) -> Recurrent:
    product = st.tuples(*map(st.sampled_from, (["z", "v", "x", "before"], sorted(MAPS), sorted(MULTIPLY), [0, 1])))
    products = draw(st.lists(product, min_size=1, max_size=2))
    return Recurrent(tuple(products), draw(st.sampled_from(sorted(MAPS))), draw(st.booleans()), draw(st.booleans()))


def results(core: Recurrent, backend: str, num_steps: int, batch: int, size: int, needs: tuple[bool, ...]) -> list[Any]:
    """Outputs, final states and all gradients that are wanted."""
    generator = torch.Generator().manual_seed(size)

    def numbers(*shape: int) -> Tensor:
        return torch.randint(-8, 9, shape, generator=generator).double() / 4.0

    matrices = []
    for _ in range(2):
        few = torch.rand(size, size, generator=generator) < 2 / size
        matrices.append(nn.Parameter(torch.randint(-1, 2, few.shape, generator=generator) * few.double()))
    arguments = [numbers(num_steps, batch, size), numbers(batch, size), numbers(batch, size)]
    for argument, need in zip(arguments, needs, strict=True):
        argument.requires_grad_(need)

    def step(x: Tensor, v: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        return core(x, v, z, matrices)

    y, finals = scan(step, arguments[0], (arguments[1], arguments[2]), backend)
    values = [y, *finals]
    total = sum((value * numbers(*value.shape)).sum() for value in values)
    of = [a for a in (*arguments, *matrices) if a.requires_grad]
    return [*values, *torch.autograd.grad(total, of, allow_unused=True)]


@given(
    core=recurrent(),
    num_steps=st.integers(1, 4),
    batch=st.integers(1, 6),
    size=st.sampled_from([2, 3, 16, 19]),
    needs=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
@examples(25)
def test_a_random_core_with_products(
    core: Recurrent, num_steps: int, batch: int, size: int, needs: tuple[bool, ...]
) -> None:
    mine, loop = (results(core, backend, num_steps, batch, size, needs) for backend in (BACKEND, "torch"))
    for number, (a, b) in enumerate(zip(mine, loop, strict=True)):
        if a is None or b is None:
            assert all(g is None or not g.any() for g in (a, b)), number
        else:
            assert torch.equal(a, b), f"{number}: {a} is not {b}"
