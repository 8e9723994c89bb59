"""C++ runtime: build a printed kernel with the system compiler, load it, call it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from array import array
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from flexsn.errors import BackendError
from flexsn.ir.layout import Layout
from flexsn.ir.passes import passed
from flexsn.ir.plan import Plan
from flexsn.kernels.cache import cache_dir, content_key, publish, show_source
from flexsn.kernels.cpp.printer import ENTRY, print_cpp

__all__ = ["BLOCK", "CppKernel", "bind", "build", "compiler", "vectorized_loops"]

BLOCK = 512  # LANES of scan.h
_PAD = 64  # PAD of scan.h
_HEADER = Path(__file__).with_name("scan.h")
_FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-fopenmp-simd"),
    *("-fwrapv", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
)
_WELCOME_FLAGS = ("-fopenmp", "-mprefer-vector-width=512")  # threads, wide vectors: tried first, not everywhere known
_SOURCES: WeakKeyDictionary[Plan, str] = WeakKeyDictionary()
_BASE_MATH = ("expf", "logf", "sinf", "cosf", "powf")
_FULL_MATH = ("tanhf", "erff", "log1pf", "expm1f", "atan2f", "exp2f", "log2f", "log10f", "hypotf", "acoshf")


def bind(plan: Plan, layout: Layout) -> Callable[[Sequence[Tensor]], None]:
    """A function that runs the plan's kernel on tensors of that layout, given in the order of the plan's slots."""
    kernel = build(_source(plan))
    record = [layout.num_steps, layout.num_lanes, len(layout.sizes), 1, BLOCK, *layout.sizes]
    addresses = []
    for tensor in layout.tensors:
        addresses.append(len(record))
        record += [0, tensor.time, tensor.dense, *tensor.strides]
    template = array("q", record)

    def launch(tensors: Sequence[Tensor]) -> None:
        record = template[:]
        threads = torch.get_num_threads()
        block = min(BLOCK, _round_up(-(-layout.num_lanes // threads), _PAD))
        record[3] = min(threads, -(-layout.num_lanes // block))
        record[4] = block
        for address, tensor in zip(addresses, tensors, strict=True):
            record[address] = tensor.data_ptr()
        kernel(record)

    return launch


def _source(plan: Plan) -> str:
    """The plan's text, printed once for as long as the plan lasts."""
    text = _SOURCES.get(plan)
    if text is None:
        text = _SOURCES[plan] = print_cpp(plan)
        passed("C++", text)
    return text


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


class CppKernel:
    """A loaded kernel.

    Args:
        library: path of the shared object.
    """

    def __init__(self, library: Path) -> None:
        entry = ctypes.CDLL(str(library))[ENTRY]
        entry.argtypes, entry.restype = [ctypes.c_void_p], None
        self._entry: Callable[[int], None] = entry

    def __call__(self, record: array[int]) -> None:
        """Run on a call record (see ``scan.h``); releases the interpreter lock meanwhile."""
        self._entry(record.buffer_info()[0])


def compiler() -> tuple[str, ...]:
    """The C++ compiler to use: ``CXX``, or the first of ``g++``, ``c++``, ``clang++`` that is there.

    Raises:
        BackendError: there is none.
    """
    return _find_compiler(os.environ.get("CXX"), os.environ.get("PATH"))


@lru_cache(maxsize=8)
def _find_compiler(chosen: str | None, path: str | None) -> tuple[str, ...]:
    candidates = [shlex.split(chosen)] if chosen else [["g++"], ["c++"], ["clang++"]]
    for command in candidates:
        if command and shutil.which(command[0], path=path):
            return tuple(command)
    raise BackendError(
        f"no C++ compiler: {', '.join(c[0] for c in candidates if c)} not found",
        hint='install g++ (or set CXX), or use backend="torch"',
    )


@lru_cache(maxsize=8)
def _identity(command: tuple[str, ...]) -> str:
    """What a compiled file depends on besides its source: compiler, instruction set, vector math library."""
    try:
        version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:  # found, but not a program; compiling will say so
        version = ""
    flags = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
    return "\n".join([version, platform.machine(), flags, str(_vector_math(command)), *_FLAGS, *_WELCOME_FLAGS])


@lru_cache(maxsize=8)
def _vector_math(command: tuple[str, ...]) -> int:
    """How much of libmvec there is: 0 nothing, 1 the first functions, 2 all that ``scan.h`` names."""
    if platform.machine() != "x86_64" or "clang" in command[0]:
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


def build(source: str) -> CppKernel:
    """Compile ``source``, or load it from the cache.

    Raises:
        BackendError: there is no compiler, or it fails.
    """
    built = _build(source, os.environ.get("CXX"), os.environ.get("FLEXSN_CACHE_DIR"))
    if isinstance(built, BackendError):
        raise built.with_traceback(None)
    return built


@cache
def _build(source: str, cxx: str | None, directory: str | None) -> CppKernel | BackendError:
    """The kernel, or why there is none: what failed once is not tried again at every call."""
    try:
        return _load(source)
    except BackendError as error:
        return error
    except OSError as error:  # such as a file system from which nothing may be executed
        return BackendError(f"a compiled kernel cannot be loaded ({error})", hint="set FLEXSN_CACHE_DIR elsewhere")


def _load(source: str) -> CppKernel:
    show_source(source)
    header = _HEADER.read_text()
    path = cache_dir() / f"{content_key(source, header, _identity(compiler()))}.so"
    if not _is_whole(path):
        path = publish(path, lambda target: _compile_sealed(source, target))
    return CppKernel(path)


def _compile_sealed(source: str, target: Path) -> None:
    """Compile, and append a digest: loading a library cut short would bring the process down."""
    _compile(source, target)
    content = target.read_bytes()
    target.write_bytes(content + hashlib.sha256(content).digest())


def _is_whole(path: Path) -> bool:
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


def _compile(source: str, target: Path, extra: Sequence[str] = ()) -> str:
    """Compile ``source`` into the shared object ``target``; returns what the compiler said."""
    vector_math = _vector_math(compiler())
    libraries = ["-lmvec", "-lm"] if vector_math else ["-lm"]
    always = [*_FLAGS, *extra, f"-DFX_MVEC={vector_math}", f"-I{_HEADER.parent}"]
    always += ["-x", "c++", "-", "-o", str(target), *libraries]
    for welcome in (_WELCOME_FLAGS, ()):
        try:
            command = [*compiler(), *welcome, *always]
            done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
        except OSError as error:
            status, said = "it cannot be started", str(error)
            continue
        if done.returncode == 0:
            return done.stderr
        status, said = f"exit status {done.returncode}", done.stderr
    raise BackendError(
        f"{shlex.join(compiler())} could not compile the generated kernel",
        where=status,
        why=said.strip()[-2000:],
        hint='use backend="torch", or report this with FLEXSN_PRINT_CODE=1',
    )


def vectorized_loops(source: str, scratch: Path) -> list[int]:
    """The lines of ``source`` whose loops the compiler says it vectorised."""
    report = _compile(source, scratch / "report.so", ["-fopt-info-vec-optimized"])
    lines = [row.split(":") for row in report.splitlines() if row.startswith("<stdin>:") and "vectorized" in row]
    return sorted({int(row[1]) for row in lines})
