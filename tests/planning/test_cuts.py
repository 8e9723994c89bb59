"""Which vjp a step has where gradients of states are cut every few steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_step import F32, Small, told, told_all

from flexsn.ir.graph import Builder, LeafKind
from flexsn.ir.step import StepVjp
from flexsn.planning import Gradients
from flexsn.planning.boundary import Cut, branches_from_end, holds

Pattern = tuple[int, ...]


class Vjps:
    """Vjps that tell by the gradient of an input which state gradients came in.

    Args:
        following: by the state gradients that come in, how many are handed on.
        last_differs: whether the last step of all is another one.
    """

    def __init__(self, following: dict[Pattern, Pattern], last_differs: bool = False) -> None:
        self.following, self.last_differs = following, last_differs
        self.asked: list[tuple[Pattern, bool, bool]] = []
        self.builder = Builder()

    def __call__(self, outputs: tuple[bool, ...], states: Pattern, apart: bool, last: bool) -> StepVjp:
        assert outputs == (True, False)
        self.asked.append((states, apart, last))
        number = int("".join(map(str, (int(last and self.last_differs), *states))))
        leaf = self.builder.leaf
        carried = [leaf(LeafKind.STATE_COTANGENT, j, F32) for j in range(len(states))]
        given = tuple((carried[j],) * count for j, count in enumerate(self.following[states]))
        return StepVjp((leaf(LeafKind.COTANGENT, number, F32),), given, (), (), ())


def taken(vjps: Vjps, finals: tuple[bool, ...], cut: Cut | None, steps: int) -> list[str]:
    """The vjp of every step; no two conditions hold at once."""
    small = Small(vjps.builder)
    gradients = Gradients((F32, None), finals, (), (), False)
    branches = branches_from_end(small.step, vjps, gradients, cut)
    assert [when for when, _ in branches].index(None) == len(branches) - 1
    found = []
    for t in range(steps):
        now = [vjp for when, vjp in branches if when is not None and holds(when, t, steps)]
        assert len(now) <= 1 or cut is None
        vjp = now[0] if now else branches[-1][1]
        found.append(told_all(vjp.grad_inputs)[0].removeprefix("grad_output"))
    return found


@pytest.mark.parametrize(
    ("steps", "want"), [(1, "0"), (2, "10"), (3, "110"), (4, "1100"), (7, "1101100"), (8, "11011010")]
)
def test_a_step_before_a_cut_is_as_the_last_one(steps: int, want: str) -> None:
    vjps = Vjps({(0,): (1,), (1,): (1,)})
    assert "".join(taken(vjps, (False,), Cut(3, 1), steps)) == want
    assert len(branches_from_end(Small(vjps.builder).step, vjps, NONE_AT_THE_END, Cut(3, 1))) == 2


NONE_AT_THE_END = Gradients((F32, None), (False,), (), (), False)


def test_without_a_cut_only_the_last_steps_differ() -> None:
    chain = {(0, 0): (1, 0), (1, 0): (1, 1), (1, 1): (1, 1)}
    assert taken(Vjps(chain), (False, False), None, 5) == ["11", "11", "11", "10", "0"]


def test_a_gradient_that_comes_in_at_the_end_comes_in_at_no_cut() -> None:
    assert taken(Vjps({(0,): (1,), (1,): (1,)}), (True,), Cut(2, 1), 6) == ["1", "0", "1", "0", "1", "1"]


def test_the_nearest_end_counts() -> None:
    """Three steps until all gradients are there: those of the end go first, then those of the cuts."""
    chain = {(0, 0): (1, 0), (1, 0): (1, 1), (1, 1): (1, 1)}
    assert taken(Vjps(chain), (False, False), Cut(4, 2), 10) == [*("11", "11", "10", "0") * 2, "10", "0"]
    assert taken(Vjps(chain), (True, False), Cut(4, 2), 9) == [*("11", "11", "10", "0") * 2, "10"]


def test_cuts_nearer_to_each_other_than_gradients_take_to_settle() -> None:
    chain = {(0, 0): (1, 0), (1, 0): (1, 1), (1, 1): (1, 1)}
    assert taken(Vjps(chain), (False, False), Cut(1, 2), 4) == ["0"] * 4
    assert taken(Vjps(chain), (True, True), Cut(1, 2), 4) == ["0", "0", "0", "11"]
    assert taken(Vjps(chain), (True, True), Cut(2, 2), 4) == ["10", "0", "11", "11"]
    for first, every, branches in ((False, 1, 3), (False, 2, 3), (False, 4, 3), (True, 1, 4), (True, 2, 5)):
        vjps = Vjps(chain)
        small = Small(vjps.builder)
        gradients = Gradients((F32, None), (first, False), (), (), False)
        assert len(branches_from_end(small.step, vjps, gradients, Cut(every, 2))) == branches


def test_a_last_step_that_adds_up_in_another_order_is_none_before_a_cut() -> None:
    vjps = Vjps({(0,): (1,), (1,): (1,)}, last_differs=True)
    assert taken(vjps, (False,), Cut(3, 1), 7) == ["1", "1", "0", "1", "1", "0", "10"]
    assert [last for _, _, last in vjps.asked].count(True) == 1


def test_accumulators_are_not_cut() -> None:
    """The second state's gradient comes in at the end, or from what comes after."""
    following = {(0, 0): (1, 0), (1, 0): (1, 0), (0, 1): (1, 1), (1, 1): (1, 1)}
    assert taken(Vjps(following), (False, True), Cut(2, 1), 5) == ["11", "1", "11", "1", "1"]
    assert taken(Vjps(following), (False, False), Cut(2, 1), 5) == ["10", "0", "10", "0", "0"]


def test_what_comes_to_an_accumulator_some_steps_from_the_end_comes_to_it_before_a_cut() -> None:
    following = {(0, 0): (1, 0), (1, 0): (1, 1), (0, 1): (1, 1), (1, 1): (1, 1)}
    assert taken(Vjps(following), (False, False), Cut(4, 1), 8) == [*("11", "11", "11", "1"), *("11", "11", "10", "0")]


SWAPPING = {(0, 0): (0, 0), (1, 0): (0, 1), (0, 1): (1, 0), (1, 1): (1, 1)}


def test_where_no_vjp_is_right_far_from_every_end_absent_gradients_are_zeros() -> None:
    vjps = Vjps(SWAPPING)
    small = Small(vjps.builder)
    gradients = Gradients((F32, None), (True, False), (), (), False)
    (at_end, last), (at_cut, before_cut), (always, usual) = branches_from_end(small.step, vjps, gradients, Cut(4, 1))
    assert vjps.asked[-1] == ((1, 1), False, False) and always is None and last is usual
    for when, steps in ((at_end, [7]), (at_cut, [3])):  # the last step has what comes in at the end, cut or not
        assert [t for t in range(8) if when is not None and holds(when, t, 8)] == steps
    assert [told_all(g) for g in usual.grad_states] == [["grad_state0"], ["grad_state1"]]
    assert [told_all(g) for g in before_cut.grad_states] == [["0.0"], ["grad_state1"]]


def test_vjps_that_are_settled_but_not_alike_are_one_with_zeros() -> None:
    """No gradient ever comes into the second state from a cut on, but one does from the end on."""
    vjps = Vjps({(0, 0): (0, 0), (0, 1): (0, 1), (1, 1): (1, 1)})
    small = Small(vjps.builder)
    gradients = Gradients((F32, None), (True, True), (), (), False)
    branches = branches_from_end(small.step, vjps, gradients, Cut(4, 2))
    assert [told_all(vjp.grad_inputs) for _, vjp in branches] == [["grad_output11"]] * 3
    assert {apart for _, apart, _ in vjps.asked} == {True, False}
    assert vjps.asked[-1] == ((1, 1), False, False)
    assert [told_all(g) for g in branches[1][1].grad_states] == [["0.0"], ["0.0"]]


def test_gradients_in_parts_that_never_settle_are_added_up_first() -> None:
    parts = Vjps({(0,): (1,), (1,): (2,), (2,): (1,)})

    def vjp(outputs: tuple[bool, ...], states: Pattern, apart: bool, last: bool) -> StepVjp:
        found = parts(outputs, states, apart, last)
        return found if apart else replace(found, grad_states=(found.grad_states[0][:1],))

    branches = branches_from_end(Small(parts.builder).step, vjp, NONE_AT_THE_END, Cut(3, 1))
    assert [told_all(found.grad_inputs) for _, found in branches] == [["grad_output0"], ["grad_output1"]]


def test_conditions_are_of_the_step_index_and_the_number_of_steps() -> None:
    vjps = Vjps({(0,): (1,), (1,): (1,)})
    (when, _), _ = branches_from_end(Small(vjps.builder).step, vjps, NONE_AT_THE_END, Cut(3, 1))
    assert when is not None and when.dtype == torch.bool
    assert told(when) == (
        "logical_and(logical_or(eq(add(t, 1), T), eq(remainder(add(t, 1), 3), 0)), logical_not(False))"
    )
