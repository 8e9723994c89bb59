"""What a core reads can be put back: sources, containers, tensors written in place; for a call or for good."""

from __future__ import annotations

import threading
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from reading_cores import writing_is_free
from torch import Tensor

from flexsn import UnsupportedOpError, scan
from flexsn.captures.guards import Captures
from flexsn.captures.snapshot import Snapshot, SnapshotCore, tensors_kept


def test_put_back_sources_and_containers_and_undo_it() -> None:
    numbers, held = [1.0, 2.0], SimpleNamespace(gain=2.0)
    captures = Captures(lambda x, v: (x * numbers[0] * held.gain, v))
    snapshot = Snapshot(captures)
    numbers.append(3.0)
    held.gain = 5.0
    changed = snapshot.put_back()
    assert (numbers, held.gain) == ([1.0, 2.0], 2.0)
    assert sorted(name for name, _ in changed) == ["held.gain", "numbers"]
    for _, undo in changed:
        undo()
    assert (numbers, held.gain) == ([1.0, 2.0, 3.0], 5.0)
    assert Snapshot(captures).put_back() == []


@pytest.mark.parametrize(
    "container, changed",
    [
        ([1.0], [2.0]),
        ({"a": 1.0, "b": 2.0}, {"b": 3.0}),
        ({1.0}, {1.0, 2.0}),
        (deque([1.0]), deque([2.0, 3.0])),
        (np.array([[1.0, 2.0]]), np.array([[1.0, 3.0]])),
    ],
)
def test_every_kind_of_container(container: Any, changed: Any) -> None:
    captures = Captures(lambda x, v: (x * len(container), v))
    before, snapshot = repr(container), Snapshot(captures)
    if isinstance(container, np.ndarray):
        container[...] = changed
    else:
        container.clear()
        getattr(container, "extend" if hasattr(container, "extend") else "update")(changed)
    assert not captures.unchanged()
    assert [name for name, _ in snapshot.put_back()] == ["container"]
    assert repr(container) == before
    assert captures.unchanged()


def test_a_core_runs_as_it_was() -> None:
    held = SimpleNamespace(gain=2.0, table={"bias": 1.0})

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return x * held.gain + held.table["bias"], v

    as_it_was = SnapshotCore(core, Captures(core))
    held.gain, held.table["bias"] = 3.0, 5.0
    one = torch.ones(())
    assert as_it_was(one, one)[0].item() == 3.0
    assert (held.gain, held.table) == (3.0, {"bias": 5.0})
    assert core(one, one)[0].item() == 8.0


def test_what_is_now_comes_back_after_a_failure_too() -> None:
    held = SimpleNamespace(gain=2.0)

    def core(x: Tensor, v: Tensor) -> Any:
        raise ArithmeticError(held.gain)

    as_it_was = SnapshotCore(core, Captures(core))
    held.gain = 3.0
    with pytest.raises(ArithmeticError, match=r"2\.0"):
        as_it_was(torch.ones(()), torch.ones(()))
    assert held.gain == 3.0


def test_nobody_else_writes_meanwhile() -> None:
    def core(asked: Any) -> Any:
        return asked()

    assert not SnapshotCore(core, Captures(core))(writing_is_free)  # type: ignore[arg-type]
    assert writing_is_free()


def test_other_tensors_in_the_places_of_the_captured() -> None:
    weight, weights = torch.ones(3), [torch.ones(3)]

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return x * weight + weights[0], v

    as_it_was = SnapshotCore(core, Captures(core))
    other = as_it_was.reading([weight, weights[0]], [torch.full((3,), 2.0), torch.full((3,), 5.0)])
    one = torch.ones(3)
    assert torch.equal(other(one, one)[0], torch.full((3,), 7.0))
    assert torch.equal(as_it_was(one, one)[0], torch.full((3,), 2.0))
    assert torch.equal(core(one, one)[0], torch.full((3,), 2.0))


def test_tensors_written_in_place() -> None:
    weight, same = torch.ones(3), torch.zeros(3)
    captures = Captures(lambda x, v: (x * weight + same, v))
    version = same._version
    with pytest.raises(ArithmeticError), tensors_kept(captures):
        weight.add_(1.0)
        raise ArithmeticError
    assert torch.equal(weight, torch.ones(3))
    assert same._version == version  # what nobody wrote is not written


def counting(read: Callable[[], Any], add: Callable[[], Any]) -> tuple[Any, Callable[[], Any]]:
    """A core that counts its steps and reads the count, and what tells the count."""

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        add()
        return x * read() + v, v

    return core, read


def in_an_array() -> Any:
    held = array("d", [0.0])
    return counting(lambda: held[0], lambda: held.__setitem__(0, held[0] + 1.0))


def in_a_bytearray() -> Any:
    held = bytearray(1)
    return counting(lambda: held[0], lambda: held.append(held.pop() + 1))


def in_a_counter() -> Any:
    held: Counter[str] = Counter()
    return counting(lambda: held["steps"], lambda: held.update(["steps"]))


def in_a_default_dict() -> Any:
    held: defaultdict[str, int] = defaultdict(int)
    return counting(lambda: held["steps"], lambda: held.update(steps=held["steps"] + 1))


def in_a_context() -> Any:
    held = ContextVar("held", default=0)
    held.set(0)
    return counting(held.get, lambda: held.set(held.get() + 1))


def in_a_thread() -> Any:
    held = threading.local()
    held.steps = 0
    return counting(lambda: held.steps, lambda: setattr(held, "steps", held.steps + 1))


def in_a_list() -> Any:
    held: list[int] = []
    return counting(lambda: len(held), lambda: held.append(1))


@pytest.mark.parametrize(
    "make", [in_an_array, in_a_bytearray, in_a_counter, in_a_default_dict, in_a_context, in_a_thread, in_a_list]
)
@pytest.mark.filterwarnings("ignore::flexsn.FallbackWarning")
def test_what_a_core_counts_is_as_if_it_had_never_run_on_examples(make: Callable[[], Any]) -> None:
    core, read = make()
    x = torch.ones(3, 2)
    for calls in (1, 2, 3):
        y, _ = scan(core, x, torch.zeros(2))
        assert read() == 3 * calls and y[:, 0].tolist() == [3 * calls - 2, 3 * calls - 1, 3 * calls]


def test_what_counts_is_named() -> None:
    held = ContextVar("held", default=0)
    held.set(0)

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        held.set(held.get() + 1)
        return x + v, v

    with pytest.raises(UnsupportedOpError, match="the core changes held while it runs"):
        scan(core, torch.ones(3, 2), torch.zeros(2), backend="cpp")
    assert held.get() == 0
