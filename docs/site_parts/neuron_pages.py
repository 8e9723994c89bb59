"""The pages of docs/made: every neuron with its equations, states, coefficients and a trace, a page a library."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from flexsn import FlexSN, neurons
from flexsn.neurons import norse
from flexsn.neurons.parallel.base import ParallelNeuron
from site_parts.formulas import formulas, with_equations
from site_parts.traces import trace

__all__ = ["write_pages"]

PAGES = {
    "flexsn": ("flexsn.neurons", "Neurons, drawn"),
    "spikingjelly": ("flexsn.neurons.spikingjelly", "Neurons of SpikingJelly"),
    "snntorch": ("flexsn.neurons.snntorch", "Neurons of snnTorch"),
    "norse": ("flexsn.neurons.norse", "Neurons of Norse"),
    "rnnbuilder": ("flexsn.neurons.rnnbuilder", "Neurons of rnnbuilder"),
}
HEAD = """# {title}

Drawn by flexsn itself (`flexsn.plot`) when these pages were built: each neuron as it comes, with a current that is on
from step 10 to 60, chosen for about eight spikes. [The API](../api/{api}.md) has arguments, shapes and errors.
"""
BASES = {"Neuron", "SpikingNeuron", "BaseNode", "SimpleBaseNode", "AdaptBaseNode", "NonSpikingBaseNode", "FlexSN"}
MEMBRANES = {"v", "mem", "m"}
WIDTH = 2
FEATURES = {"SConv2dLSTM": (WIDTH, 4, 4)}
"""What inputs have behind the batch, where that is not ``WIDTH`` neurons."""
ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "PSN": lambda made: made(80),
    "MaskedPSN": lambda made: made(4, 80),
    "SlidingPSN": lambda made: made(4),
    "Refractory": lambda made: made(neurons.IF(), 4),
    "LIAF": lambda made: made(torch.relu, True),
    "LIAFNode": lambda made: made(torch.relu, True),
    "GatedLIFNode": lambda made: made(80),
    "SimpleLIFNode": lambda made: made(2.0, True),
    "Alpha": lambda made: made(0.9, 0.8),
    "Lapicque": lambda made: made(0.9),
    "Leaky": lambda made: made(0.9),
    "Synaptic": lambda made: made(0.9, 0.8),
    "StateLeaky": lambda made: made(0.9, WIDTH),
    "LinearLeaky": lambda made: made(0.9, WIDTH, WIDTH),
    "RLeaky": lambda made: made(0.9, 0.1, all_to_all=False),
    "RSynaptic": lambda made: made(0.9, 0.8, 0.1, all_to_all=False),
    "SConv2dLSTM": lambda made: made(WIDTH, WIDTH, 3),
    "Izhikevich": lambda made: made() if made is neurons.Izhikevich else made(norse.tonic_spiking),
}
"""Neurons that need arguments, but for those that only want to know how many inputs and neurons there are."""


def write_pages(folder: Path) -> None:
    """Write all of them."""
    folder.mkdir(exist_ok=True)
    for name, (module, title) in PAGES.items():
        text = "".join(page(import_module(module), title))
        target = folder / f"neurons-{name}.md"
        if not target.exists() or target.read_text() != text:
            target.write_text(text)


def page(module: ModuleType, title: str) -> Iterator[str]:
    yield HEAD.format(title=title, api=module.__name__.rpartition(".")[2])
    for first, *others in forms(module):
        yield from section(getattr(module, first), others)


def forms(module: ModuleType) -> list[list[str]]:
    """Its neurons, each with its other forms: step by step, with recurrent connections."""
    found: dict[str, list[str]] = {}
    for name in sorted(module.__all__, key=lambda name: ("Recurrent" in name, len(name))):
        candidate = getattr(module, name)
        if name not in BASES and inspect.isclass(candidate) and issubclass(candidate, FlexSN | ParallelNeuron):
            found.setdefault(re.sub(r"(Recurrent)?(Cell)?$", "", name), []).append(name)
    return [found[name] for name in sorted(found)]


def section(neuron_class: Any, others: list[str]) -> Iterator[str]:
    """One neuron."""
    name, library = neuron_class.__name__, neuron_class.__module__.split(".")[2]
    yield f"\n## {name}\n\n```{{eval-rst}}\n.. currentmodule:: {neuron_class.__module__}\n\n"
    yield f"{described(neuron_class)}\n```\n"
    made = _made(neuron_class)
    yield f"\n{facts(made, others)}\n"
    if MEMBRANES & set(getattr(made, "state_names", ())):
        made.step_mode = "m"
        drawn, current = trace(made, f"{library}-{name}", FEATURES.get(name, (WIDTH,)))
        caption = f"{name}, a current of {current:g}"
        yield f"\n```{{raw}} html\n<figure>{drawn}<figcaption>{caption}</figcaption></figure>\n```\n"


def _made(neuron_class: Any) -> Any:
    sized = "input_size" in inspect.signature(neuron_class).parameters
    return ARGUMENTS.get(neuron_class.__name__, lambda made: made(WIDTH, WIDTH) if sized else made())(neuron_class)


def described(neuron_class: type) -> str:
    """What its docstring says before the arguments, with the equations of a base if it has none of its own."""
    own = _about(neuron_class)
    if _has_equations(own):
        return with_equations(own)
    base = next((c for c in neuron_class.__mro__[1:] if _has_equations(_about(c))), None)
    return f"{own}\n\n{with_equations(_about(base))}" if base else own


def _about(some_class: type) -> str:
    text = inspect.cleandoc(vars(some_class).get("__doc__") or "")
    return re.split(r"^(?:Args|Shapes|States|Example|Attributes|Raises|Parameters):$", text, flags=re.MULTILINE)[
        0
    ].strip()


def _has_equations(text: str) -> bool:
    return ".. math::" in text or bool(formulas(text))


def facts(made: nn.Module, others: list[str]) -> str:
    """States, coefficients and learned parameters of a neuron as it comes, and its other forms."""
    states = ", ".join(f"`{name}`" for name in getattr(made, "state_names", ())) or "none"
    numbers = re.sub(r",? ?(step_mode|backend)='\w+'", "", made.extra_repr()).removeprefix(", ")
    learned = ", ".join(f"`{name}`" for name, _ in made.named_parameters())
    lines = [f"**States** {states}"]
    lines += [f"**As it comes** `{' '.join(numbers.split())}`"] if numbers else []
    lines += [f"**Learned** {learned}"] if learned else []
    lines += [f"**Also** {', '.join(f'`{name}`' for name in others)}"] if others else []
    return "\\\n".join(lines)
