"""C++ runtime: build a printed kernel with the system compiler, load it, call it."""

from __future__ import annotations

import ctypes
import math
import os
import struct
from array import array
from collections.abc import Callable, MutableSequence, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from weakref import WeakKeyDictionary

from torch import Tensor

from flexsn.errors import BackendError
from flexsn.ir.layout import Layout
from flexsn.ir.passes import passed
from flexsn.ir.plan import Plan, Role
from flexsn.kernels.cache import alone, cache_dir, content_key, is_sealed, publish, read_entry, sealed, show_source
from flexsn.kernels.cpp.compiler import (
    COMPILE_SECONDS,
    Compiler,
    compile_library,
    find_compiler,
    identity,
    lacking,
    whole_source,
)
from flexsn.kernels.cpp.printer import ENTRY, print_cpp
from flexsn.kernels.cpp.threads import TEAM, WORTH_SPLITTING, seconds_alone

__all__ = ["BLOCK", "LARGEST_MATRIX", "CppKernel", "bind", "build"]

BLOCK = 512  # LANES of scan.h
LARGEST_MATRIX = 1024  # LARGEST of products.h
_SAMPLES = 8  # of a block, for every row of a matrix that is read; with so many rows, LANES of products.h
_PAD = 64  # PAD of scan.h
_MOST_THREADS = 256  # THREADS of scan.h
_SOURCES: WeakKeyDictionary[Plan, str] = WeakKeyDictionary()


def bind(plan: Plan, layout: Layout) -> Callable[[Sequence[Tensor]], None]:
    """A function that runs the plan's kernel on tensors of that layout, given in the order of the plan's slots."""
    kernel = build(_source(plan))
    record = [layout.num_steps, layout.num_lanes, len(layout.sizes), 1, BLOCK, *layout.sizes]
    addresses = []
    for tensor in layout.tensors:
        addresses.append(len(record))
        record += [0, tensor.time, tensor.dense, *tensor.strides]
    sample = next((t.time for s, t in zip(plan.slots, layout.tensors, strict=True) if s.role is Role.MATRIX), None)

    def split(record: MutableSequence[int], threads: int) -> None:
        if sample is None:
            block = min(BLOCK, _round_up(-(-layout.num_lanes // threads), _PAD))
        else:
            block = sample * _samples(sample, layout.num_lanes // sample, threads)
        record[3] = min(threads, -(-layout.num_lanes // block))
        record[4] = block

    split(record, 1)
    template = array("q", record)
    seconds = seconds_alone(plan, layout)

    def launch(tensors: Sequence[Tensor]) -> None:
        record = template[:]
        if seconds >= WORTH_SPLITTING:
            split(record, min(TEAM.size(seconds), _MOST_THREADS))
        for address, tensor in zip(addresses, tensors, strict=True):
            record[address] = tensor.data_ptr()
        TEAM.lost(kernel(record))

    return launch


def _source(plan: Plan) -> str:
    """The plan's text, printed once for as long as the plan lasts."""
    text = _SOURCES.get(plan)
    if text is None:
        text = _SOURCES[plan] = print_cpp(plan)
        passed("C++", text)
    return text


def _samples(size: int, count: int, threads: int) -> int:
    """How many of so many samples, each of ``size`` lanes, are in a block."""
    most = max(_SAMPLES, BLOCK // size)
    rounds = -(-count // (most * threads))
    each = -(-count // (rounds * threads))
    whole = _PAD // math.gcd(size, _PAD)  # fill vectors, so that tensors are used in place
    return each - each % whole if each > whole else each


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


class CppKernel:
    """A loaded kernel.

    Args:
        library: path of the shared object.

    Raises:
        OSError: it cannot be loaded, or is no kernel.
    """

    def __init__(self, library: Path) -> None:
        loaded = ctypes.CDLL(str(library))
        try:
            entry = loaded[ENTRY]
        except AttributeError as error:
            ctypes.CDLL(None).dlclose(ctypes.c_void_p(loaded._handle))  # or its name would stand for it for ever
            raise OSError(f"{library} has no {ENTRY}") from error
        entry.argtypes, entry.restype = [ctypes.c_void_p], ctypes.c_double
        self._entry: Callable[[int], float] = entry

    def __call__(self, record: array[int]) -> float:
        """Run on a call record (see ``scan.h``); releases the interpreter lock meanwhile.

        Returns:
            Seconds that several threads took longer than one would have.
        """
        return self._entry(record.buffer_info()[0])


def build(source: str) -> CppKernel:
    """Compile ``source``, or load it from the cache.

    Raises:
        BackendError: there is no compiler, or it fails.
    """
    built = _build(source, find_compiler(), os.environ.get("FLEXSN_CACHE_DIR"))
    if isinstance(built, BackendError):
        raise built.with_traceback(None)
    return built


@cache
def _build(source: str, compiler: Compiler, directory: str | None) -> CppKernel | BackendError:
    """The kernel, or why there is none: what failed once is not tried again at every call."""
    try:
        return _load(source, compiler)
    except BackendError as error:
        return error
    except OSError as error:  # such as a file system from which nothing may be executed
        return BackendError(
            f"a compiled kernel cannot be loaded ({error})",
            hint="set FLEXSN_CACHE_DIR elsewhere, or CXX to another compiler",
        )


def _load(source: str, compiler: Compiler) -> CppKernel:
    show_source(source)
    text = whole_source(source)
    key = content_key(text, *identity(compiler))
    found = _from_cache(key)
    if found is None and lacking(compiler):
        key = content_key(text, *identity(compiler), *lacking(compiler))
        found = _from_cache(key)
    if found is not None:
        return found

    def make(target: Path) -> None:
        compile_library(compiler, text, target)
        library = read_entry(target)
        if library is None or not _is_whole(library):
            raise BackendError(f"{compiler} wrote no whole library", hint="set CXX to another compiler")
        target.write_bytes(sealed(library, key))

    with alone(_path(key), COMPILE_SECONDS):
        found = _from_cache(key)  # of the processes of a job one builds, and the others load
        if found is not None:
            return found
        path = publish(_path(key), make)
    try:
        return CppKernel(path)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _path(key: str) -> Path:
    return cache_dir() / f"{key}.so"


def _from_cache(key: str) -> CppKernel | None:
    if is_sealed(read_entry(_path(key)), key):
        with suppress(OSError):  # as it was made, but by a compiler for another machine, say
            return CppKernel(_path(key))
    return None


def _is_whole(library: bytes) -> bool:
    """Whether the table at the end of an ELF file is there: to load a library cut short would end the process."""
    if len(library) < 64 or library[:5] != b"\x7fELF\x02":
        return library[:4] != b"\x7fELF"  # of another format; loading will tell
    (start,) = struct.unpack_from("=Q", library, 40)
    size, count = struct.unpack_from("=HH", library, 58)
    return bool(start + size * count <= len(library))
