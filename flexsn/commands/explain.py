"""``explain``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

import torch

from flexsn import explain
from flexsn.commands.command import Command
from flexsn.commands.subject import add_subject, find_subject

__all__ = ["COMMAND"]


def _arguments(parser: ArgumentParser) -> None:
    add_subject(parser)
    parser.add_argument("--target", default=None, help="cpp (default), sm_80, sm_90, sm_100 or gfx942")
    parser.add_argument("--dtype", default="float32", choices=("float64", "float32", "float16", "bfloat16"))
    parser.add_argument("--passes", action="store_true", help="show every form from the core to the kernels instead")


def _run(options: Namespace) -> int:
    report = explain(find_subject(options.neuron), options.target, getattr(torch, options.dtype))
    if options.passes:
        print("\n\n".join(f"# ---- {name} ----\n{text}" for name, text in report.passes))
    else:
        print(report)
    return 0


COMMAND = Command(
    "explain",
    "what was traced, saved, moved and generated for a neuron",
    _arguments,
    _run,
    ("explain LIF", "explain LIF --target sm_90", "explain my_file.py:core --passes"),
)
