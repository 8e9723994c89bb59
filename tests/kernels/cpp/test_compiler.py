"""What a compiled file depends on is in its name, and a compiler cannot hang a call."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from flexsn.errors import BackendError
from flexsn.execution.backends import supported_backends
from flexsn.kernels.cpp import compiler as cpp_compiler
from flexsn.kernels.cpp import runtime
from flexsn.kernels.cpp.compiler import Compiler, find_compiler, identity, lacking, vector_math
from flexsn.kernels.cpp.runtime import _build, build

pytestmark = pytest.mark.skipif("cpp" not in supported_backends(), reason="needs a C++ compiler")

KERNEL = """#include "scan.h"
#ifndef NUMBER
#define NUMBER 1
#endif
volatile float large = 1e8f, small = 1.0f;
extern "C" double flexsn_scan(fx::i64* record) {
  const float a = large, b = small;
  record[0] = (a + b) - a == 0.0f ? NUMBER : -2;  // -2: the compiler took the sum apart
  return 0;
}
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    chosen = tmp_path / "kernels"
    monkeypatch.setenv("FLEXSN_CACHE_DIR", str(chosen))
    identity.cache_clear()
    lacking.cache_clear()
    yield chosen
    identity.cache_clear()
    lacking.cache_clear()


def run() -> int:
    record = array("q", [-1])
    build(KERNEL)(record)
    return record[0]


def wrapper(path: Path, *flags: str) -> None:
    path.write_text(f'#!/bin/sh\nexec {shutil.which("g++")} "$@" {" ".join(flags)}\n')
    path.chmod(0o755)


def test_flags_of_the_command(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    for number in (1, 2, 3):
        monkeypatch.setenv("CXX", f"g++ -DNUMBER={number}")
        assert run() == number
    monkeypatch.setenv("CXX", "g++")
    assert run() == 1
    assert len(list(directory.iterdir())) == 4


@pytest.mark.parametrize("flag", ["-ffast-math", "-Ofast", "-funsafe-math-optimizations", "-ffp-contract=fast"])
def test_flags_that_would_change_the_numbers(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those of the kernel nor, by what such a library does when it is loaded, all others of the process."""
    monkeypatch.setenv("CXX", f"g++ {flag}")
    assert run() == 1
    assert sys.float_info.min / 2 > 0.0


def test_a_script_that_is_edited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "cxx"
    monkeypatch.setenv("CXX", str(script))
    wrapper(script, "-DNUMBER=2")
    first = identity(find_compiler())
    identity.cache_clear()
    wrapper(script, "-DNUMBER=3")
    os.utime(script, (0, 0))
    edited = identity(find_compiler())
    identity.cache_clear()
    os.utime(script, (1, 1))
    assert len({first, edited, identity(find_compiler())}) == 3


def test_the_same_name_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    plain = identity(find_compiler())
    wrapper(tmp_path / "g++")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert find_compiler().command == ("g++",)
    assert identity(find_compiler()) != plain


@pytest.mark.parametrize("name", cpp_compiler._VARIABLES)
def test_variables_compilers_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name, raising=False)
    plain = identity(find_compiler())
    identity.cache_clear()
    monkeypatch.setenv(name, "/elsewhere")
    assert identity(find_compiler()) != plain


@pytest.mark.parametrize("part", ["_FLAGS", "_WELCOME_FLAGS", "_instruction_set", "vector_math", "platform.machine"])
def test_everything_else_it_depends_on(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = identity(find_compiler())
    identity.cache_clear()
    other = ("-O0",) if part.endswith("FLAGS") else lambda *compiler: "another"
    monkeypatch.setattr(f"{cpp_compiler.__name__}.{part}", other)
    assert identity(find_compiler()) != plain


def test_two_versions_of_flexsn_on_one_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: Path) -> None:
    """What a kernel is made of beside its own text is the header, and that is in its name."""
    assert run() == 1
    (tmp_path / "scan.h").write_text(f"#define NUMBER 2\n{cpp_compiler._HEADERS['scan.h'].read_text()}")
    with monkeypatch.context() as patch:
        patch.setitem(cpp_compiler._HEADERS, "scan.h", tmp_path / "scan.h")
        _build.cache_clear()
        assert run() == 2
    _build.cache_clear()
    monkeypatch.setattr(runtime, "publish", None)  # the first version finds what it made
    assert run() == 1
    assert len(list(directory.iterdir())) == 2


def test_two_machines_on_one_cache(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """One without the other's instructions never loads its kernel."""
    made = []
    for flags in ("flags: sse2", "flags: sse2 avx512f", "flags: sse2"):
        monkeypatch.setattr(cpp_compiler, "_instruction_set", lambda flags=flags: flags)
        identity.cache_clear()
        _build.cache_clear()
        assert run() == 1
        made.append(len(list(directory.iterdir())))
    assert made == [1, 2, 2]


def test_a_machine_without_a_list_of_its_instructions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cpp_compiler, "_CPUINFO", str(tmp_path / "nothing"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cpp_compiler._instruction_set() == platform.node()
    (tmp_path / "sysctl").write_text("#!/bin/sh\necho Abacus 2\n")
    (tmp_path / "sysctl").chmod(0o700)
    assert cpp_compiler._instruction_set() == "Abacus 2"


def test_a_header_of_the_same_name_where_the_user_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "scan.h").write_text("#error of somebody else\n")
    monkeypatch.chdir(tmp_path)
    assert run() == 1


def test_a_relative_command_and_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrapper(tmp_path / "cxx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", "./cxx")
    monkeypatch.setenv("FLEXSN_CACHE_DIR", "here")
    assert run() == 1
    assert len(list((tmp_path / "here").iterdir())) == 1


@pytest.mark.parametrize("asked", ["--version", "-o"])
def test_what_hangs_is_waited_for_once(asked: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And what it started does not outlive it."""
    script, pid = tmp_path / "cxx", tmp_path / "pid"
    script.write_text(f'#!/bin/sh\ncase "$*" in *{asked}*) sleep 1000 & echo $! > {pid}; wait;; esac\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setattr(cpp_compiler, "VERSION_SECONDS", 1.0)
    monkeypatch.setattr(cpp_compiler, "COMPILE_SECONDS", 1.0)
    with pytest.raises(BackendError, match=r"cxx hangs: nothing came of it in 1 seconds"):
        build(KERNEL)
    started = Path(f"/proc/{int(pid.read_text())}/stat")
    deadline = time.monotonic() + 60
    while started.exists() and started.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
    pid.unlink()
    with pytest.raises(BackendError, match="hangs"):
        build(KERNEL + "// another kernel\n")
    assert not pid.exists()


THREADS = KERNEL.replace("#ifndef NUMBER", "#ifdef _OPENMP\n#define NUMBER 2\n#endif\n#ifndef NUMBER")  # 2 with threads


def run_threads() -> int:
    """As in a new process."""
    lacking.cache_clear()
    _build.cache_clear()
    record = array("q", [-1])
    build(THREADS)(record)
    return record[0]


def picky(path: Path, flag: str) -> None:
    """A compiler that does not take a flag while there is a file ``broken``, and for kernels while one is ``worse``."""
    here = path.parent
    path.write_text(f"""#!/bin/sh
case " $* " in *" {flag} "*)
    [ -f {here}/broken ] && exit 1
    source=$(cat)
    case "$source" in *flexsn_scan*) [ -f {here}/worse ] && exit 1;; esac
    printf '%s\\n' "$source" | exec g++ "$@"
    exit;;
esac
exec g++ "$@"
""")
    path.chmod(0o755)


def test_a_kernel_made_without_threads_is_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: Path
) -> None:
    picky(tmp_path / "cxx", "-fopenmp")
    monkeypatch.setenv("CXX", str(tmp_path / "cxx"))
    (tmp_path / "broken").touch()
    assert [run_threads(), run_threads()] == [1, 1]
    assert len(list(directory.iterdir())) == 1
    (tmp_path / "broken").unlink()
    assert run_threads() == 2
    (tmp_path / "broken").touch()
    assert run_threads() == 2  # which is there


def test_a_kernel_that_fails_with_a_flag_that_works_is_not_made_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: Path
) -> None:
    picky(tmp_path / "cxx", "-fopenmp")
    monkeypatch.setenv("CXX", str(tmp_path / "cxx"))
    (tmp_path / "worse").touch()
    with pytest.raises(BackendError, match="could not compile"):
        run_threads()
    assert list(directory.iterdir()) == []


def test_a_compiler_without_wide_vectors_has_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    picky(tmp_path / "cxx", "-mprefer-vector-width=512")
    monkeypatch.setenv("CXX", str(tmp_path / "cxx"))
    (tmp_path / "broken").touch()
    assert run_threads() == 2


def test_a_library_without_the_kernel_is_not_kept_open(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name would stand for it, and what is built in its place would never be loaded."""
    monkeypatch.setenv("CXX", "g++ -Dflexsn_scan=another")
    with pytest.raises(BackendError, match=r"cannot be loaded .*has no flexsn_scan"):
        build(KERNEL)
    assert list(directory.iterdir()) == []
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(directory) not in maps.read_text()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="libmvec is of x86")
def test_the_vector_math_that_is_there_is_used() -> None:
    try:
        library = ctypes.CDLL("libmvec.so.1")
    except OSError:
        pytest.skip("no libmvec here")
    there = [hasattr(library, f"_ZGVeN16v_{name}") for name in ("expf", "tanhf")]  # the first functions, all of them
    assert vector_math(Compiler(("g++",), "g++")) == sum(there)
    assert vector_math(Compiler(("clang++",), "clang++")) == 0
