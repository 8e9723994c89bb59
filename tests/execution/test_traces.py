"""Memo: once per key, failures too; the least recently wanted is forgotten first."""

from __future__ import annotations

from typing import Any

import pytest

from flexsn import UnsupportedOpError
from flexsn.execution.traces import REMEMBERED, TraceEntry, Traces, once, remember


def test_once_per_key() -> None:
    made: dict[Any, Any] = {}
    assert [once(made, key, lambda: [0]) is once(made, key, lambda: [1]) for key in "ab"] == [True, True]


def test_a_failure_is_remembered() -> None:
    made: dict[Any, Any] = {}
    tries = []

    def fail() -> object:
        tries.append(1)
        raise UnsupportedOpError("no")

    for _ in range(3):
        with pytest.raises(UnsupportedOpError, match="no"):
            once(made, "key", fail)
    assert len(tries) == 1


def test_another_exception_is_not() -> None:
    made: dict[Any, Any] = {}
    with pytest.raises(ZeroDivisionError):
        once(made, "key", lambda: 1 / 0)
    assert once(made, "key", lambda: 2.0) == 2.0


def test_what_is_wanted_again_stays() -> None:
    made: dict[Any, Any] = {}
    for i in range(3 * REMEMBERED):
        once(made, "wanted", lambda: "first")
        once(made, i, lambda: "other")
    assert len(made) == REMEMBERED
    assert once(made, "wanted", lambda: "again") == "first"


def test_the_oldest_is_forgotten() -> None:
    made: dict[Any, Any] = {}
    for i in range(4):
        remember(made, i, str(i), 2)
    assert made == {2: "2", 3: "3"}


@pytest.mark.parametrize("holds", [False, True])
def test_what_is_remembered_holds_as_long_as_the_core_does_that(holds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TraceEntry, "still_holds", lambda self: holds)
    assert Traces._still_holds(object.__new__(TraceEntry)) is holds
    assert Traces._still_holds(None)  # nothing to be made anew
    assert not Traces._still_holds(UnsupportedOpError("no"))  # the core may do better now
