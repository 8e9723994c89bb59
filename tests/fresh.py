"""A program in a process of its own, in which flexsn has been imported and nothing has run.

It is forked from one that did just that, once per test process: importing torch takes longer than most of the programs.
What is to be seen of the import itself wants ``subprocess``.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["flexsn.neurons", "flexsn.surrogate", __name__])


@dataclass(frozen=True)
class Done:
    """A program that has ended."""

    returncode: int | None
    stdout: str
    stderr: str


def run(program: str, folder: Path | None = None, environment: dict[str, str] | None = None) -> Done:
    """Run a program as ``python -c`` would.

    Args:
        program: its text.
        folder: where it runs and imports from.
        environment: this process's if not given.
    """
    with tempfile.TemporaryDirectory() as said:
        arguments = (program, str(folder or Path.cwd()), dict(environment or os.environ), said)
        process = _SERVER.Process(target=_main, args=arguments)
        process.start()
        process.join()
        stdout, stderr = ((Path(said) / name).read_text() for name in ("stdout", "stderr"))
        return Done(process.exitcode, stdout, stderr)


def _main(program: str, folder: str, environment: dict[str, str], said: str) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{said}/{name}", os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.argv = ["-c"]
    os.environ.clear()
    os.environ.update(environment)
    main = sys.modules["__main__"] = ModuleType("__main__")
    exec(compile(program, "<string>", "exec"), main.__dict__)
