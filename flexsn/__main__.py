"""``python -m flexsn demo | explain | bench``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]

_USAGE = """usage: python -m flexsn COMMAND [options]

commands:
  demo      train a small spiking network with a neuron of its own on handwritten digits
  explain   what was traced, saved, moved and generated for a neuron: explain LIF --target sm_90
  bench     time LIF and PLIF beside the loop and the peers (from a source checkout)

python -m flexsn COMMAND --help says more."""


def main(arguments: Sequence[str]) -> int:
    """Run one command; the process's exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    command, *rest = arguments
    if command == "demo":
        from flexsn import demo

        return demo.main(rest)
    if command == "explain":
        from flexsn.modules.explain import main as explain  # the package's own `explain` is the function

        return explain(rest)
    if command == "bench":
        return _bench(rest)
    print(f"unknown command {command!r}\n\n{_USAGE}", file=sys.stderr)
    return 2


def _bench(arguments: Sequence[str]) -> int:
    script = Path(__file__).resolve().parent.parent / "bench" / "cpu.py"
    if not script.exists():
        print("the benchmarks are part of the source checkout: bench/cpu.py", file=sys.stderr)
        return 2
    return subprocess.run([sys.executable, str(script), *arguments], check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
