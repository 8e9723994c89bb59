"""``demo``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from flexsn import demo
from flexsn.commands.command import Command

__all__ = ["COMMAND"]


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="auto", choices=("auto", "triton", "cpp", "torch"))
    parser.add_argument("--picture", default="demo.png", help="where to write it (default: %(default)s)")


def _run(options: Namespace) -> int:
    return demo.main(options.epochs, options.seed, options.backend, options.picture)


COMMAND = Command(
    "demo", "train a small spiking network with a neuron of its own on handwritten digits", _arguments, _run
)
