"""What a code object names, and what it may ask for by string."""

from __future__ import annotations

import functools
from typing import Any

from flexsn.captures.bytecode import argument_names, reads_of

KNOWN = 1.0


def test_globals_and_attributes() -> None:
    def function(held: Any) -> Any:
        return held.gain.deeper * KNOWN + held.method()

    reads = reads_of(function.__code__)
    assert reads.globals == {"KNOWN"}
    assert reads.attributes == {"gain", "deeper", "method"}
    assert reads.perhaps == set()
    assert not reads.reflects


def test_nested_functions_count() -> None:
    def function(held: Any) -> Any:
        return [KNOWN * item.gain for item in held] + [(lambda: held.inner)()]

    reads = reads_of(function.__code__)
    assert "KNOWN" in reads.globals
    assert {"gain", "inner"} <= reads.attributes


def test_what_is_written_may_be_absent_now() -> None:
    def function(held: Any) -> None:
        held.count = held.gain

    assert reads_of(function.__code__).perhaps == {"count"}


def test_strings_count_where_attributes_are_asked_for_by_string() -> None:
    def by_string(held: Any) -> Any:
        return getattr(held, "gain", "not a name")

    def only_a_string(held: Any) -> Any:
        return held["gain"]

    assert reads_of(by_string.__code__).reflects
    assert reads_of(by_string.__code__).perhaps == {"gain"}
    assert "gain" in reads_of(by_string.__code__).attributes
    assert not reads_of(only_a_string.__code__).reflects
    assert reads_of(only_a_string.__code__).attributes == set()


def test_argument_names() -> None:
    class Held:
        def method(self, x: Any, v: Any) -> None: ...

    assert argument_names(lambda x, v, *more, tau=1.0: None) == ("x", "v")
    assert argument_names(Held().method) == ("x", "v")
    assert argument_names(functools.partial(max)) == argument_names(max) == ()
