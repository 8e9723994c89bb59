"""Any tensor in any place on any backend: what the table of docs/tensors.md says, against the loop written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from flexsn import UnsupportedOpError, scan
from flexsn.execution.arguments import KINDS, Treatment
from flexsn.ir.dtypes import HALF
from tests.conftest import ON_THE_CPU

Make = Callable[[Tensor], Tensor]
NUM_STEPS, STEP = 3, (2, 4)
GRADIENTS = ("gradient", "final gradient")
PLACES = ("input", "state", "read", *GRADIENTS)
COMPILED = [name for name in ON_THE_CPU if name != "torch"]


class Marked(Tensor):
    pass


def inference(t: Tensor) -> Tensor:
    with torch.inference_mode():
        return t.clone()


def negated(t: Tensor) -> Tensor:
    return torch._neg_view(-t)  # type: ignore[no-any-return]


LAYOUTS: dict[str, Make] = {
    "contiguous": torch.clone,
    "transposed": lambda t: t.mT.contiguous().mT,
    "sliced": lambda t: torch.stack([t, t], -1)[..., 0],
    "unaligned": lambda t: torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape),
    "expanded along the first dimension": lambda t: t[:1].expand(t.shape),
    "expanded along all": lambda t: t.flatten()[0].expand(t.shape),
    "of overlapping rows": lambda t: torch.cat([t.flatten()] * 2).as_strided(t.shape, (1,) * t.dim()),
}
FLAGS: dict[str, Make] = {
    "plain": lambda t: t,
    "negated": negated,
    "a negated slice": lambda t: negated(torch.stack([t, t], -1))[..., 0],
    "an imaginary part": lambda t: torch.complex(torch.zeros_like(t), -t).conj().imag,
    "zeros without memory": lambda t: torch._efficientzerotensor(t.shape, dtype=t.dtype),
    "made in inference mode": inference,
    "a parameter": nn.Parameter,
    "of a graph": lambda t: t.requires_grad_() * 1,
}
OF_KIND: dict[str, Make] = {
    "sparse": Tensor.to_sparse,
    "mkldnn": lambda t: t.to_mkldnn(),
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.5, 0, torch.qint8),
    "nested": lambda t: torch.nested.nested_tensor(list(t)),
    "of a subclass": lambda t: t.as_subclass(Marked),
    **{
        str(dtype): (lambda t, d=dtype: t.abs().to(d))
        for dtype in (
            *(torch.float64, torch.float16, torch.uint8, torch.bool),
            *(torch.uint16, torch.uint64, torch.complex64, torch.float8_e4m3fn),
        )
    },
}
DTYPES = {name for name in OF_KIND if name.startswith("torch.")}


@dataclass(frozen=True)
class Unusual:
    """What one example is about: a layout for every place, and more for one of them."""

    layouts: tuple[str, ...]
    place: str
    flag: str
    kind: str | None
    backend: str
    seed: int

    def make(self, place: str, plain: Tensor) -> Tensor:
        """The tensor of a place."""
        if place != self.place:
            return LAYOUTS[self.layouts[PLACES.index(place)]](plain)
        if self.kind is not None:
            return OF_KIND[self.kind](plain)
        return FLAGS[self.flag](LAYOUTS[self.layouts[PLACES.index(place)]](plain))


def unusual(draw: st.DrawFn) -> Unusual:
    place = draw(st.sampled_from(PLACES))
    flags, kinds = list(FLAGS), [None, None, *OF_KIND]
    if place == "read":
        flags.remove("made in inference mode")  # what the core does with a tensor of its own, the loop leaves to torch
    if place in GRADIENTS:
        flags = flags[:-2]
        kinds = [k for k in kinds if k not in DTYPES]
    layouts = tuple(draw(st.sampled_from(sorted(LAYOUTS))) for _ in PLACES)
    flag, kind = draw(st.sampled_from(flags)), draw(st.sampled_from(kinds))
    return Unusual(layouts, place, flag, kind, draw(st.sampled_from(["auto", *ON_THE_CPU])), draw(st.integers(0, 99)))


def tensors(example: Unusual) -> dict[str, Tensor]:
    """Small whole numbers, so that all sums are exact."""
    generator = torch.Generator().manual_seed(example.seed)

    def numbers(place: str) -> Tensor:
        step = STEP if place in ("state", "read", "final gradient") else (NUM_STEPS, *STEP)
        return torch.randint(-3, 4, step, generator=generator).float()

    return {place: example.make(place, numbers(place)) for place in PLACES}


def by_hand(core: Any, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    half = x.dtype if x.dtype in HALF else None
    x, v = (t.float() if t.dtype in HALF else t for t in (x, v))
    outputs = []
    for step in x.unbind():
        y, v = core(step, v)
        outputs.append(y)
    stacked = torch.stack(outputs)
    return stacked if half is None else stacked.to(half), v


def outcome(given: dict[str, Tensor], run: Callable[..., Any]) -> list[Tensor] | Exception:
    """Outputs, final state and all gradients, or the exception."""
    scale = torch.tensor([0.5, 1.0, -1.0, 2.0], requires_grad=True)
    read = given["read"]

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = (v * 0.5 + x * scale).to(v.dtype)
        return h * read + x * scale, h

    wanted = [t for t in (scale, given["input"], given["state"], read) if t.requires_grad]
    try:
        y, v = run(core, given["input"], given["state"])
        found = torch.autograd.grad(
            [r for r in (y, v) if r.requires_grad],
            wanted,
            [g for r, g in ((y, given["gradient"]), (v, given["final gradient"])) if r.requires_grad],
            allow_unused=True,
        )
    except Exception as error:
        return error
    results = [y.detach(), v.detach(), *(torch.zeros(()) if g is None else g for g in found)]
    return [r.as_subclass(Tensor) if type(r) is Marked else r.to_dense() for r in results]


def plainly(tensor: Tensor) -> Tensor:
    """The same values in a tensor of their own."""
    if type(tensor) is Marked:
        tensor = tensor.as_subclass(Tensor)
    if tensor.is_nested or tensor.is_quantized or tensor.layout is not torch.strided:
        return tensor
    return tensor.detach().resolve_neg().clone().requires_grad_(tensor.requires_grad)


def check(example: Unusual) -> None:
    made = tensors(example)
    odd = made[example.place]
    kind = next((kind for kind in KINDS if kind.holds(odd)), None)
    by_name = example.backend in COMPILED
    got = outcome(made, lambda core, x, v: scan(core, x, v, example.backend))
    if example.place in ("input", "state") and kind is not None and kind.treatment is Treatment.REFUSED:
        assert isinstance(got, ValueError) and f"{example.place} 0 is {kind.name}" in str(got), got
        return
    refused = kind is not None and by_name and example.place not in GRADIENTS
    if refused and kind.treatment is Treatment.LOOP_AND_WARNING:  # type: ignore[union-attr]
        assert isinstance(got, UnsupportedOpError), got
        return
    if refused and example.place == "read" and (kind.treatment is Treatment.REFUSED or odd._is_zerotensor()):  # type: ignore[union-attr]
        assert isinstance(got, UnsupportedOpError) and kind.name in str(got), got  # type: ignore[union-attr]
        return
    want = outcome({place: plainly(t) for place, t in made.items()}, by_hand)
    if isinstance(want, Exception):
        assert isinstance(got, Exception), want
        return
    assert not isinstance(got, Exception), got
    assert [r.dtype for r in got] == [w.dtype for w in want]
    assert all(map(torch.equal, got, want)), (got, want)


@pytest.mark.filterwarnings("ignore")  # of torch about its prototypes; of the loop, whose values are compared
@settings(max_examples=120, deadline=None)
@given(st.composite(unusual)())
def test_it_is_what_the_table_says(example: Unusual) -> None:
    check(example)
