"""``neurons``: the built-in neurons, and a picture of one."""

from __future__ import annotations

import inspect
import re
import textwrap
from argparse import ArgumentParser, Namespace
from types import ModuleType

import torch
from torch import Tensor

from flexsn import FlexSN, neurons, plot
from flexsn.commands.command import Command, UsageError
from flexsn.commands.subject import PRESETS, find_subject

__all__ = ["COMMAND", "formulas", "neurons_of"]

_STEPS, _LANES, _SEED = 120, 24, 0
_BASES = {"Neuron", "SpikingNeuron", "BaseNode", "SimpleBaseNode", "AdaptBaseNode", "NonSpikingBaseNode"}


def neurons_of(room: ModuleType) -> list[type[FlexSN]]:
    """The neurons of a room that scan a core, in alphabetical order; no classes that are only for subclasses."""
    found = [getattr(room, name) for name in room.__all__ if name not in _BASES]
    return sorted((c for c in found if inspect.isclass(c) and issubclass(c, FlexSN)), key=lambda c: c.__name__)


def formulas(neuron: type[FlexSN]) -> list[str]:
    """The equations in the docstring of a neuron's class."""
    text = inspect.cleandoc(neuron.__doc__ or "").split("Args:")[0]
    found = (" ".join(f.split()) for f in re.findall(r"``(.+?)``", text, flags=re.DOTALL))
    return [formula for formula in found if re.search(r"[=≥>]", formula)]


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="NAME", help="draw what a neuron does instead, of our own or FILE.py:NAME")
    parser.add_argument("--out", metavar="FILE", help="where to (default: NAME.png)")


def _run(options: Namespace) -> int:
    if options.plot is not None:
        return _plot(options.plot, options.out or f"{options.plot.rpartition(':')[2].rpartition('.')[2]}.png")
    print("h is the membrane after charging, s the spike, Θ the spike function; a prime is what the next step has.\n")
    for neuron in neurons_of(neurons):
        summary = _summary(neuron)
        print(f"{neuron.__name__}: {summary}")
        for formula in formulas(neuron):
            if formula not in summary:
                print(_filled(formula))
    print("\nBy the names of other libraries, with their arguments:")
    for name in PRESETS:
        names = ", ".join(n.__name__ for n in neurons_of(getattr(neurons, name)))
        print(_filled(f"{name}: {names}"))
    print("\npython -m flexsn explain NAME, check NAME and neurons --plot NAME say more.")
    return 0


def _filled(text: str) -> str:
    return textwrap.fill(text, 116, initial_indent="    ", subsequent_indent="      ")


def _summary(neuron: type[FlexSN]) -> str:
    first = inspect.cleandoc(neuron.__doc__ or "").partition("\n\n")[0]
    return re.sub(r":\w+:`~?([^`]*)`|``", r"\1", " ".join(first.split()))


def _plot(name: str, path: str) -> int:
    neuron = find_subject(name)
    title = f"{name}, currents of 0 to 3 in steps 10 to 99"
    try:
        figure = plot.neuron_report(neuron, _currents(neuron.num_inputs), title=title)
    except ImportError as error:
        raise UsageError(str(error)) from error
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:  # no such folder, no such kind of picture
        raise UsageError(f"{path} cannot be written: {error}") from error
    print(f"picture: {path}")
    return 0


def _currents(count: int) -> tuple[Tensor, ...]:
    """A step of current, stronger from lane to lane, with a little noise."""
    generator = torch.Generator().manual_seed(_SEED)
    t = torch.arange(_STEPS)
    on = ((t >= 10) & (t < 100)).float()[:, None]
    strength = torch.linspace(0.0, 3.0, _LANES)
    return tuple(on * strength + 0.1 * torch.randn(_STEPS, _LANES, generator=generator) for _ in range(count))


COMMAND = Command(
    "neurons",
    "the built-in neurons and their equations; --plot draws what one does",
    _arguments,
    _run,
    ("neurons", "neurons --plot ALIF --out alif.png", "neurons --plot my_file.py:core"),
)
