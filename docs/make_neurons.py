"""Writes docs/neurons.md, the table of built-in neurons, from the code.

python docs/make_neurons.py
"""

from __future__ import annotations

import inspect
from pathlib import Path

import torch

from flexsn import FlexSN, neurons
from flexsn.commands.neurons import formulas, neurons_of
from flexsn.neurons import norse, rnnbuilder, snntorch, spikingjelly
from flexsn.report.build import plan_kernels

TARGET = Path(__file__).with_name("neurons.md")
CHECKPOINT = 8
PRESETS = {"spikingjelly": spikingjelly, "snntorch": snntorch, "norse": norse, "rnnbuilder": rnnbuilder}
NEEDS_ARGUMENTS = {
    "LIAF": lambda: neurons.LIAF(torch.relu, True),
    "Refractory": lambda: neurons.Refractory(neurons.IF(), 2),
}

HEAD = f"""# Built-in neurons

Written by `docs/make_neurons.py` from the code; a test keeps it current. `h` is the membrane after charging, `s` the
spike, `Θ` the spike function, a prime what the next step starts from. Bytes are those a lane moves in one step of
fp32: inference, and a training step (forward + backward) with a checkpoint every {CHECKPOINT} steps.

| neuron | equations | states | coefficients | bytes, inference | bytes, training | presets built on it |
|---|---|---|---|---|---|---|
"""


def classes() -> list[type[FlexSN]]:
    """The neurons that scan a core, in alphabetical order."""
    return neurons_of(neurons)


def traffic(neuron: FlexSN) -> tuple[float, float]:
    """Bytes per lane and step: inference, and forward + backward."""
    neuron.checkpoint = CHECKPOINT
    moved = {k: plan.bytes_per_lane_step for k, (plan, _) in plan_kernels(neuron, "cpp", torch.float32).plans.items()}
    return moved["inference"], moved["forward"] + moved["backward"]


def equations(neuron_class: type[FlexSN]) -> str:
    """The formulas of the class's docstring."""
    return "; ".join(f"`{f.replace('|', chr(92) + '|')}`" for f in formulas(neuron_class))


def presets(neuron_class: type[FlexSN]) -> str:
    """The preset classes made of it."""
    found = []
    for module_name, module in PRESETS.items():
        for name in module.__all__:
            candidate = getattr(module, name)
            if inspect.isclass(candidate) and _built_on(candidate) is neuron_class is not candidate:
                found.append(f"{module_name}.{name}")
    return ", ".join(found)


def _built_on(candidate: type) -> type | None:
    """The nearest canonical neuron a class derives from."""
    canonical = classes()
    return next((base for base in candidate.__mro__ if base in canonical), None)


def row(neuron_class: type[FlexSN]) -> str:
    name = neuron_class.__name__
    neuron = NEEDS_ARGUMENTS.get(name, neuron_class)()
    inference, training = traffic(neuron)
    coefficients = ", ".join(dict.fromkeys(n for base in neuron_class.__mro__ for n in _coefficients(base)))
    cells = (name, equations(neuron_class), ", ".join(neuron.state_names), coefficients,
             f"{inference:g}", f"{training:g}", presets(neuron_class))  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


def _coefficients(base: type) -> list[str]:
    return [n for n, value in vars(base).items() if isinstance(value, neurons.Coefficient)]


def document() -> str:
    """The whole document."""
    return HEAD + "".join(row(c) for c in classes())


if __name__ == "__main__":
    TARGET.write_text(document())
