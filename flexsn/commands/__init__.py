"""``python -m flexsn``: one file a command."""

from flexsn.commands import bench, cache, check, demo, explain, info, neurons
from flexsn.commands.command import Command, UsageError

__all__ = ["COMMANDS", "Command", "UsageError"]

COMMANDS = (
    demo.COMMAND,
    neurons.COMMAND,
    explain.COMMAND,
    check.COMMAND,
    bench.COMMAND,
    info.COMMAND,
    cache.COMMAND,
)
"""In the order of a newcomer's questions."""
