"""The built wheel, installed where the tree is not: every file is there, and the neurons run. ``make wheel``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import torch

import flexsn
from flexsn import FlexSN, neurons

ROOT = Path(__file__).parents[2]
PACKAGES = {"flexsn": "flexsn", "kernels": "flexsn.kernels", "neurons": "flexsn.neurons"}
FILES = sorted(p for folder in PACKAGES for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".h", ".typed"))
PRESETS: dict[str, Callable[[], FlexSN]] = {
    "LIF": lambda: neurons.LIF(step_mode="m"),
    "spikingjelly": lambda: neurons.spikingjelly.LIFNode(step_mode="m"),
    "snntorch": lambda: neurons.snntorch.Leaky(0.9),
    "norse": lambda: neurons.norse.LIF(),
    "rnnbuilder": lambda: neurons.rnnbuilder.LIF(tau=4.0, in_shape=5),
}


def test_the_wheel_is_what_is_tested() -> None:
    assert not Path(flexsn.__file__).is_relative_to(ROOT / "flexsn")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_is_shipped(path: Path) -> None:
    folder, *rooms = path.parent.relative_to(ROOT).parts
    package = importlib.import_module(".".join([PACKAGES[folder], *rooms]))
    assert any((Path(place) / path.name).is_file() for place in package.__path__)


def test_the_metadata_are_those_of_the_project() -> None:
    tomllib = pytest.importorskip("tomllib")  # as of Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    built = metadata.metadata("flexsn")
    assert flexsn.__version__ == built["Version"] == project["version"]
    assert built["Requires-Python"] == project["requires-python"]
    assert built["License-Expression"] == "Apache-2.0" and built["Keywords"] and built["Author"]
    assert built.get_all("Classifier") == project["classifiers"]
    assert set(built.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    needed = {requirement for requirement in metadata.requires("flexsn") or () if "extra ==" not in requirement}
    assert needed == set(project["dependencies"])


@pytest.mark.parametrize("name", PRESETS)
def test_a_neuron_of_every_preset_runs(name: str) -> None:
    neuron = PRESETS[name]()
    x = torch.rand(6, 3, 5).mul(3).requires_grad_()
    returned = neuron(x)
    spikes = returned[0] if isinstance(returned, tuple) else returned
    (gradient,) = torch.autograd.grad(spikes.sum(), x)
    assert spikes.any() and gradient.any()
