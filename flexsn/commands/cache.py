"""``cache``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from flexsn import kernels
from flexsn.commands.command import Command

__all__ = ["COMMAND", "contents"]


def contents() -> str:
    """How much is in the kernel cache."""
    files = kernels.cached_kernels()
    return f"{len(files):,} kernels, {sum(files.values()) / 2**20:,.1f} MiB"


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--clear", action="store_true", help="remove all compiled kernels")


def _run(options: Namespace) -> int:
    print(f"{kernels.cache_dir()}: {contents()}")
    if options.clear:
        print(f"removed {kernels.clear_cache():,} kernels; what is needed again is compiled again")
    return 0


COMMAND = Command(
    "cache", "where compiled kernels are kept, and how much they take", _arguments, _run, ("cache", "cache --clear")
)
