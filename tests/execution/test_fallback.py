"""What a kernel cannot express or a machine cannot build: the loop and one warning, or an error if asked by name."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn import BackendError, FallbackWarning, FlexSN, UnsupportedOpError, scan
from flexsn.execution.backends import supported_backends
from tests.flexsn.contract_cores import lif, sequence

COMPILED = [name for name in supported_backends() if name == "cpp"]


@pytest.fixture(autouse=True)
def no_forced_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEXSN_BACKEND", raising=False)


def cumsum(x: Tensor, v: Tensor) -> Any:
    h = v + x.cumsum(-1)
    return h, h


def matmul(x: Tensor, v: Tensor) -> Any:
    h = v + x @ (x.transpose(-1, -2) @ x)
    return h, h


def softmax(x: Tensor, v: Tensor) -> Any:
    h = v + x.softmax(-1)
    return h, h


def mean(x: Tensor, v: Tensor) -> Any:
    h = v + x.mean(-1, keepdim=True)
    return h, h


def branch(x: Tensor, v: Tensor) -> Any:
    if x.sum() > 0:
        v = v + x
    return v, v


def item(x: Tensor, v: Tensor) -> Any:
    v = v + x * x.max().item()
    return v, v


def random(x: Tensor, v: Tensor) -> Any:
    v = v + x * torch.rand_like(x)
    return v, v


def in_place(x: Tensor, v: Tensor) -> Any:
    v = v + x
    OUTSIDE.add_(v.detach().sum())
    return v * OUTSIDE, v


def fixed_shape(x: Tensor, v: Tensor) -> Any:
    v = v + x.reshape(2, 3)
    return v, v


OUTSIDE = torch.zeros(())
UNSUPPORTED: list[tuple[Callable[..., Any], str, str]] = [
    (cumsum, "cumsum", "h = v + x.cumsum(-1)"),
    (matmul, "mm", "h = v + x @ (x.transpose(-1, -2) @ x)"),
    (softmax, "softmax", "h = v + x.softmax(-1)"),
    (mean, "mean", "h = v + x.mean(-1, keepdim=True)"),
    (branch, "torch.where", "if x.sum() > 0:"),
    (item, "torch.where", "v = v + x * x.max().item()"),
    (random, "rand", "v = v + x * torch.rand_like(x)"),
    (in_place, "add_", "OUTSIDE.add_(v.detach().sum())"),
    (fixed_shape, "reshape", "v = v + x.reshape(2, 3)"),
]


def expected_of(core: Callable[..., Any], x: Tensor) -> Tensor:
    torch.manual_seed(0)
    OUTSIDE.zero_()
    y, _ = scan(core, x, torch.zeros(2, 3), backend="torch")
    return y


@pytest.mark.parametrize("core, op, line", UNSUPPORTED)
def test_auto_runs_the_loop_with_one_warning(core: Callable[..., Any], op: str, line: str) -> None:
    x = sequence(4, 2, 3)
    neuron = FlexSN(core)
    neuron.states = (torch.zeros(2, 3),)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.manual_seed(0)
        OUTSIDE.zero_()
        y = neuron(x)
        for shape in ((4, 2, 3), (5, 2, 3)):
            neuron.states = (torch.zeros(2, 3),)
            neuron(sequence(*shape))
    caught = [w for w in caught if not issubclass(w.category, ResourceWarning)]  # whatever else left open
    assert [w.category for w in caught] == [FallbackWarning]
    text = str(caught[0].message)
    assert op in text.replace(line, "")
    assert line in text
    assert "test_fallback.py" in text
    assert caught[0].filename == __file__
    torch.testing.assert_close(y, expected_of(core, x), rtol=0, atol=0)


@pytest.mark.parametrize("core, op, line", UNSUPPORTED)
@pytest.mark.parametrize("chosen", COMPILED)
def test_a_backend_asked_for_by_name_raises(core: Callable[..., Any], op: str, line: str, chosen: str) -> None:
    neuron = FlexSN(core, backend=chosen)
    for _ in range(2):
        with pytest.raises(UnsupportedOpError) as caught:
            neuron(sequence(4, 2, 3))
        assert op in str(caught.value).replace(line, "")
        assert line in str(caught.value)


class Counter:
    def __init__(self) -> None:
        self.count = 0
        self.log: list[Tensor] = []
        self.last: Tensor | None = None

    def counts(self, x: Tensor, v: Tensor) -> Any:
        self.count += 1
        return v + x * self.count, v

    def logs(self, x: Tensor, v: Tensor) -> Any:
        self.log.append(x)
        return v + x, v

    def keeps(self, x: Tensor, v: Tensor) -> Any:
        self.newest = x
        return v + x, v


@pytest.mark.parametrize("method, names", [("counts", "count"), ("logs", "log"), ("keeps", "newest")])
def test_a_core_with_side_effects_runs_as_a_loop(method: str, names: str) -> None:
    held = Counter()
    neuron = FlexSN(getattr(held, method))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        y = neuron(torch.ones(3, 2))
        for _ in range(3):
            neuron(torch.ones(3, 2))
    caught = [w for w in caught if not issubclass(w.category, ResourceWarning)]  # whatever else left open
    assert [w.category for w in caught] == [FallbackWarning]
    assert f"the core changes {names} while it runs" in str(caught[0].message)
    if method == "counts":
        assert y[:, 0].tolist() == [1.0, 2.0, 3.0]
        assert held.count == 12
    if method == "logs":
        assert [tuple(x.shape) for x in held.log] == [(2,)] * 12
    for chosen in COMPILED:
        with pytest.raises(UnsupportedOpError, match="while it runs"):
            FlexSN(getattr(held, method), backend=chosen)(torch.ones(3, 2))


def test_a_value_computed_at_first_use_is_compiled_from_then_on() -> None:
    class Lazy:
        gain: float | None = None

        def core(self, x: Tensor, v: Tensor) -> Any:
            if self.gain is None:
                self.gain = 2.0
            return v + x * self.gain, v

    neuron = FlexSN(Lazy().core)
    with pytest.warns(FallbackWarning, match="the core changes gain"):
        neuron(torch.ones(3, 2))
    neuron.reset()
    assert torch.equal(neuron(torch.ones(3, 2)), torch.full((3, 2), 2.0))
    if COMPILED:
        assert FlexSN(neuron.core, backend="cpp")(torch.ones(3, 2)).sum() == 12.0


def test_a_users_own_mistake_is_theirs() -> None:
    def core(x: Tensor, v: Tensor) -> Any:
        return undefined_name * x, v  # type: ignore[name-defined]  # noqa: F821

    with warnings.catch_warnings(), pytest.raises(NameError):
        warnings.simplefilter("ignore")
        FlexSN(core)(torch.ones(3, 2))


# ---- the machine --------------------------------------------------------------------------------------------

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
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, "FLEXSN_CACHE_DIR": str(cache), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
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


@pytest.mark.skipif(not COMPILED, reason="needs a C++ compiler")
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"x" * 99, lambda b: b[:-1]])
def test_a_damaged_cache_file_is_made_again(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, _ = run_program(cache)
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
    running = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in running] == ["0\ncompiled\n"] * 2
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
            FlexSN(cumsum)(sequence(4, 2, 3))


def test_a_wrong_backend_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXSN_BACKEND", "gpu")
    with pytest.raises(ValueError, match="backend must be one of"):
        FlexSN(lif)(sequence(4, 3))


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CXX", "/nonexistent/compiler")
    yield


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
