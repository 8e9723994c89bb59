"""Lengths, resets, cuts and reductions of a neuron: calls that go on, layouts, dtypes, records, wrong arguments."""

from __future__ import annotations

import copy
import os
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flexsn
from flexsn import FlexSN, GradientError, surrogate
from flexsn.execution.masks import Masks

INTERPRETING = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
KERNELS = "triton" if INTERPRETING else "cpp"
# the interpreter computes masked lanes too
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero):RuntimeWarning")
LENGTHS = torch.tensor([6, 2, 0, 4])
MASK = torch.tensor([[0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0] * 4, [1, 0, 0, 1]]).bool()
spike = surrogate.Rect(1.0)


@pytest.fixture(params=[KERNELS], autouse=True)
def _in_the_name(request: pytest.FixtureRequest) -> str:
    """Which kernels a test runs, for whoever selects tests by that."""
    return str(request.param)


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


class Learned(nn.Module):
    """A quotient and a parameter: what is not finite in the padding must reach no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, 1.0, 2.0]))

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = v * 0.5 + self.w / x
        return v * v, v


def inputs(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-16, 48, shape or (6, 4, 3), generator=generator).float().div(16)


def both(**options: Any) -> list[FlexSN]:
    """The loop and the kernels."""
    return [FlexSN(lif, backend=backend, checkpoint=2, **options) for backend in ("torch", KERNELS)]


def test_a_call_goes_on_where_each_sample_ended() -> None:
    """In chunks, whose lengths are what is left of each sample, as in one call."""
    x = inputs()
    for neuron in both(rate=True):
        whole = neuron(x, lengths=LENGTHS)
        state, rate = neuron.v, neuron.rate
        neuron.reset()
        chunks = [neuron(x[t : t + 2], lengths=(LENGTHS - t).clamp(0, 2)) for t in (0, 2, 4)]
        assert torch.equal(torch.cat(chunks), whole) and torch.equal(neuron.v, state)
        assert torch.equal(rate * LENGTHS.clamp(min=1).view(-1, 1), whole.sum(0))


def test_cuts_count_from_the_first_step_of_a_call() -> None:
    for neuron in both(detach_every=4):
        x = inputs().requires_grad_()
        torch.cat([neuron(x[:3]), neuron(x[3:])]).sum().backward()
        assert x.grad is not None
        alone = FlexSN(lif, backend="torch")
        again = x.detach().requires_grad_()
        alone(again).sum().backward()  # two chunks of three steps: none is cut
        assert torch.equal(x.grad, again.grad)  # type: ignore[arg-type]


def test_a_reset_goes_back_to_the_initial_states_of_the_neuron() -> None:
    """Not to those that a call before has left."""

    class Raised(FlexSN):
        def __init__(self, backend: str) -> None:
            super().__init__(backend=backend)
            self.start = nn.Parameter(torch.tensor(0.25))

        def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            return lif(x, v)

        def init_states(self, num_states: int, step_mode: str, *args: Tensor) -> list[Tensor]:  # type: ignore[override]
            return [self.start.expand(args[0].shape[1:] if step_mode == "m" else args[0].shape)]

    found = []
    for backend in ("torch", KERNELS):
        neuron = Raised(backend)
        neuron(inputs(2, 4, 3, seed=1))
        neuron.detach()
        y = neuron(inputs(), reset_mask=MASK)
        y[3:].sum().backward()
        found += [y, neuron.start.grad]
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
    assert found[1]  # the initial value is learned through resets


@pytest.mark.parametrize("backend", ["torch", KERNELS])
def test_padding_may_be_anything(backend: str) -> None:
    """Gradients of inputs and parameters are those of the samples alone."""
    x, core = inputs().abs() + 0.25, Learned()
    padded = x.clone()
    for b, length in enumerate(LENGTHS):
        padded[length:, b] = [float("nan"), float("inf"), -1.0, 0.0][b]
    padded.requires_grad_()
    v = torch.zeros(4, 3, requires_grad=True)
    y, last = flexsn.scan(core, padded, v, backend, lengths=LENGTHS)
    found = torch.autograd.grad([y.sum() + last.sum()], [padded, v, core.w])
    assert all(torch.isfinite(t).all() for t in (y, last, *found))
    ended = torch.arange(6).view(-1, 1) >= LENGTHS
    assert not y[ended].any() and not found[0][ended].any()
    weights = torch.zeros(3)
    for b, length in enumerate(LENGTHS.tolist()):
        alone, start = x[:length, b : b + 1].clone().requires_grad_(), torch.zeros(1, 3, requires_grad=True)
        own, end = flexsn.scan(core, alone, start, "torch")
        gx, gv, gw = torch.autograd.grad([own.sum() + end.sum()], [alone, start, core.w], materialize_grads=True)
        assert torch.equal(own, y[:length, b : b + 1].detach()) and torch.equal(end[0], last[b].detach())
        assert torch.equal(gx, found[0][:length, b : b + 1]) and torch.equal(gv[0], found[1][b])
        weights += gw
    assert torch.allclose(weights, found[2], rtol=1e-6)


def test_layouts_dtypes_and_records() -> None:
    x = inputs()
    plain = both(time_reduction="max")[0]
    want = plain(x, lengths=LENGTHS, reset_mask=MASK)
    for neuron in both(time_reduction="max", time_dim=1, output_dtype=torch.bool):
        neuron.record("v")
        y = neuron(x.movedim(0, 1).contiguous(), lengths=LENGTHS.int(), reset_mask=MASK.T)
        assert isinstance(y, flexsn.SpikeTensor) and torch.equal(y.dense(), want)
        assert torch.equal(neuron.recorded["v"][:, -1], neuron.v)  # an ended sample keeps its states
    for neuron in both(time_reduction="mean", output_dtype=torch.bool):
        y = neuron(x.half(), lengths=LENGTHS)  # a mean of spikes is no spike
        assert y.dtype == torch.float16 and type(y) is Tensor


def test_two_dimensions_and_lengths_per_sample() -> None:
    """The batch is the first dimension of a step, whatever follows, in any memory format."""
    x = inputs(3, 4, 2, 3, 3).flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (3, 4))
    loop, kernel = (n(x, lengths=torch.tensor([3, 1, 0, 2])) for n in both())
    assert torch.equal(loop, kernel) and not kernel[1:, 1].any()


def test_a_mask_of_many_lanes_each_is_read_as_it_lies_in_memory() -> None:
    """Of few lanes each, a CPU writes it out; gradients and values are the same."""
    x, per_sample = inputs(6, 4, 160), MASK
    fitted = Masks(reset_mask=per_sample, initial=(torch.zeros(4, 160),)).fit((x,), (torch.zeros(4, 160),), 0)
    assert fitted.reset_mask is not None and fitted.reset_mask.stride() == (4, 1, 0)
    results = []
    for mask, neuron in ((per_sample, both()[1]), (per_sample[..., None].expand(x.shape).contiguous(), both()[0])):
        leaf = x.clone().requires_grad_()
        y = neuron(leaf, reset_mask=mask, lengths=LENGTHS)
        y.sum().backward()
        results.append((y, neuron.v, leaf.grad))
    assert all(map(torch.equal, *results))


def test_zeros_of_both_signs_in_what_is_broadcast_along_lanes() -> None:
    x = torch.tensor([0.0, -0.0, 1.0, 1.0, -0.0, 0.0]).view(6, 1, 1).expand(6, 2, 96)
    y, _ = flexsn.scan(lambda x, v: (1.0 / x, v), x, torch.zeros(2, 96), KERNELS)
    assert torch.equal(y, 1.0 / x)


def test_one_step_at_a_time() -> None:
    x = inputs()
    for backend in ("torch", KERNELS):
        whole = FlexSN(lif, backend=backend)(x, reset_mask=MASK)
        neuron = FlexSN(lif, backend=backend, step_mode="s", rate=True)
        for t in range(3):
            assert torch.equal(neuron(x[t], reset_mask=MASK[t]), whole[t])
            assert torch.equal(neuron.rate, whole[t])  # of the one step there was
    for option in ({"time_reduction": "sum"}, {"detach_every": 2}):
        with pytest.raises(
            ValueError, match=f'{next(iter(option))} is about the steps of a call, of which step mode "s"'
        ):
            FlexSN(lif, step_mode="s", **option)(x[0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='lengths is about the steps of a call, of which step mode "s" has one'):
        FlexSN(lif, step_mode="s")(x[0], lengths=LENGTHS)


def test_no_steps() -> None:
    for neuron in both(time_reduction="max", rate=True):
        neuron.v = inputs(4, 3)
        assert torch.equal(neuron(inputs(0, 4, 3), lengths=torch.zeros(4, dtype=torch.int64)), torch.zeros(4, 3))
        assert torch.equal(neuron.rate, torch.zeros(4, 3)) and torch.equal(neuron.v, inputs(4, 3))


def test_maxima_of_nan_and_of_equals() -> None:
    """As ``torch.max``: NaN is the largest, the first of equals gets the gradient."""
    x = torch.tensor([[1.0, float("nan"), -2.0], [3.0, float("nan"), -2.0], [3.0, 5.0, -3.0]], requires_grad=True)
    want = torch.autograd.grad(x.max(0).values.sum(), x)
    for backend in ("torch", KERNELS):
        y, _ = flexsn.scan(lambda x: x * 1.0, x, (), backend, time_reduction="max")
        assert torch.allclose(y, x.max(0).values, equal_nan=True)
        assert torch.equal(*torch.autograd.grad(y.sum(), x), *want)


def test_outputs_that_are_no_floats() -> None:
    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x > 0, x.round().int(), v + x

    x = inputs()
    for backend in ("torch", KERNELS):
        (count, total), _, rate = flexsn.scan(core, x, inputs(4, 3), backend, time_reduction="sum", rate=True)
        assert torch.equal(count, (x > 0).sum(0)) and torch.equal(total, x.round().long().sum(0))
        assert torch.equal(rate, (x > 0).float().sum(0) / 6)


def test_second_derivatives_go_through_the_loop() -> None:
    found = []
    for backend in ("torch", KERNELS):
        x, v = (inputs().abs() + 1).double().requires_grad_(), torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
        core = Learned().double()
        options: dict[str, Any] = {"lengths": LENGTHS, "reset_mask": MASK, "time_reduction": "sum", "detach_every": 3}
        y, _, seq, rate = flexsn.scan(core, x, v, backend, return_state_seqs=True, rate=True, **options)
        (grad,) = torch.autograd.grad((y.sum() + seq.sum() + rate.sum()), x, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), [x, v, core.w]))
    for loop, kernel in zip(*found, strict=True):
        assert torch.allclose(loop, kernel)


def test_a_blocked_gradient_is_still_found() -> None:
    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return (x + v > 0).float(), v.detach()

    for backend in ("torch", KERNELS):
        y, _ = flexsn.scan(
            core, inputs().requires_grad_(), inputs(4, 3), backend, time_reduction="sum", lengths=LENGTHS
        )
        with pytest.raises(GradientError):
            y.sum().backward()


def test_the_rate_is_of_the_last_call_and_forgotten_with_it() -> None:
    neuron = FlexSN(lif, rate=True, backend="torch")
    assert neuron.rate is None
    x = inputs().requires_grad_()
    y = neuron(x)
    assert neuron.rate.requires_grad and torch.equal(neuron.rate, y.sum(0) / 6)
    assert not copy.deepcopy(neuron).rate.requires_grad and not pickle.loads(pickle.dumps(neuron)).rate.requires_grad
    neuron.detach()
    assert not neuron.rate.requires_grad
    neuron.reset()
    assert neuron.rate is None
    with pytest.raises(AttributeError, match="rate"):
        _ = FlexSN(lif).rate  # a core may have an attribute of that name


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"lengths": [1, 2, 3, 4]}, "lengths must be a tensor, got list"),
    ({"lengths": torch.ones(4)}, "lengths must be integers, got torch.float32"),
    ({"lengths": torch.ones(4).bool()}, "lengths must be integers, got torch.bool"),
    ({"lengths": torch.ones(3).int()}, r"lengths must be one number per sample, shape \(4,\), .* got shape \(3,\)"),
    ({"lengths": torch.tensor([1, 7, 2, 0])}, "between 0 and the number of steps 6; sample 1 has 7"),
    ({"lengths": torch.tensor([1, 2, 2, -1])}, "sample 3 has -1"),
    ({"lengths": torch.ones(4, device="meta").int()}, "lengths is on meta, the inputs are on cpu"),
    ({"reset_mask": torch.ones(6, 4)}, "reset_mask must be bool, got torch.float32"),
    ({"reset_mask": torch.ones(6, 3).bool()}, r"reset_mask of shape \(6, 3\) does not fit inputs of shape \(6, 4, 3\)"),
    ({"reset_mask": torch.ones(6, 4, 3, 1).bool()}, "it has their first dimensions, or all of them"),
    ({"reset_mask": True}, "reset_mask must be a tensor, got bool"),
]


@pytest.mark.parametrize(("masks", "text"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_wrong_masks(masks: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        FlexSN(lif)(inputs(), **masks)


def test_lengths_need_a_batch() -> None:
    with pytest.raises(ValueError, match=r"lengths need a batch as the first dimension of a step; inputs are \(6,\)"):
        FlexSN(lif)(inputs(6), lengths=torch.tensor([3]))


def test_traffic() -> None:
    """A reduction writes nothing per step and reads no gradient per step; a rate and cuts are free."""

    def bytes_of(**options: Any) -> list[float]:
        kernels = flexsn.explain(FlexSN(lif, checkpoint=8, **options)).kernels
        return [kernels[name].bytes_per_lane_step for name in ("inference", "forward", "backward")]

    assert bytes_of() == bytes_of(rate=True) == bytes_of(detach_every=3) == [8.0, 8.5, 12.5]
    assert bytes_of(time_reduction="sum") == bytes_of(time_reduction="last", rate=True) == [4.0, 4.5, 8.5]
    assert bytes_of(time_reduction="max") == [4.0, 5.0, 9.0]
