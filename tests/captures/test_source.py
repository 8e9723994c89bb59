"""Source: every kind of place is read, written, emptied and filled again."""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import CellType, SimpleNamespace
from typing import Any

import pytest

from flexsn.captures.source import MISSING, Source

Pair = namedtuple("Pair", "first second")


@dataclass(frozen=True)
class Frozen:
    gain: float = 1.0


class Constants:
    gain = 1.0


class Slotted:
    __slots__ = ("gain",)


def slotted() -> Slotted:
    held = Slotted()
    held.gain = 1.0
    return held


PLACES: dict[str, Callable[[], Source]] = {
    "dict": lambda: Source("gain", {"gain": 1.0}, "gain", False),
    "list": lambda: Source("gain", [0.0, 1.0], 1, False),
    "cell": lambda: Source("gain", CellType(1.0), None, False),
    "attribute": lambda: Source("gain", SimpleNamespace(gain=1.0), "gain", False),
    "slot": lambda: Source("gain", slotted(), "gain", False),
    "frozen dataclass": lambda: Source("gain", Frozen(), "gain", False),
    "class": lambda: Source("gain", type("Own", (Constants,), {"gain": 1.0}), "gain", False),
}


@pytest.mark.parametrize("place", PLACES)
def test_read_and_write(place: str) -> None:
    source = PLACES[place]()
    assert source.read() == 1.0
    source.write(2.0)
    assert source.read() == 2.0


@pytest.mark.parametrize("place", ["dict", "cell", "attribute", "slot"])
def test_what_is_gone_reads_as_missing_and_can_be_put_back(place: str) -> None:
    source = PLACES[place]()
    source.write(MISSING)
    assert source.read() is MISSING
    source.write(1.0)
    assert source.read() == 1.0


@pytest.mark.parametrize("pair", [(0.0, 1.0), Pair(0.0, 1.0)])
def test_an_item_of_a_tuple_is_written_by_a_new_tuple(pair: Any) -> None:
    held = {"pair": pair}
    source = Source("pair.1", Source("pair", held, "pair", False), 1, False)
    assert source.read() == 1.0
    source.write(2.0)
    assert held["pair"] == (0.0, 2.0)
    assert type(held["pair"]) is type(pair)
    assert pair[1] == 1.0


def test_an_argument_of_a_partial() -> None:
    held = functools.partial(max, 1.0, key=abs)
    source = Source("argument0", Source("args", held, "args", False), 0, False)
    source.write(3.0)
    assert held.args == (3.0,)
    assert held.keywords == {"key": abs}
    assert held(-2.0) == 3.0


def test_a_value_of_the_class_comes_back_from_behind_the_instances_own() -> None:
    held = Constants()
    source = Source("gain", held, "gain", False)
    source.write(2.0)
    assert (held.gain, Constants.gain) == (2.0, 1.0)
    source.write(1.0)
    assert vars(held) == {}
