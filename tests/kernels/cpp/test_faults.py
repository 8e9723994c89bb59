"""Whatever befalls compilers and the cache: the loop's values, at most one warning, and by name a BackendError."""

from __future__ import annotations

import itertools
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import COMPILATIONS, PLACES, SECONDS, VERSIONS, WORKING, Compilers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from flexsn import BackendError, FallbackWarning, FlexSN
from flexsn.execution.backends import supported_backends
from flexsn.kernels import cache
from flexsn.kernels.cpp import compiler as cpp_compiler
from flexsn.surrogate import ATan

pytestmark = pytest.mark.skipif("cpp" not in supported_backends(), reason="needs a C++ compiler")
UNLOADABLE = ("writes nothing", "writes nonsense", "writes another machine's", "writes no kernel")
numbers = itertools.count()
spike = ATan()


def core(x: Tensor, v: Tensor) -> Any:
    h = v + (x - v) / 3.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def run(backend: str = "auto") -> tuple[Tensor, Tensor]:
    x = torch.linspace(-1, 4, 60).reshape(5, 12).requires_grad_()
    neuron = FlexSN(core, backend=backend)
    y = neuron(x)
    neuron.reset()
    neuron(x)
    return y.detach(), torch.autograd.grad(y.sum(), x)[0]


def categories() -> list[type[Warning]]:
    """Those of the warnings of a run with ``backend="auto"``, whose values are the loop's."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = run()
    for got, want in zip(found, run("torch"), strict=True):
        assert torch.equal(got, want)
    return [w.category for w in caught if not issubclass(w.category, ResourceWarning)]


@pytest.fixture(scope="module")
def compilers(tmp_path_factory: pytest.TempPathFactory) -> Compilers:
    return Compilers(tmp_path_factory.mktemp("compilers"))


@pytest.fixture(scope="module")
def entries(compilers: Compilers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the entries of both kernels, and the compiler ``good`` that made them."""
    directory = tmp_path_factory.mktemp("cache") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", str(compilers.script("good")))
        patch.setenv("FLEXSN_CACHE_DIR", str(directory))
        assert categories() == []
    assert len(list(directory.iterdir())) == 2
    return directory


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FLEXSN_BACKEND", raising=False)
        patch.setattr(cpp_compiler, "VERSION_SECONDS", SECONDS)
        patch.setattr(cpp_compiler, "COMPILE_SECONDS", SECONDS)
        yield patch


# ---- compilers --------------------------------------------------------------------------------------------------


def check_compiler(version: str, compilation: str, compilers: Compilers, patch: pytest.MonkeyPatch) -> None:
    name = f"compiler {next(numbers)}"
    patch.setenv("FLEXSN_CACHE_DIR", str(compilers.directory / f"cache of {name}"))
    patch.setenv("CXX", f"'{compilers.script(name, version, compilation)}'")
    if version != "hangs" and compilation in WORKING:
        assert categories() == []
        return
    assert categories() == [FallbackWarning]
    for _ in range(2):
        with pytest.raises(BackendError, match="kernel cannot be loaded" if compilation in UNLOADABLE else name):
            run("cpp")
    left = {file.suffix for file in cache.cache_dir().iterdir() if file.is_file()}
    assert left == set()


@pytest.mark.usefixtures("entries")
@pytest.mark.parametrize(
    "version, compilation", [*((v, "compiles") for v in VERSIONS), *(("says", c) for c in COMPILATIONS)]
)
def test_a_compiler(version: str, compilation: str, compilers: Compilers, patch: pytest.MonkeyPatch) -> None:
    check_compiler(version, compilation, compilers, patch)


@pytest.mark.usefixtures("entries")
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    version=st.sampled_from([v for v in VERSIONS if v != "hangs"]),
    compilation=st.sampled_from([c for c in COMPILATIONS if "hang" not in c]),
)
def test_random_compilers(version: str, compilation: str, compilers: Compilers, patch: pytest.MonkeyPatch) -> None:
    check_compiler(version, compilation, compilers, patch)


@pytest.mark.parametrize("command", ['g++ "-O1', "g++ 'x", "\\", "g++ \udce9", "/", "''", "~", "\t\udcff"])
def test_a_command_that_is_none(command: str, compilers: Compilers, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("FLEXSN_CACHE_DIR", str(compilers.directory / f"cache {next(numbers)}"))
    patch.setenv("CXX", command)
    assert categories() == [FallbackWarning]
    with pytest.raises(BackendError):
        run("cpp")


@pytest.mark.parametrize("command", ["", "  ", "\n"])
def test_no_command_means_the_systems(command: str, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("CXX", command)
    assert cpp_compiler.find_compiler().command[0] in ("g++", "c++", "clang++")


# ---- entries ----------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(entries: Path, compilers: Compilers, patch: pytest.MonkeyPatch) -> Path:
    return fresh_entries(entries, compilers, patch)


def fresh_entries(entries: Path, compilers: Compilers, patch: pytest.MonkeyPatch) -> Path:
    directory = entries.with_name(f"damaged {next(numbers)}")
    shutil.copytree(entries, directory)
    directory.chmod(0o700)
    patch.setenv("FLEXSN_CACHE_DIR", str(directory))
    patch.setenv("CXX", str(compilers.directory / "good"))
    return directory


def is_mended(directory: Path, entries: Path) -> bool:
    return all((directory / e.name).read_bytes() == e.read_bytes() for e in entries.iterdir())


@pytest.mark.parametrize("place", PLACES)
def test_an_entry_that_is(place: str, damaged: Path, entries: Path, compilers: Compilers) -> None:
    found = sorted(damaged.iterdir())
    for entry in found[:1] if place == "exchanged" else found:
        PLACES[place](entry, found, compilers.store)
    assert categories() == []
    assert "directory" in place or is_mended(damaged, entries)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_damage(data: st.DataObject, entries: Path, compilers: Compilers, patch: pytest.MonkeyPatch) -> None:
    directory = fresh_entries(entries, compilers, patch)
    found = sorted(directory.iterdir())
    for entry in found:
        kind = data.draw(st.sampled_from(["none", "changed", "cut", "longer", *PLACES]))
        if not entry.is_file():  # the other one's damage took it along
            continue
        content = entry.read_bytes()
        if kind == "changed":
            at = data.draw(st.integers(0, len(content) - 1))
            entry.write_bytes(content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :])
        elif kind == "cut":
            entry.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        elif kind == "longer":
            at = data.draw(st.integers(0, len(content)))
            entry.write_bytes(content[:at] + data.draw(st.binary(min_size=1, max_size=64)) + content[at:])
        elif kind != "none" and not (kind == "exchanged" and not all(e.is_file() for e in found)):
            PLACES[kind](entry, found, compilers.store)
    assert categories() == []
