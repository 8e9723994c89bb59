"""Which tests come by which lines of the inner rooms, so that a mutant meets only those that could notice it."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from planting import ROOT

ROOMS = (str(ROOT / "flexsn"), str(ROOT / "kernels"))
Place = tuple[str, int]


class Tracer:
    """The lines of flexsn that run while it is on."""

    def __init__(self) -> None:
        self.lines: set[tuple[CodeType, int]] = set()

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._line if frame.f_code.co_filename.startswith(ROOMS) else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        self.lines.add((frame.f_code, frame.f_lineno))
        return self._line

    def __enter__(self) -> Tracer:
        threading.settrace(self._call)
        sys.settrace(self._call)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]

    def places(self) -> set[Place]:
        """Files and lines."""
        return {(str(Path(code.co_filename).relative_to(ROOT)), line) for code, line in self.lines}


class Touched:
    """Which tests come by which lines, how long each takes, and the lines that run as flexsn is imported."""

    def __init__(self) -> None:
        self.tests: dict[Place, list[str]] = {}
        self.seconds: dict[str, float] = {}
        self.imported: set[Place] = set()

    def of(self, file: str, lines: range) -> set[str]:
        """The tests that come by one of these lines."""
        return {test for line in lines for test in self.tests.get((file, line), ())}

    def of_file(self, file: str) -> set[str]:
        """The tests that come by a file."""
        return {test for (path, _), tests in self.tests.items() if path == file for test in tests}

    def write(self, path: Path) -> None:
        """Keep it."""
        names = list(self.seconds)
        number = {name: i for i, name in enumerate(names)}
        tests = [[*place, [number[t] for t in tests]] for place, tests in self.tests.items()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([names, list(self.seconds.values()), tests, sorted(self.imported)]))

    @classmethod
    def read(cls, path: Path) -> Touched:
        """What was kept."""
        names, seconds, tests, imported = json.loads(path.read_text())
        self = cls()
        self.seconds = dict(zip(names, seconds, strict=True))
        self.tests = {(file, line): [names[i] for i in numbers] for file, line, numbers in tests}
        self.imported = {(file, line) for file, line in imported}
        return self


class Record:
    """A plugin that fills in a :class:`Touched` with the tests that pass."""

    def __init__(self, imported: set[Place]) -> None:
        self.touched = Touched()
        self.touched.imported = imported
        self.passed: dict[str, bool] = defaultdict(bool)
        self._tests: dict[Place, list[str]] = defaultdict(list)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Trace a test with its fixtures."""
        start = time.process_time()
        with Tracer() as tracer:
            result = yield
        if self.passed[item.nodeid]:
            self.touched.seconds[item.nodeid] = time.process_time() - start
            for place in tracer.places():
                self._tests[place].append(item.nodeid)
        return result  # type: ignore[return-value]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Learn how it ended."""
        if report.when == "call":
            self.passed[report.nodeid] = report.passed

    def finish(self) -> Touched:
        """All that was seen."""
        self.touched.tests = dict(self._tests)
        return self.touched


def state_of_the_tree() -> str:
    """Another string whenever a file changes."""
    digest = hashlib.sha256()
    for folder in ("flexsn", "kernels", "neurons", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{path}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
