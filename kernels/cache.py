"""Content-addressed files on disk, written whole or not at all; and showing what goes into them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from flexsn.errors import BackendError, stack_level

if sys.platform != "win32":
    import fcntl

__all__ = [
    "alone",
    "cache_dir",
    "cached_kernels",
    "clear_cache",
    "content_key",
    "is_sealed",
    "publish",
    "read_entry",
    "sealed",
    "show_source",
]

_ENOUGH = 64 << 20  # bytes of free disk with which a compiler does not fail for want of space
_LARGEST = 64 << 20  # bytes of an entry; kernels have some ten thousand
_ABANDONED = 3600.0  # seconds; no build takes as long, so what is older was left by a process that was killed
_UNFINISHED = re.compile(r"(flexsn_)?[0-9a-f]{32}(\.\w+\.(so|py)|\.lock)")  # what mkstemp makes of a name; locks
_ENTRY = re.compile(r"(flexsn_)?[0-9a-f]{32}(\.\w+)?\.(so|py|lock)")
_OF_A_PROCESS = "flexsn-kernels-"  # what its directory is called, before what mkdtemp adds


def content_key(*parts: str) -> str:
    """A file name's worth of hash of all parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(os.fsencode(part))  # part of it may come from the environment, in whatever encoding
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def sealed(content: bytes, key: str) -> bytes:
    """``content`` with a digest behind it that tells damage, and other content that lies under this key."""
    return content + _digest(content, key)


def is_sealed(content: bytes | None, key: str) -> bool:
    """Whether this is what :func:`sealed` made for that key."""
    return content is not None and content[-32:] == _digest(content[:-32], key)


def _digest(content: bytes, key: str) -> bytes:
    return hashlib.sha256(key.encode() + content).digest()


def cache_dir() -> Path:
    """The directory for compiled kernels: ``FLEXSN_CACHE_DIR``, or a private one per user.

    A directory that someone else owns or may write to is not used, since a compiled file from there would run
    as this user; nor is one that cannot be written. A directory that lasts as long as the process stands in.
    """
    chosen = os.environ.get("FLEXSN_CACHE_DIR")
    return _checked(chosen or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "flexsn"))


@lru_cache(maxsize=16)
def _checked(chosen: str) -> Path:
    path = Path(chosen)
    try:
        path = path.expanduser().absolute()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
        if not _is_mine(info):
            problem = "belongs to another user"
        elif info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            problem = "can be written by other users"
        else:
            with tempfile.TemporaryFile(dir=path):
                return path
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
    except RuntimeError as error:  # "~" without a home
        problem = f"cannot be found ({error})"
    warnings.warn(
        f"the kernel cache {path} {problem}; kernels are compiled anew in this process. "
        "Set FLEXSN_CACHE_DIR to a private directory (mode 700).",
        stacklevel=stack_level(),
    )
    return _process_dir()


def _is_mine(info: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or info.st_uid == os.getuid()


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
    _remove_directories_of_the_dead()
    made = tempfile.TemporaryDirectory(prefix=_OF_A_PROCESS)  # removed when the process ends, unless that is killed
    _lock(made.name)
    return made


def _lock(directory: str) -> int | None:
    """Lock a directory until what comes back is closed or this process ends; ``None`` if another one has."""
    if sys.platform == "win32":
        return None
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    return held


def _is_taken(held: int) -> bool:
    """Whether another process has a lock on what is open; if not, this one has it now."""
    if sys.platform != "win32":
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # nothing can be locked there
            return False
    return False


def _remove_directories_of_the_dead() -> None:
    """Remove the kernels in directories of processes that were killed, and the directories."""
    with suppress(OSError):
        for entry in os.scandir(tempfile.gettempdir()):
            with suppress(OSError):  # another process is at it too, or somebody put a file there
                if entry.name.startswith(_OF_A_PROCESS) and _is_old(entry) and _is_mine(entry.stat()):
                    _remove_if_dead(entry.path)


def _remove_if_dead(directory: str) -> None:
    held = _lock(directory)
    if held is None:
        return
    try:
        for entry in os.scandir(directory):
            if _ENTRY.fullmatch(entry.name):
                os.unlink(entry.path)
        os.rmdir(directory)
    finally:
        os.close(held)


def cached_kernels() -> dict[Path, int]:
    """The compiled kernels in the cache directory, and how many bytes each takes."""
    found = {}
    for entry in os.scandir(cache_dir()):
        with suppress(OSError):  # another process has just removed it
            if _ENTRY.fullmatch(entry.name) and not _UNFINISHED.fullmatch(entry.name) and entry.is_file():
                found[Path(entry.path)] = entry.stat().st_size
    return found


def clear_cache() -> int:
    """Remove the compiled kernels from the cache directory, and nothing else that lies there; returns how many.

    Processes that have loaded one keep it.
    """
    removed = 0
    for path in cached_kernels():
        with suppress(FileNotFoundError):  # another process is at it too
            path.unlink()
            removed += 1
    return removed


def show_source(source: str) -> None:
    """Print generated code to stderr if ``FLEXSN_PRINT_CODE`` asks for it."""
    if os.environ.get("FLEXSN_PRINT_CODE", "0") not in ("", "0"):
        print(source, file=sys.stderr, flush=True)


def read_entry(path: Path) -> bytes | None:
    """The content of an entry; ``None`` if there is none, or what has its name is no file of this user's."""
    try:
        info = path.stat()
        if stat.S_ISREG(info.st_mode) and _is_mine(info) and info.st_size <= _LARGEST:
            return path.read_bytes()
    except OSError:
        pass
    return None


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


@contextmanager
def alone(path: Path, seconds: float) -> Iterator[None]:
    """A context in which no other process makes this entry; whoever has waited for so long goes on all the same."""
    lock = path.with_suffix(".lock")
    try:
        held = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError:  # read-only, full: nobody can wait for anybody there
        yield
        return
    try:
        deadline = time.monotonic() + seconds
        while _is_taken(held) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(held)


def _has_room(directory: Path) -> bool:
    try:
        return shutil.disk_usage(directory).free >= _ENOUGH
    except OSError:
        return False


def _publish(path: Path, build: Callable[[Path], None]) -> Path:
    _remove_abandoned(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem + ".", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        build(temporary)
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # it has its name by now, or is not what was made
            temporary.unlink()
    return path


@lru_cache(maxsize=16)
def _remove_abandoned(directory: Path) -> None:
    """Remove, once in a process, what builds that were killed left behind."""
    for entry in os.scandir(directory):
        with suppress(OSError):  # another process is at it too
            if _UNFINISHED.fullmatch(entry.name) and _is_old(entry):
                os.unlink(entry.path)


def _is_old(entry: os.DirEntry[str]) -> bool:
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED
