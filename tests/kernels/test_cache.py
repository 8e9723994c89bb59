"""The kernel cache: private, atomic, and never in the way."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from flexsn.errors import BackendError
from flexsn.kernels import cache
from flexsn.kernels.cache import alone


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    cache._checked.cache_clear()
    cache._remove_abandoned.cache_clear()
    yield
    cache._checked.cache_clear()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    chosen = tmp_path / "kernels"
    monkeypatch.setenv("FLEXSN_CACHE_DIR", str(chosen))
    return chosen


def stand_in(match: str) -> Path:
    with pytest.warns(UserWarning, match=match) as caught:
        found = cache.cache_dir()
        assert cache.cache_dir() == found
    assert len(caught) == 1
    assert "FLEXSN_CACHE_DIR" in str(caught[0].message)
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert found.stat().st_uid == os.getuid()
    return found


def test_made_private(directory: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.cache_dir() == directory
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_default_is_per_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEXSN_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_dir() == tmp_path / "flexsn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.cache_dir() == tmp_path / "home" / ".cache" / "flexsn"


@pytest.mark.parametrize("chosen", ["", "~", "~/kernels", ".", "kernels"])
def test_the_directory_as_a_shell_would_read_it(chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    for directory in (home, here):
        directory.mkdir(mode=0o700)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("FLEXSN_CACHE_DIR", chosen)
    monkeypatch.chdir(here)
    meant = {
        "": home / ".cache/flexsn",
        "~": home,
        "~/kernels": home / "kernels",
        ".": here,
        "kernels": here / "kernels",
    }
    assert cache.cache_dir() == meant[chosen]
    assert [path.name for path in here.iterdir()] == (["kernels"] if chosen == "kernels" else [])


@pytest.mark.parametrize("chosen", ["~nobody-of-that-name/kernels", "/proc/nowhere", "/dev/null/kernels", "x" * 5000])
def test_a_directory_that_cannot_be(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXSN_CACHE_DIR", chosen)
    stand_in("cannot be (written|found)")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_writable_by_others_is_not_used(mode: int, directory: Path) -> None:
    directory.mkdir()
    directory.chmod(mode)
    assert stand_in("can be written by other users") != directory


def test_owned_by_another_is_not_used(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.mkdir(mode=0o700)
    mine = os.getuid()
    monkeypatch.setattr(cache.os, "getuid", lambda: mine + 1)
    with pytest.warns(UserWarning, match="belongs to another user"):
        assert cache.cache_dir() != directory


def test_a_file_in_the_way(directory: Path) -> None:
    directory.write_text("a file")
    assert stand_in("cannot be written") != directory


def test_read_only(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    directory.mkdir(mode=0o700)
    monkeypatch.setattr(cache.tempfile, "TemporaryFile", refuse)
    assert stand_in(r"cannot be written \(Permission denied\)") != directory


def test_published_whole_or_not_at_all(directory: Path) -> None:
    path = cache.cache_dir() / "kernel.so"
    assert cache.publish(path, lambda target: target.write_text("whole") and None) == path
    assert path.read_text() == "whole"

    def fail(target: Path) -> None:
        target.write_text("half")
        raise BackendError("the compiler failed")

    with pytest.raises(BackendError, match="the compiler failed"):
        cache.publish(path, fail)
    assert path.read_text() == "whole"
    assert os.listdir(directory) == ["kernel.so"]


def test_what_killed_builds_left_is_removed_when_old(directory: Path) -> None:
    cache.cache_dir()
    key = cache.content_key("a kernel")
    old, young = [f"{key}.abcdefgh.so", f"flexsn_{key}.a_c4efgh.py", f"{key}.lock"], [f"{key}.ijklmnop.so"]
    kept = [f"{key}.so", f"flexsn_{key}.py", "my notes.so", f"{key}.so.orig"]
    for name in (*old, *young, *kept):
        (directory / name).write_text(name)
        if name not in young:
            os.utime(directory / name, (0, time.time() - cache._ABANDONED - 60))
    (directory / f"{key}.qrstuvwx.so").mkdir()
    os.utime(directory / f"{key}.qrstuvwx.so", (0, 0))
    cache.publish(directory / "kernel.so", lambda target: target.write_text("whole") and None)
    found = {path.name for path in directory.iterdir() if path.is_file()}
    assert found == {"kernel.so", *young, *kept}


def test_directories_of_killed_processes_are_removed_when_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their kernels alone, and none of a process that lives or of somebody else's making."""
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))
    kernel = f"{cache.content_key('a kernel')}.so"

    def directory(name: str, *files: str, old: bool = True) -> Path:
        made = tmp_path / name
        made.mkdir()
        for file in files:
            (made / file).touch()
        os.utime(made, (0, 0) if old else None)
        return made

    dead = directory("flexsn-kernels-abcdefgh", kernel, kernel.replace(".so", ".x_1.so"))
    alive = directory("flexsn-kernels-ijklmnop", kernel)
    lock = cache._lock(str(alive))
    young = directory("flexsn-kernels-qrstuvwx", kernel, old=False)
    notes = directory("flexsn-kernels-of-mine", kernel, "notes.txt")
    other = directory("flexsn-training", kernel)
    (tmp_path / "flexsn-kernels-link").symlink_to(alive)
    cache._temporary_directory.cache_clear()
    try:
        mine = Path(cache._temporary_directory().name)
        assert cache._lock(str(mine)) is None
    finally:
        cache._temporary_directory.cache_clear()
        assert lock is not None
        os.close(lock)
    assert not dead.exists()
    assert all((d / kernel).exists() for d in (alive, young, other))
    assert [file.name for file in notes.iterdir()] == ["notes.txt"]


def test_a_seal_is_for_one_key_and_one_content() -> None:
    whole = cache.sealed(b"content", "key")
    assert cache.is_sealed(whole, "key")
    assert not cache.is_sealed(whole, "kez")
    assert not cache.is_sealed(cache.sealed(b"", "keycontent"), "key")
    for other in (None, b"", whole[:-1], whole[1:], b"C" + whole[1:], whole + b"x"):
        assert not cache.is_sealed(other, "key")


def test_an_entry_of_another_user_is_not_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache.cache_dir() / "kernel.so"
    path.write_bytes(b"content")
    assert cache.read_entry(path) == b"content"
    mine = os.getuid()
    monkeypatch.setattr(cache.os, "getuid", lambda: mine + 1)
    assert cache.read_entry(path) is None


def test_many_publish_at_once(directory: Path) -> None:
    path = cache.cache_dir() / "kernel.so"
    content = "x" * 100_000
    torn: list[int] = []

    def work() -> None:
        for _ in range(20):
            cache.publish(path, lambda target: target.write_text(content) and None)
            if path.read_text() != content:
                torn.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torn == []
    assert os.listdir(directory) == ["kernel.so"]


def test_full_disk_on_rename(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache.cache_dir() / "kernel.so"
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).parent == directory:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(cache.os, "replace", full)
    made = cache.publish(path, lambda target: target.write_text("whole") and None)
    assert made.parent != directory
    assert made.read_text() == "whole"
    assert os.listdir(directory) == []


def test_full_disk_in_the_compiler(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache.cache_dir() / "kernel.so"
    usage = shutil.disk_usage(directory)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda where: usage._replace(free=1 << 20))

    def compile_it(target: Path) -> None:
        if target.parent == directory:
            raise BackendError("ld: final link failed: No space left on device")
        target.write_text("whole")

    assert cache.publish(path, compile_it).read_text() == "whole"


def test_no_place_at_all(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    with pytest.raises(BackendError, match="cannot be written"):
        cache.publish(cache.cache_dir() / "kernel.so", lambda target: target.write_text("whole") and None)


def test_keys_depend_on_every_part() -> None:
    keys = {cache.content_key(*parts) for parts in (("a", "b"), ("ab",), ("ab", ""), ("b", "a"), ("", "ab"))}
    assert len(keys) == 5
    assert cache.content_key("\udce9") != cache.content_key("é")


def test_show_source(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for value, expected in (("0", ""), ("", ""), ("1", "int main;\n")):
        monkeypatch.setenv("FLEXSN_PRINT_CODE", value)
        cache.show_source("int main;")
        assert capsys.readouterr().err == expected


HOLDING = """
import fcntl, os, sys
held = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_an_entry_is_made_by_one_process_at_a_time(directory: Path) -> None:
    """Who has waited long enough goes on; so does who waits for one that was killed."""
    path = directory / f"{'0' * 32}.so"
    directory.mkdir()
    command = [sys.executable, "-c", HOLDING, str(path.with_suffix(".lock"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        begun = time.monotonic()
        with alone(path, 0.1):
            assert time.monotonic() - begun >= 0.1
        assert path.with_suffix(".lock").exists() is False
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        other.kill()
        other.wait()
        with alone(path, 1000.0):
            pass
    assert list(directory.iterdir()) == []


def test_where_nothing_can_be_locked_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with alone(tmp_path / "missing" / "entry.so", 1000.0):
        pass

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(cache.fcntl, "flock", refuse)
    with alone(tmp_path / "entry.so", 1000.0):
        pass
    assert list(tmp_path.iterdir()) == []
