"""What a machine cannot build, or is told to run: the loop and one warning, or an error if asked by name."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from flexsn import BackendError, FallbackWarning, FlexSN, UnsupportedOpError
from flexsn.execution.backends import supported_backends
from tests import fresh
from tests.flexsn.contract_cores import lif, sequence

COMPILED = [name for name in supported_backends() if name == "cpp"]
PROGRAM = """
import warnings, torch
from flexsn import FlexSN, surrogate, FlexSNError, FallbackWarning
spike = surrogate.ATan()
def core(x, v):
    h = v + (x - v) / 3.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)
x = torch.linspace(-1, 4, 60).reshape(5, 12).requires_grad_()
expected = FlexSN(core, backend="torch")(x)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    neuron = FlexSN(core)
    y = neuron(x)
    neuron.reset()
    neuron(x)
    neuron.reset()
    neuron(x[:, :5])
    (grad,) = torch.autograd.grad(y.sum(), x)
assert torch.equal(y, expected)
assert torch.equal(grad, torch.autograd.grad(expected.sum(), x)[0])
print(len(caught), *(f"{w.category.__name__}: {w.message}" for w in caught))
try:
    FlexSN(core, backend="cpp")(x)
    print("compiled")
except FlexSNError as error:
    print(type(error).__name__, error)
"""


def run_program(cache: Path, program: str = PROGRAM, **environment: str) -> tuple[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "FLEXSN_PRINT_CODE")}
    done = fresh.run(program, environment={**kept, "FLEXSN_CACHE_DIR": str(cache), **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("compiler", ["/nonexistent", "false", "broken"])
def test_no_compiler(compiler: str, tmp_path: Path) -> None:
    if compiler == "broken":
        script = tmp_path / "cxx"
        script.write_text("not a program")
        script.chmod(0o755)
        compiler = str(script)
    out, _ = run_program(tmp_path / "cache", CXX=compiler)
    assert out.startswith("1 FallbackWarning: running the torch loop")
    assert compiler in out.splitlines()[1]
    assert "\nBackendError " in out


@pytest.mark.skipif(not COMPILED, reason="needs a C++ compiler")
def test_a_compiler_that_writes_nonsense(tmp_path: Path) -> None:
    script = tmp_path / "cxx"
    script.write_text('#!/bin/sh\nwhile [ "$1" ]; do [ "$1" = -o ] && echo nonsense > "$2"; shift; done\nexit 0\n')
    script.chmod(0o755)
    out, _ = run_program(tmp_path / "cache", CXX=str(script))
    assert out.startswith("1 FallbackWarning: running the torch loop")


@pytest.fixture(scope="module")
def whole_cache(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The cache that the program fills, and what it prints then."""
    cache = tmp_path_factory.mktemp("whole") / "cache"
    return cache, run_program(cache)[0]


@pytest.mark.skipif(not COMPILED, reason="needs a C++ compiler")
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"x" * 99, lambda b: b[:-1]])
def test_a_damaged_cache_file_is_made_again(
    damage: Callable[[bytes], bytes], whole_cache: tuple[Path, str], tmp_path: Path
) -> None:
    made, first = whole_cache
    cache = tmp_path / "cache"
    shutil.copytree(made, cache)
    files = sorted(cache.glob("*.so"))
    whole = [file.read_bytes() for file in files]
    for file, content in zip(files, whole, strict=True):
        file.write_bytes(damage(content))
    again, _ = run_program(cache)
    assert first == again == "0\ncompiled\n"
    assert len(files) >= 2
    assert [file.read_bytes()[-32:] != damage(content)[-32:] for file, content in zip(files, whole, strict=True)]
    assert sorted(cache.iterdir()) == files


@pytest.mark.skipif(not COMPILED, reason="needs a C++ compiler")
def test_two_processes_at_once(tmp_path: Path) -> None:
    environment = {**os.environ, "FLEXSN_CACHE_DIR": str(tmp_path / "cache")}
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(fresh.run, PROGRAM, environment=environment) for _ in range(2)]
    assert [process.result().stdout for process in running] == ["0\ncompiled\n"] * 2
    assert {file.suffix for file in (tmp_path / "cache").iterdir()} == {".so"}


@pytest.mark.skipif(not COMPILED, reason="needs a C++ compiler")
def test_print_code(tmp_path: Path) -> None:
    _, code = run_program(tmp_path / "cache", FLEXSN_PRINT_CODE="1")
    _, quiet = run_program(tmp_path / "cache", FLEXSN_PRINT_CODE="0")
    sources = len(list((tmp_path / "cache").glob("*.so")))
    assert code.count('extern "C"') == sources
    assert 'extern "C"' not in quiet


@pytest.mark.parametrize("chosen", ["torch", *COMPILED])
def test_backend_from_the_environment(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXSN_BACKEND", chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = FlexSN(lif)(sequence(4, 3))
    assert torch.equal(y, FlexSN(lif, backend="torch")(sequence(4, 3)))
    if chosen != "torch":
        with pytest.raises(UnsupportedOpError):
            FlexSN(lambda x, v: (x.cumsum(-1), v))(sequence(4, 2, 3))


def test_a_wrong_backend_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXSN_BACKEND", "gpu")
    with pytest.raises(ValueError, match="backend must be one of"):
        FlexSN(lif)(sequence(4, 3))


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CXX", "/nonexistent/compiler")
    yield


@pytest.mark.usefixtures("no_compiler")
def test_what_the_machine_lacks_is_said_once_for_all_neurons() -> None:
    layers = [FlexSN(lambda x, v: (x + v, v)), FlexSN(lambda x, v: (x - v, v))]
    with pytest.warns(FallbackWarning) as caught:
        for layer in layers:
            layer(sequence(4, 3))
    assert len(caught) == 1
    text = str(caught[0].message)
    assert "where: CXX=/nonexistent/compiler" in text and "hint:  install g++" in text


@pytest.mark.usefixtures("no_compiler")
def test_supported_backends_follow_the_machine() -> None:
    assert "cpp" not in supported_backends()
    with pytest.raises(BackendError, match="/nonexistent/compiler not found"):
        FlexSN(lif, backend="cpp")(sequence(4, 3))
    with pytest.warns(FallbackWarning, match="/nonexistent/compiler not found"):
        FlexSN(lif)(sequence(4, 3))


def test_triton_on_cpu_tensors_says_what_it_needs() -> None:
    if "triton" in supported_backends():
        pytest.skip("Triton runs here")
    with pytest.raises(BackendError, match=r"GPU|cannot be imported"):
        FlexSN(lif, backend="triton")(sequence(4, 3))


@pytest.mark.parametrize("time_dim", [0, 1])
def test_a_backward_kernel_that_cannot_be_built(monkeypatch: pytest.MonkeyPatch, time_dim: int) -> None:
    """The disk filled up after the forward pass: the loop gives the gradients."""
    from flexsn.kernels.cpp.backend import CppBackend

    found = []
    for broken in (False, True):
        neuron = FlexSN(lambda x, v: (x * v, 0.5 * v + x * x), backend="cpp", time_dim=time_dim)
        x = torch.arange(6.0).reshape(3, 2).requires_grad_()
        y = neuron(x)
        with monkeypatch.context() as patch:
            if not broken:
                y.sum().backward()
            else:
                patch.setattr(CppBackend, "bind", raise_full_disk)
                with pytest.warns(FallbackWarning, match="running the torch loop backward instead"):
                    y.sum().backward()
        found.append(x.grad)
    assert found[0] is not None and torch.equal(*found)


def raise_full_disk(*args: object) -> None:
    raise BackendError("no space left on the device")
