"""Random cores, scanned by random rules: as written out by hand, in the loop and on a backend."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import torch
from cores import BOOL, INT, SHAPES, Core, cores
from hypothesis import given
from hypothesis import strategies as st
from test_random_cores import BACKEND, _assert_close, _same, examples, ties
from torch import Tensor

import flexsn
from flexsn.errors import GradientError
from tests.execution.by_hand import Asked, scan_by_hand

STEPS, STEP = 5, (3, 2, 4)


@dataclass(frozen=True)
class Rules:
    """What is asked for, and how the call is made."""

    lengths: tuple[int, ...] | None
    resets: bool
    detach_every: int | None
    time_reduction: str | None
    rate: bool
    sequences: bool
    time_dim: int
    checkpoint: int
    seed: int


rules = st.builds(
    Rules,
    lengths=st.one_of(st.none(), st.tuples(*[st.integers(0, STEPS)] * STEP[0])),
    resets=st.booleans(),
    detach_every=st.sampled_from([None, 2, 1, 3]),
    time_reduction=st.sampled_from([None, "sum", "mean", "last", "max"]),
    rate=st.booleans(),
    sequences=st.booleans(),
    time_dim=st.integers(0, 1),
    checkpoint=st.sampled_from([2, 8]),
    seed=st.integers(0, 2**31),
)


def for_a_sample(core: Core) -> Core:
    """Without parameters that differ from sample to sample, which a sample alone would not fit."""
    alike = {"batch": "channel", "full": "last"}
    return replace(core, parameters=tuple(replace(p, shape=alike.get(p.shape, p.shape)) for p in core.parameters))


def flat(results: object) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else [t for r in results for t in flat(r)]  # type: ignore[attr-defined]


def gradients(results: list[Tensor], leaves: list[Tensor], generator: torch.Generator) -> list[Tensor | None]:
    grads = [torch.randn(r.shape, generator=generator) for r in results]
    pairs = [(r, g.to(r.dtype)) for r, g in zip(results, grads, strict=True) if r.requires_grad]
    found: tuple[Tensor | None, ...] = (None,) * len(leaves)
    if pairs and leaves:
        with suppress(GradientError):  # no path at all: to a loop that lacks one, the same as no gradient
            found = torch.autograd.grad([r for r, _ in pairs], leaves, [g for _, g in pairs], allow_unused=True)
    return list(found)


@given(core=cores().map(for_a_sample), call=rules)
@examples(20)
def test_random_rules(core: Core, call: Rules) -> None:
    check(core, call, torch.float32, exact=True)


@given(core=cores(products=True).map(for_a_sample), call=rules)
@examples(6)
def test_random_rules_of_cores_with_products(core: Core, call: Rules) -> None:
    check(core, call, torch.float64, exact=False)


def check(core: Core, call: Rules, dtype: torch.dtype, exact: bool) -> None:
    generator = torch.Generator().manual_seed(call.seed)

    def numbers(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator, dtype=dtype) * 16).round() / 16

    core.tensors = [numbers(*SHAPES[p.shape](STEP)).requires_grad_(not p.buffer) for p in core.parameters]
    inputs = [numbers(STEPS, *STEP).requires_grad_() for _ in range(core.num_inputs)]
    states = [numbers(*STEP) for _ in core.states]
    kinds = {BOOL: lambda v: v > 0, INT: lambda v: (v * 2).int()}
    states = [kinds[k](v) if k in kinds else v.requires_grad_() for k, v in zip(core.states, states, strict=True)]
    mask = torch.rand(STEPS, STEP[0], generator=generator) < 0.3 if call.resets else None
    asked = Asked(call.lengths, mask, call.detach_every, call.time_reduction, call.rate)
    leaves = [t for t in (*inputs, *states, *core.tensors) if t.requires_grad]
    found = []
    for backend in ("torch", BACKEND):
        results = flexsn.scan(
            core,
            [x.movedim(0, call.time_dim) for x in inputs],
            tuple(states),
            backend,
            call.time_dim,
            return_state_seqs=call.sequences,
            checkpoint=call.checkpoint,
            lengths=None if call.lengths is None else torch.tensor(call.lengths),
            reset_mask=None if mask is None else mask.movedim(0, call.time_dim),
            detach_every=call.detach_every,
            time_reduction=call.time_reduction,
            rate=call.rate,
        )
        found.append(time_first(flat(results), len(core.outputs), call))
    same = _same if exact else partial(torch.allclose, rtol=1e-6, atol=1e-6, equal_nan=True)
    by_hand = scan_by_hand(core, inputs, states, asked)
    if not call.sequences:
        first = len(core.outputs) + len(states)
        del by_hand[first : first + len(states)]
    for want, *got in zip(by_hand, *found, strict=True):
        assert all(same(g.double(), want.double()) for g in got)
    hand, loop, kernel = (gradients(r, leaves, torch.Generator().manual_seed(1)) for r in (by_hand, *found))
    for i, (h, g, k) in enumerate(zip(hand, loop, kernel, strict=True)):
        h, g, k = (torch.zeros_like(leaves[i]) if t is None else t for t in (h, g, k))
        _assert_close(f"leaf {i}", g, h)
        if not exact or ties(core) or i >= len(leaves) - len([t for t in core.tensors if t.requires_grad]):
            _assert_close(f"leaf {i}", k, g)
        else:
            assert _same(k, g), f"gradient of leaf {i}: {k} is not {g}"


def time_first(results: list[Tensor], num_outputs: int, call: Rules) -> list[Tensor]:
    """Sequences with time in front."""
    last = len(results) - call.rate
    first_seq = num_outputs + (last - num_outputs) // 2 if call.sequences else last
    is_seq = [(call.time_reduction is None and i < num_outputs) or first_seq <= i < last for i in range(len(results))]
    return [r.movedim(call.time_dim, 0) if seq else r for r, seq in zip(results, is_seq, strict=True)]
