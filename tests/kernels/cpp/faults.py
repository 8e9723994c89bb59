"""Everything that can befall a compiled kernel: stand-in compilers, and damage to entries of the cache."""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from flexsn.kernels.cache import sealed

SECONDS = 2.0
"""That a compiler gets in these tests."""

VERSIONS = {
    "says": "echo 'stand-in 1.0'",
    "says nothing": ":",
    "says Latin-1": r"printf 'version \351\n'",
    "fails": "exit 3",
    "reads": "cat > /dev/null",
    "hangs": "sleep 60",
}
COMPILATIONS = {
    "compiles": 'cp "$built" "$target"',
    "warns": 'cp "$built" "$target"; printf "warnung \\374ber alles\\n" >&2',
    "fails": "echo 'error: no' >&2; exit 1",
    "fails in Latin-1": r"printf 'erreur: \351chec\n' >&2; exit 1",
    "crashes": "kill -SEGV $$",
    "hangs": "sleep 60",
    "leaves a child that hangs": "sleep 60 & exit 1",
    "writes nothing": ":",
    "writes nonsense": 'echo nonsense > "$target"',
    "writes half": 'head -c 5000 "$built" > "$target"',
    "writes another machine's": 'cp "$store/foreign" "$target"',
    "writes no kernel": 'cp "$store/empty" "$target"',
    "removes its target": 'rm "$target"',
    "makes a pipe": 'rm "$target"; mkfifo "$target"',
    "makes a directory": 'rm "$target"; mkdir "$target"',
}
WORKING = ("compiles", "warns")


class Compilers:
    """Stand-ins for a compiler, quick since what the real one made once is kept.

    Args:
        directory: where scripts and libraries lie.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = directory / "store"
        self.store.mkdir()
        empty = self.store / "empty"
        subprocess.run(["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", empty], input=b"int nothing;", check=True)
        (self.store / "foreign").write_bytes(foreign(empty.read_bytes()))

    def script(self, name: str, version: str = "says", compilation: str = "compiles") -> Path:
        """A compiler that behaves like that."""
        path = self.directory / name
        body = f"""\
            #!/bin/sh
            store={self.store}
            if [ "$1" = --version ]; then
              {VERSIONS[version]}
              exit
            fi
            last=; for word; do [ "$last" = -o ] && target=$word; last=$word; done
            source=$(mktemp); cat > "$source"
            built=$store/$(sha256sum < "$source" | cut -c1-32)
            [ -f "$built" ] || {{ g++ "$@" < "$source" && cp "$target" "$built.$$" && mv "$built.$$" "$built"; }}
            rm "$source"
            {COMPILATIONS[compilation]}
            """
        path.write_text(textwrap.dedent(body))
        path.chmod(0o755)
        return path


def foreign(library: bytes) -> bytes:
    """A library as one for another machine: the word of an ELF header that names it is changed."""
    return library[:18] + bytes([library[18] ^ 0x55]) + library[19:]


Damage = Callable[[Path, Sequence[Path], Path], None]
"""What happens to an entry: its path, those of all entries, the stand-in compilers' store."""


def _put(make: Callable[[Path], object]) -> Damage:
    def damage(entry: Path, entries: Sequence[Path], store: Path) -> None:
        entry.unlink()
        make(entry)

    return damage


def _exchange(entry: Path, entries: Sequence[Path], store: Path) -> None:
    other = entries[(entries.index(entry) + 1) % len(entries)]
    spare = entry.with_suffix(".spare")
    entry.rename(spare)
    other.rename(entry)
    spare.rename(other)


def _seal_foreign(entry: Path, entries: Sequence[Path], store: Path) -> None:
    entry.write_bytes(sealed(foreign(entry.read_bytes()[:-32]), entry.stem))


def _seal_empty(entry: Path, entries: Sequence[Path], store: Path) -> None:
    entry.write_bytes(sealed((store / "empty").read_bytes(), entry.stem))


def _full_directory(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("somebody's")


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


PLACES: dict[str, Damage] = {
    "gone": _put(lambda path: None),
    "exchanged": _exchange,
    "another machine's": _seal_foreign,
    "no kernel": _seal_empty,
    "a pipe": _put(os.mkfifo),
    "a directory": _put(Path.mkdir),
    "a full directory": _put(_full_directory),
    "a link to nowhere": _put(lambda path: path.symlink_to("nowhere")),
    "a link to itself": _put(lambda path: path.symlink_to(path.name)),
    "a device": _put(lambda path: path.symlink_to("/dev/zero")),
    "huge": _put(_huge),
    "not readable": lambda entry, entries, store: entry.chmod(0),
}
