"""``check``."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from flexsn import FlexSNError, check
from flexsn.commands.command import Command, UsageError
from flexsn.commands.subject import add_subject, find_subject

__all__ = ["COMMAND"]


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(size) for size in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ArgumentTypeError(f"{text!r} is no shape T,B,...: sizes of at least 1 with commas between them")
    return shape


def _arguments(parser: ArgumentParser) -> None:
    add_subject(parser)
    parser.add_argument(
        "--shape", type=_shape, action="append", default=[], metavar="T,B,...",
        help="of the inputs, time first; may be given several times (default: shapes that the parameters fit)",
    )  # fmt: skip
    parser.add_argument(
        "--backend", action="append", metavar="NAME",
        choices=("triton", "cpp"), help="to compare: triton or cpp, which then has to run here (default: all that do)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)


def _run(options: Namespace) -> int:
    neuron = find_subject(options.neuron)
    try:
        result = check(neuron, *options.shape, backends=options.backend, seed=options.seed, raise_exception=False)
    except ValueError as error:
        if isinstance(error, FlexSNError):
            raise
        raise UsageError(str(error)) from error
    print(result)
    return 0 if result else 1


COMMAND = Command(
    "check",
    "does a core compile, and does every backend here give what the loop gives? Status 1 if not",
    _arguments,
    _run,
    ("check my_file.py:core", "check my_file.py:core --shape 20,4,128", "check LIF --backend cpp"),
)
