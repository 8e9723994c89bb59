"""How lanes are numbered, and how each tensor is addressed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from flexsn.ir.layout import CallShape, TensorSpec, dense_strides, lane_order, make_layout
from flexsn.ir.plan import LANE_GROUP, Holds, Role, Slot

F32 = torch.float32
T = 4
ORDERS = list(itertools.permutations(range(3)))
LOAD, LANE_LOAD = Slot(Role.LOAD, F32, Holds.INPUT, 0), Slot(Role.LANE_LOAD, F32, Holds.OPERAND, 0)


def permuted(shape: Sequence[int], order: Sequence[int]) -> Tensor:
    """A dense tensor whose dimensions lie in memory in ``order``."""
    return torch.arange(float(math.prod(shape))).as_strided(tuple(shape), dense_strides(shape, order))


def read(tensor: Tensor, shape: CallShape, slot: Slot, t: int = 0) -> list[float]:
    """What every lane reads at a step, by the layout's own arithmetic."""
    layout = shape.layout([slot], [TensorSpec.of(tensor)])
    (address,) = layout.tensors
    memory = tensor.as_strided((tensor.untyped_storage().nbytes() // 4,), (1,), 0)
    start = tensor.storage_offset() + t * address.time
    lanes = itertools.product(*(range(size) for size in layout.sizes))
    places = [start + sum(i * s for i, s in zip(lane, address.strides, strict=True)) for lane in lanes]
    assert not address.dense or places == list(range(start, start + layout.num_lanes))
    return [float(memory[p]) for p in places]


def test_lane_order_is_the_order_in_memory() -> None:
    assert lane_order((2, 3, 4), (12, 4, 1)) == (0, 1, 2)
    assert lane_order((2, 3, 4), (12, 1, 3)) == (0, 2, 1)  # channels last
    assert lane_order((2, 3, 4), (0, 1, 3)) == (0, 1, 2)  # broadcast: no order of its own
    assert lane_order((1, 3, 4), (0, 1, 3)) == (2, 1, 0)  # one element is no broadcast


@pytest.mark.parametrize("order", ORDERS)
def test_dense_strides_make_a_tensor_without_holes(order: tuple[int, ...]) -> None:
    strides = dense_strides((2, 3, 4), order)
    places = {
        sum(i * s for i, s in zip(index, strides, strict=True)) for index in itertools.product(*map(range, (2, 3, 4)))
    }
    assert places == set(range(24)) and lane_order((2, 3, 4), strides) == order


def test_strides_of_a_tensor_without_elements_are_torchs() -> None:
    assert dense_strides((2, 0, 3), (0, 1, 2)) == torch.empty(2, 0, 3).stride()


@pytest.mark.parametrize("order", ORDERS)
def test_any_permutation_shared_by_all_tensors_is_one_dense_run_of_lanes(order: tuple[int, ...]) -> None:
    strides = dense_strides((2, 3, 4), order)
    layout = make_layout(T, (2, 3, 4), order, [(24, strides), (24, strides)])
    assert (layout.num_lanes, layout.sizes) == (24, (24,))
    assert all(t.dense and t.strides == (1,) and t.time == 24 for t in layout.tensors)


def test_dimensions_merge_only_where_every_tensor_allows() -> None:
    dense, per_channel, per_sample = (12, 4, 1), (0, 1, 0), (1, 0, 0)
    sizes = lambda *tensors: make_layout(T, (2, 3, 4), (0, 1, 2), [(24, t) for t in tensors]).sizes  # noqa: E731
    assert sizes(dense) == (24,)
    assert sizes(dense, per_sample) == (2, 12)
    assert sizes(dense, per_channel) == (2, 3, 4)
    assert sizes(dense, (0, 0, 0)) == (24,)


def test_dimensions_of_one_lane_vanish() -> None:
    layout = make_layout(T, (1, 3, 1), (0, 1, 2), [(3, (99, 1, 7))])
    assert layout.sizes == (3,) and layout.tensors[0].dense
    single = make_layout(T, (1, 1), (0, 1), [(1, (5, 7)), (1, (0, 0))])
    assert (single.num_lanes, single.sizes) == (1, (1,)) and all(t.dense for t in single.tensors)


@pytest.mark.parametrize("time_dim", [0, 1, 2])
@pytest.mark.parametrize("order", ORDERS)
def test_lanes_read_their_own_elements_wherever_time_and_memory_lie(order: tuple[int, ...], time_dim: int) -> None:
    sequence = permuted((4, 3, 5), order)
    shape = CallShape.of(sequence, time_dim)
    for t, step in enumerate(sequence.unbind(time_dim)):
        assert read(sequence, shape, LOAD, t) == step.permute(shape.lanes).flatten().tolist()
    state = permuted(shape.step_shape, (0, 1))
    assert read(state, shape, LANE_LOAD) == state.permute(shape.lanes).flatten().tolist()


@pytest.mark.parametrize("operand", [(), (1,), (5,), (3, 1), (3, 5), (1, 5)])
def test_an_operand_is_broadcast_without_a_copy(operand: tuple[int, ...]) -> None:
    shape = CallShape.of(permuted((T, 3, 5), (0, 2, 1)), 0)
    value = permuted(operand, range(len(operand)))
    assert read(value, shape, LANE_LOAD) == value.expand(3, 5).permute(shape.lanes).flatten().tolist()


def test_batch_first_inputs_are_walked_in_place() -> None:
    shape = CallShape.of(torch.zeros(8, T, 5), 1)  # [B, T, N]
    assert (shape.num_steps, shape.step_shape, shape.lanes) == (T, (8, 5), (0, 1))
    (address,) = shape.layout([LOAD], [shape.sequence(F32)]).tensors
    assert (address.time, address.strides, address.dense) == (5, (T * 5, 1), False)


def test_fresh_tensors_lie_in_memory_as_the_inputs_do() -> None:
    shape = CallShape.of(permuted((T, 2, 3, 5), (0, 1, 3, 2)), 0)
    spec = {role: shape.dense(Slot(role, F32, Holds.OUTPUT, 0), 7) for role in Role}
    assert spec[Role.STORE] == TensorSpec((T, 2, 3, 5), (30, 15, 1, 3), F32)
    assert spec[Role.LANE_STORE] == spec[Role.LANE_LOAD] == TensorSpec((2, 3, 5), (15, 1, 3), F32)
    assert spec[Role.CHECKPOINT_STORE] == TensorSpec((7, 2, 3, 5), (30, 15, 1, 3), F32)
    assert spec[Role.GROUP_STORE] == TensorSpec((1,), (1,), F32)
    assert spec[Role.STORE].make(torch.device("cpu")).stride() == (30, 15, 1, 3)


@pytest.mark.parametrize(("lanes", "groups"), [(1, 1), (LANE_GROUP, 1), (LANE_GROUP + 1, 2)])
def test_a_last_group_of_lanes_may_be_small(lanes: int, groups: int) -> None:
    assert CallShape(T, (lanes,), 0, (0, 1)).groups(F32).shape == (groups,)


def test_rows_are_samples_whatever_the_order_in_memory() -> None:
    shape = CallShape(5, (2, 3, 4), 0, (0, 3, 1, 2))
    one, several = shape.rows(torch.float32), shape.rows(torch.float64, 5)
    assert (one.shape, one.strides, one.dtype) == ((6, 4), (4, 1), torch.float32)
    assert (several.shape, several.strides, several.dtype) == ((5, 6, 4), (24, 4, 1), torch.float64)
