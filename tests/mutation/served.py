"""A process that has collected the tests and forks for every mutant, so that none of them pays for imports."""

from __future__ import annotations

import gc
import importlib.machinery
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from _pytest.main import pytest_runtestloop as run_items
from planting import ROOT, Mutant, mutants, plant, planted
from touched import Record, Touched, Tracer

KILLED, SURVIVED, TIMED_OUT, UNTOUCHED = "killed", "survived", "timed out", "no test comes there"
ONLY_AT_IMPORT = 99
QUIET = ("-x", "-s", "-p", "no:cacheprovider", "-p", "no:xdist")


class Until:
    """A plugin that ends a session in which the tests took long enough."""

    def __init__(self, seconds: float) -> None:
        self.end = time.process_time() + seconds

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        """Ask after each test."""
        if time.process_time() > self.end:
            item.session.shouldstop = "long enough"


def in_order(tests: Iterable[str], touched: Touched, own: str) -> list[str]:
    """The room's own files first, then the quick ones; a file in one piece, for its fixtures."""
    files: dict[str, list[str]] = {}
    for test in tests:
        files.setdefault(test.partition("::")[0], []).append(test)

    def cost(file: str) -> tuple[bool, float]:
        return not file.startswith(own), sum(touched.seconds[test] for test in files[file])

    return [test for file in sorted(files, key=cost) for test in sorted(files[file], key=touched.seconds.__getitem__)]


class Server:
    """A plugin that runs the tests of each mutant in a child instead of running them.

    Args:
        asked: for each mutant, its file and number.
        own: the folder of the room's own tests.
        kept: where it is written which test touches what.
        imported: the lines that ran as flexsn was imported.
        seconds: how much of a processor's time the tests of a mutant may take.
    """

    def __init__(
        self, asked: list[tuple[str, int]], own: str, kept: Path, imported: set[tuple[str, int]], seconds: float
    ) -> None:
        self.asked, self.own, self.kept, self.imported, self.seconds = asked, own, kept, imported, seconds
        self.answers = os.fdopen(os.dup(1), "w", buffering=1)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Fork, fork, fork."""
        if session.testsfailed:
            raise SystemExit("the tests cannot be collected")
        sys.settrace(None)
        if not self.kept.exists():
            self._child(lambda: self._record(session), 24 * 3600)
        self.touched = Touched.read(self.kept)
        self.items = {item.nodeid: item for item in session.items}
        for file, number in self.asked:
            mutant = mutants(ROOT / file)[number]
            self.answers.write(json.dumps([file, number, self._outcome(session, mutant)]) + "\n")
        return True

    def _record(self, session: pytest.Session) -> int:
        record = Record(self.imported)
        session.config.pluginmanager.register(record)
        session.config.option.maxfail = 0
        run_items(session)
        record.finish().write(self.kept)
        return 0

    def _outcome(self, session: pytest.Session, mutant: Mutant) -> str:
        file = str(mutant.path.relative_to(ROOT))
        at_import = any((file, line) in self.touched.imported for line in mutant.lines)
        tests = self.touched.of(file, mutant.lines)
        found = UNTOUCHED
        if tests:
            order = in_order(tests, self.touched, self.own)
            status = self._child(lambda: self._attempt(session, mutant, order), self.seconds)
            if status != ONLY_AT_IMPORT:
                found = {0: SURVIVED, -signal.SIGXCPU: TIMED_OUT, -signal.SIGALRM: TIMED_OUT}.get(status, KILLED)
        if found in (SURVIVED, UNTOUCHED) and at_import:
            found = self._anew(mutant, file)
        return found

    def _attempt(self, session: pytest.Session, mutant: Mutant, tests: list[str]) -> int:
        gc.unfreeze()  # or the functions are not found
        if not plant(mutant):
            return ONLY_AT_IMPORT
        if mutant.path.is_relative_to(ROOT / "kernels"):  # what it builds is not for others
            shared = Path(os.environ["FLEXSN_CACHE_DIR"])
            alone = shared.with_name(f"{shared.name}-{os.getpid()}")
            shutil.copytree(shared, alone, copy_function=os.link)
            os.environ["FLEXSN_CACHE_DIR"] = str(alone)
        session.items = [self.items[test] for test in tests if test in self.items]
        session.config.pluginmanager.register(Until(self.seconds))
        session.config.option.maxfail = 1
        with suppress(session.Failed, session.Interrupted):
            run_items(session)
        return int(session.testsfailed > 0)

    def _child(self, work: Any, seconds: float) -> int:
        """What ``work`` gives in a child; the negative number of the signal that ended it."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setsid()
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 1)
                os.dup2(nowhere, 2)
                resource.setrlimit(resource.RLIMIT_CPU, (int(2 * seconds) + 30, int(2 * seconds) + 60))
                signal.alarm(int(8 * seconds))
                status = work()
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        shared = Path(os.environ["FLEXSN_CACHE_DIR"])
        shutil.rmtree(shared.with_name(f"{shared.name}-{child}"), ignore_errors=True)
        return os.waitstatus_to_exitcode(ended)

    def _anew(self, mutant: Mutant, file: str) -> str:
        """The outcome in a process of its own that imports the fault."""
        order = in_order(self.touched.of_file(file), self.touched, self.own)
        paths = list(dict.fromkeys(test.partition("::")[0] for test in order))
        command = [sys.executable, str(Path(__file__).with_name("mutants.py")), "run", file, str(mutant.number)]
        process = subprocess.Popen(
            [*command, str(self.seconds), *paths],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return KILLED if process.wait(8 * self.seconds) else SURVIVED
        except subprocess.TimeoutExpired:
            return TIMED_OUT
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def serve(asked: list[tuple[str, int]], own: str, kept: Path, seconds: float, tests: list[str]) -> int:
    """Say on stdout, a line each, how each mutant ended."""
    with Tracer() as tracer:
        server = Server(asked, own, kept, set(), seconds)
        return pytest.main([*QUIET, *tests], plugins=[server, _Imported(tracer, server)])


class _Imported:
    """Tells the server which lines ran until the tests were collected."""

    def __init__(self, tracer: Tracer, server: Server) -> None:
        self.tracer, self.server = tracer, server

    def pytest_collection_finish(self) -> None:
        self.server.imported |= self.tracer.places()


def run(file: str, number: int, seconds: float, tests: list[str]) -> int:
    """Run tests in a process that imports the fault; pytest's exit status."""
    path = ROOT / file
    load = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: importlib.machinery.SourceFileLoader, fullname: str) -> Any:
        return planted(path, number)[1] if Path(self.path).resolve() == path else load(self, fullname)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    return pytest.main([*QUIET, *tests], plugins=[Until(seconds)])
