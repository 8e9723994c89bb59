"""What a command is."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Command", "UsageError"]


class UsageError(Exception):
    """A command was asked for something that is not there; the text says what there is. Exit status 2."""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: typed after ``python -m flexsn``.
        what: it does, in one line.
        arguments: adds what it takes to a parser.
        run: does it; returns the exit status.
        examples: how it is typed.
    """

    name: str
    what: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    examples: tuple[str, ...] = ()
