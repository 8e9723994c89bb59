"""The system's C++ compiler: which one, what its output depends on, and how it is run."""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flexsn.errors import BackendError

__all__ = [
    "Compiler",
    "compile_library",
    "find_compiler",
    "flags",
    "identity",
    "lacking",
    "vector_math",
    "vectorized_loops",
    "whole_source",
]

COMPILE_SECONDS = 120.0
"""A compiler that takes longer counts as hung. The largest kernels take it a few seconds, and some ten times that on
a machine with other work; whoever waits for one that hangs should not wait for long."""
VERSION_SECONDS = 20.0
"""The same for its version, which takes milliseconds, or seconds from a disk far away."""

_CPUINFO = "/proc/cpuinfo"
_HEADERS = {name: Path(__file__).with_name(name) for name in ("scan.h", "products.h")}
_FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-fopenmp-simd"),
    # whatever CXX says: linked with these, a library rounds subnormals to zero in all of the thread that loads it
    *("-fno-fast-math", "-fno-unsafe-math-optimizations"),
    *("-fwrapv", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
)
_WELCOME_FLAGS = ("-fopenmp", "-mprefer-vector-width=512")  # threads, wide vectors: not everywhere known
_TRIAL = "int trial() {\n  int n = 0;\n#pragma omp parallel reduction(+ : n)\n  n += 1;\n  return n;\n}\n"
_VARIABLES = ("COMPILER_PATH", "GCC_EXEC_PREFIX", "CCC_OVERRIDE_OPTIONS")  # by which gcc and clang become others
_BASE_MATH = ("expf", "logf", "sinf", "cosf", "powf")
_FULL_MATH = ("tanhf", "erff", "log1pf", "expm1f", "atan2f", "exp2f", "log2f", "log10f", "hypotf", "acoshf")


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler.

    Attributes:
        command: as it was chosen, arguments included.
        program: the file that is run.
    """

    command: tuple[str, ...]
    program: str

    def __str__(self) -> str:
        return shlex.join(self.command)


_hung: set[Compiler] = set()  # what did not come back once is not waited for again


def find_compiler() -> Compiler:
    """``CXX``, or the first of ``g++``, ``c++``, ``clang++`` that is there.

    Raises:
        BackendError: there is none.
    """
    return _find_compiler(os.environ.get("CXX"), os.environ.get("PATH"))


@lru_cache(maxsize=8)
def _find_compiler(chosen: str | None, path: str | None) -> Compiler:
    try:
        command = shlex.split(chosen or "")
    except ValueError as error:
        raise BackendError(
            f"CXX is no command: {error}", where=f"CXX={chosen}", hint='mend CXX, or use backend="torch"'
        ) from error
    candidates = [command] if command else [["g++"], ["c++"], ["clang++"]]
    for command in candidates:
        program = shutil.which(command[0], path=path)
        if program:
            return Compiler(tuple(command), os.path.abspath(program))
    raise BackendError(
        f"no C++ compiler: {', '.join(command[0] for command in candidates)} not found",
        where=f"CXX={chosen}" if chosen else None,
        why="kernels for the CPU are compiled where they run",
        hint='install g++ (or set CXX), or use backend="torch"',
    )


@lru_cache(maxsize=8)
def identity(compiler: Compiler) -> tuple[str, ...]:
    """All that a compiled file depends on besides its source: compiler, flags, instruction set, vector math.

    Raises:
        BackendError: the compiler does not answer.
    """
    try:
        _, version, _ = _run(compiler, ["--version"], VERSION_SECONDS)
        info = os.stat(compiler.program)
        file = f"{os.path.realpath(compiler.program)} {info.st_size} {info.st_mtime_ns}"  # a script may be edited
    except OSError as error:  # found, but not a program; compiling will say so
        version, file = "", str(error)
    variables = [os.environ.get(name, "") for name in _VARIABLES]
    machine = (platform.machine(), _instruction_set(), str(vector_math(compiler)))
    return (shlex.join(compiler.command), file, version, *variables, *machine, *_FLAGS, *_WELCOME_FLAGS)


def _instruction_set() -> str:
    try:
        with open(_CPUINFO, errors="replace") as file:
            return next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        pass
    try:  # a Mac names its processor; of any other machine no kernel serves another one
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, check=True, timeout=VERSION_SECONDS, text=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return platform.node()


@lru_cache(maxsize=8)
def vector_math(compiler: Compiler) -> int:
    """How much of libmvec there is: 0 nothing, 1 the first functions, 2 all that ``scan.h`` names."""
    if platform.machine() != "x86_64" or any("clang" in word for word in compiler.command):
        return 0
    try:
        library = ctypes.CDLL("libmvec.so.1")
    except OSError:
        return 0

    def has(names: Sequence[str]) -> bool:
        return all(
            hasattr(library, f"_ZGVeN16{'vv' if name in ('powf', 'atan2f', 'hypotf') else 'v'}_{name}")
            for name in names
        )

    return 2 if has(_BASE_MATH + _FULL_MATH) else 1 if has(_BASE_MATH) else 0


@lru_cache(maxsize=8)
def lacking(compiler: Compiler) -> tuple[str, ...]:
    """The welcome flags that a compiler does not take, found by trying them.

    A kernel that fails with flags that are taken fails for another reason: made without them it would stay without
    threads.

    Raises:
        BackendError: it hangs.
    """
    if _takes(compiler, *_WELCOME_FLAGS):
        return ()
    return tuple(flag for flag in _WELCOME_FLAGS if not _takes(compiler, flag))


def _takes(compiler: Compiler, *flags: str) -> bool:
    try:
        with tempfile.TemporaryDirectory() as directory:
            target = os.path.join(directory, "trial.so")
            return _run(compiler, [*_FLAGS, *flags, "-x", "c++", "-", "-o", target], COMPILE_SECONDS, _TRIAL)[0] == 0
    except OSError:  # compiling will say so
        return False


def flags(compiler: Compiler) -> tuple[str, ...]:
    """What it is asked for: ours, and of the welcome flags those it takes."""
    lacks = lacking(compiler)
    return (*(flag for flag in _WELCOME_FLAGS if flag not in lacks), *_FLAGS)


def compile_library(compiler: Compiler, source: str, target: Path, extra: Sequence[str] = ()) -> str:
    """Compile ``source`` into the shared object ``target``; returns what the compiler said.

    Raises:
        BackendError: it fails, or hangs.
    """
    level = vector_math(compiler)
    arguments = [*flags(compiler), *extra, f"-DFX_MVEC={level}"]
    arguments += ["-x", "c++", "-", "-o", str(target), *(["-lmvec"] if level else []), "-lm"]
    try:
        code, _, said = _run(compiler, arguments, COMPILE_SECONDS, source)
        status = f"exit status {code}"
    except OSError as error:
        code, status, said = -1, "it cannot be started", str(error)
    if code == 0:
        return said
    raise BackendError(
        f"{compiler} could not compile the generated kernel",
        where=status,
        why=said.strip()[-2000:],
        hint='use backend="torch", or report this with FLEXSN_PRINT_CODE=1',
    )


def _run(compiler: Compiler, arguments: Sequence[str], seconds: float, source: str = "") -> tuple[int, str, str]:
    """Exit status, output and errors; whatever a compiler that hangs has started ends with it.

    Raises:
        OSError: it cannot be started.
        BackendError: it hangs.
    """
    if compiler not in _hung:
        command = [compiler.program, *compiler.command[1:], *arguments]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as process:
            try:
                out, said = process.communicate(source.encode(), timeout=seconds)
                return process.returncode, out.decode(errors="replace"), said.decode(errors="replace")
            except BaseException as error:
                with suppress(OSError):  # it has ended
                    os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                _hung.add(compiler)
    raise BackendError(
        f"{compiler} hangs: nothing came of it in {seconds:g} seconds",
        hint='set CXX to another compiler, or use backend="torch"',
    )


def whole_source(source: str) -> str:
    """A kernel with its headers' text in it: what is compiled depends on no directory, lines keep their numbers."""
    return _with_headers(source, "<stdin>")


def _with_headers(text: str, name: str) -> str:
    for header, path in _HEADERS.items():
        before, include, after = text.partition(f'#include "{header}"\n')
        if include:
            inner = _with_headers(path.read_text(), header)
            line = before.count("\n") + 2
            return f'{before}#line 1 "{header}"\n{inner}#line {line} "{name}"\n{after}'
    return text


def vectorized_loops(source: str, scratch: Path) -> list[int]:
    """The lines of ``source`` whose loops the compiler says it vectorised."""
    report = compile_library(find_compiler(), whole_source(source), scratch / "report.so", ["-fopt-info-vec-optimized"])
    lines = [row.split(":") for row in report.splitlines() if row.startswith("<stdin>:") and "vectorized" in row]
    return sorted({int(row[1]) for row in lines})
