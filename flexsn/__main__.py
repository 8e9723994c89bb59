"""``python -m flexsn demo | explain | bench``."""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run one command; the process's exit status."""
    parser = ArgumentParser(
        prog="python -m flexsn",
        description="Spiking neurons from one step in PyTorch.",
        epilog="python -m flexsn COMMAND --help says more.",
    )
    parser.add_argument("--version", action="version", version=f"flexsn {version('flexsn')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    what = "train a small spiking network with a neuron of its own on handwritten digits"
    demo = commands.add_parser("demo", help=what, description=what)
    demo.add_argument("--epochs", type=int, default=12)
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--backend", default="auto", choices=("auto", "triton", "cpp", "torch"))
    demo.add_argument("--picture", default="demo.png", help="where to write it (default: %(default)s)")
    demo.set_defaults(run=_demo)

    what = "what was traced, saved, moved and generated for a neuron: explain LIF --target sm_90"
    explain = commands.add_parser("explain", help=what, description=what)
    explain.add_argument("neuron", help="a class of flexsn.neurons, such as LIF")
    explain.add_argument("--target", default=None, help="cpp (default), sm_80, sm_90, sm_100 or gfx942")
    explain.add_argument("--dtype", default="float32", choices=("float64", "float32", "float16", "bfloat16"))
    explain.add_argument("--passes", action="store_true", help="show every form from the core to the kernels instead")
    explain.set_defaults(run=_explain)

    what = "time LIF and PLIF beside the loop and the peers (from a source checkout)"
    commands.add_parser("bench", help=what)

    if not arguments:
        parser.print_help()
        return 0
    if not arguments[0].startswith("-") and arguments[0] not in commands.choices:
        print(f"unknown command {arguments[0]!r}\n\n{parser.format_help()}", end="", file=sys.stderr)
        return 2
    if arguments[0] == "bench":
        return _bench(arguments[1:])
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


def _demo(options: Namespace) -> int:
    from flexsn import demo

    return demo.main(options.epochs, options.seed, options.backend, options.picture)


def _explain(options: Namespace) -> int:
    import torch

    from flexsn import FlexSN, FlexSNError, explain, neurons

    neuron = getattr(neurons, options.neuron, None)
    if not (isinstance(neuron, type) and issubclass(neuron, FlexSN)):
        known = sorted(name for name in dir(neurons) if name[0].isupper())
        print(f"flexsn.neurons has no neuron {options.neuron!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    try:
        report = explain(neuron(), options.target, getattr(torch, options.dtype))
    except FlexSNError as error:
        print(error, file=sys.stderr)
        return 1
    if options.passes:
        print("\n\n".join(f"# ---- {name} ----\n{text}" for name, text in report.passes))
    else:
        print(report)
    return 0


def _bench(arguments: Sequence[str]) -> int:
    script = Path(__file__).resolve().parent.parent / "bench" / "cpu.py"
    if not script.exists():
        print("the benchmarks are part of the source checkout: bench/cpu.py", file=sys.stderr)
        return 2
    return subprocess.run([sys.executable, str(script), *arguments], check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
