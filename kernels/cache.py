"""Content-addressed files on disk, written whole or not at all; and showing what goes into them."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from flexsn.errors import BackendError, stack_level

__all__ = ["cache_dir", "content_key", "publish", "show_source"]

_ENOUGH = 64 << 20  # bytes of free disk with which a compiler does not fail for want of space


def content_key(*parts: str) -> str:
    """A file name's worth of hash of all parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def cache_dir() -> Path:
    """The directory for compiled kernels: ``FLEXSN_CACHE_DIR``, or a private one per user.

    A directory that someone else owns or may write to is not used, since a compiled file from there would run
    as this user; nor is one that cannot be written. A directory that lasts as long as the process stands in.
    """
    chosen = os.environ.get("FLEXSN_CACHE_DIR")
    if chosen is None:
        chosen = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "flexsn")
    return _checked(chosen)


@lru_cache(maxsize=16)
def _checked(chosen: str) -> Path:
    path = Path(chosen)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
        if hasattr(os, "getuid") and info.st_uid != os.getuid():
            problem = "belongs to another user"
        elif info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            problem = "can be written by other users"
        else:
            with tempfile.TemporaryFile(dir=path):
                return path
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
    warnings.warn(
        f"the kernel cache {path} {problem}; kernels are compiled anew in this process. "
        "Set FLEXSN_CACHE_DIR to a private directory (mode 700).",
        stacklevel=stack_level(),
    )
    return _process_dir()


def _process_dir() -> Path:
    try:
        return Path(_temporary_directory().name)
    except OSError as error:
        raise BackendError(
            f"there is no directory to compile kernels in ({error.strerror or error})",
            hint='set FLEXSN_CACHE_DIR to one that can be written, or use backend="torch"',
        ) from error


@lru_cache(maxsize=1)
def _temporary_directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="flexsn-")  # removed when the process ends


def show_source(source: str) -> None:
    """Print generated code to stderr if ``FLEXSN_PRINT_CODE`` asks for it."""
    if os.environ.get("FLEXSN_PRINT_CODE", "0") not in ("", "0"):
        print(source, file=sys.stderr, flush=True)


def publish(path: Path, build: Callable[[Path], None]) -> Path:
    """Make ``path`` by ``build(temporary)`` and an atomic rename; two processes at once do no harm.

    If the disk turns out to be full or read-only after all, the file is made in the process's own directory.

    Raises:
        BackendError: what ``build`` raises, or there is no place to write to.
    """
    try:
        return _publish(path, build)
    except (OSError, BackendError) as error:
        if isinstance(error, BackendError) and _has_room(path.parent):
            raise
    try:
        return _publish(_process_dir() / path.name, build)
    except OSError as error:
        raise BackendError(f"a compiled kernel cannot be written ({error.strerror or error})") from error


def _has_room(directory: Path) -> bool:
    try:
        return shutil.disk_usage(directory).free >= _ENOUGH
    except OSError:
        return False


def _publish(path: Path, build: Callable[[Path], None]) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem + ".", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        build(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
