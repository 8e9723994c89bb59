"""A kernel's file in the cache is for people: whatever becomes of it, what runs is what was printed."""

from __future__ import annotations

import inspect
import os
import py_compile
from pathlib import Path

import pytest

pytest.importorskip("triton")

from flexsn.kernels.cache import content_key
from flexsn.kernels.triton.runtime import load

TEXT = """import triton


@triton.jit
def kernel(x):
    return {number}
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("flexsn.kernels.triton.runtime.ENTRY", "kernel")
    monkeypatch.setenv("FLEXSN_CACHE_DIR", str(tmp_path / "kernels"))
    load.cache_clear()
    load(TEXT.format(number=1))
    load.cache_clear()
    return tmp_path / "kernels" / f"flexsn_{content_key(TEXT.format(number=1))}.py"


def source(number: int = 1) -> str:
    kernel = load(TEXT.format(number=number))
    return str(inspect.getsource(kernel.fn))


def test_another_text(path: Path) -> None:
    path.write_text(TEXT.format(number=2))
    assert "return 1" in source()
    assert path.read_text() == TEXT.format(number=1)


@pytest.mark.parametrize("content", [b"", b"\xe9", TEXT.encode()[:20]])
def test_damage(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert "return 1" in source()
    assert path.read_text() == TEXT.format(number=1)


def test_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)
    assert "return 1" in source()


def test_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    assert "return 1" in source()


def test_compiled_code_beside_it(path: Path) -> None:
    """Python trusts it if date and size agree."""
    date = path.stat()
    path.write_text(TEXT.format(number=2))
    os.utime(path, ns=(date.st_atime_ns, date.st_mtime_ns))
    py_compile.compile(str(path), doraise=True)
    path.write_text(TEXT.format(number=1))
    os.utime(path, ns=(date.st_atime_ns, date.st_mtime_ns))
    kernel = load(TEXT.format(number=1))
    assert 2 not in kernel.fn.__code__.co_consts


def test_a_change_after_it_was_loaded(path: Path) -> None:
    kernel = load(TEXT.format(number=1))
    path.write_text("nonsense")
    assert "return 1" in inspect.getsource(kernel.fn)
