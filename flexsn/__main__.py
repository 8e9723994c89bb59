"""``python -m flexsn``, or ``flexsn``: see ``docs/command-line.md``."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib.metadata import version

from flexsn import FlexSNError
from flexsn.commands import COMMANDS, UsageError

__all__ = ["main"]

PROGRAM = "python -m flexsn"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0: done; 1: a check failed, or a core cannot be used so; 2: it was not asked rightly; 130: interrupted.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    if not given:
        parser.print_help()
        return 0
    names = [command.name for command in COMMANDS]
    if not given[0].startswith("-") and given[0] not in names:
        print(f"unknown command {given[0]!r}\n\n{parser.format_help()}", end="", file=sys.stderr)
        return 2
    options = parser.parse_args(given)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except FlexSNError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # what it was piped into has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=PROGRAM,
        description="Spiking neurons from one step in PyTorch.",
        epilog=f"{PROGRAM} COMMAND --help says more.",
    )
    parser.add_argument("--version", action="version", version=f"flexsn {version('flexsn')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        examples = "\n".join(f"  {PROGRAM} {example}" for example in command.examples)
        own = commands.add_parser(
            command.name,
            help=command.what,
            description=command.what,
            epilog=examples and f"examples:\n{examples}",
            formatter_class=RawDescriptionHelpFormatter,
        )
        command.arguments(own)
        own.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
