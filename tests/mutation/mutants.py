"""Mutants: plant one small fault at a time in an inner room, and see whether a test notices.

``make mutants ROOM=planning`` tries a sample of 40. Each mutant lives in a process of its own and never in the tree,
and meets the tests that come by its lines. One that survives wants a test, or a place in ``equivalents.txt`` with the
reason why no test can tell.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from planting import ROOT, Mutant, files, mutants
from served import KILLED, TIMED_OUT, run, serve
from touched import state_of_the_tree

EQUIVALENTS = Path(__file__).with_name("equivalents.txt")
KEPT = ROOT / ".venv" / "touched"

ROOMS = ("ir", "captures", "tracing", "planning", "execution", "kernels/cpp", "kernels/triton")
TESTS = (
    "tests/test_tiny.py",
    "tests/test_docs.py",
    *(f"tests/{room}" for room in (*ROOMS[:5], "kernels", "modules", "graphs", "report")),
)
TESTS += ("tests/flexsn", "tests/property")
INTERPRETED = ("tests/kernels/triton/test_kernels.py", "tests/property")
"""The tests that notice, and those that take Triton's interpreter."""


def equivalents() -> set[tuple[str, ...]]:
    """The mutants that no test can tell from the original: blocks of a file, ``- before``, ``+ after``, and why."""
    blocks = EQUIVALENTS.read_text().strip().split("\n\n")
    return {
        tuple(line.removeprefix("- ").removeprefix("+ ") for line in block.splitlines()[:3])
        for block in blocks
        if block
    }


def outcomes(
    asked: Sequence[Mutant], room: str, tests: Sequence[str], interpreted: bool, seconds: float
) -> Iterator[tuple[Mutant, str]]:
    """How each mutant ends, from a server of its own."""
    by_name = {(str(m.path.relative_to(ROOT)), m.number): m for m in asked}
    kept = KEPT / f"{'-'.join(tests).replace('/', '_')[:60]}-{int(interpreted)}-{state_of_the_tree()}.json"
    command = [sys.executable, __file__, "serve", f"tests/{room}", str(kept), str(seconds), json.dumps([*by_name])]
    environment = {**os.environ, "TRITON_INTERPRET": str(int(interpreted)), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *tests], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("["):
            file, number, outcome = json.loads(line)
            yield by_name[file, number], outcome
    if process.wait():
        raise SystemExit(f"the tests in {', '.join(tests)} cannot be run")


def stages(room: str, own: bool) -> list[tuple[bool, tuple[str, ...]]]:
    """Whether in Triton's interpreter, and which tests: the room's own, which kill most, then others."""
    found = [(False, (f"tests/{room}",))]
    if not own:
        found += [(False, TESTS), (True, INTERPRETED)][: 2 if room in ("ir", "planning", "kernels/triton") else 1]
    return found


def alive_after(
    tried: Sequence[Mutant], room: str, stage: tuple[bool, tuple[str, ...]], jobs: int, seconds: float
) -> Iterator[tuple[Mutant, str]]:
    """Those that the tests of a stage did not kill, and how they ended."""
    interpreted, tests = stage
    list(outcomes((), room, tests, interpreted, seconds))  # writes down which test comes by which line
    shares = [share for i in range(jobs) if (share := tried[i::jobs])]
    with ThreadPoolExecutor(jobs) as pool:
        for ended in pool.map(lambda share: list(outcomes(share, room, tests, interpreted, seconds)), shares):
            yield from ((mutant, outcome) for mutant, outcome in ended if outcome != KILLED)


def main() -> int:
    """Try a sample of mutants of a room; 1 if one survives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--room", choices=ROOMS, required=True)
    parser.add_argument("--file", default="*", help="the name of a file, or a pattern")
    parser.add_argument("--sample", type=int, default=40, help="how many; 0 for all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--own", action="store_true", help="only the tests of the room's own folder")
    parser.add_argument("--seconds", type=float, default=60, help="of a processor, that the tests of a mutant may take")
    chosen = parser.parse_args()
    known = equivalents()
    found = [m for path in files(chosen.room, chosen.file) for m in mutants(path) if m.name not in known]
    tried = random.Random(chosen.seed).sample(found, min(chosen.sample or len(found), len(found)))
    start = time.monotonic()
    print(f"{len(tried)} of {len(found)} mutants of {chosen.room}", flush=True)
    alive, endless = tried, set[Mutant]()
    for stage in stages(chosen.room, chosen.own):
        ended = dict(alive_after(alive, chosen.room, stage, chosen.jobs, chosen.seconds))
        endless |= {mutant for mutant, outcome in ended.items() if outcome == TIMED_OUT}
        alive = [mutant for mutant in ended if mutant not in endless]
        print(f"{len(alive)} alive after {', '.join(stage[1])}: {time.monotonic() - start:.0f} s", flush=True)
    for mutant in alive:
        print(f"{mutant}\n    {ended[mutant]}")
    print(f"{len(alive)} of {len(tried)} survived, {len(endless)} ran on and on")
    return int(bool(alive))


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        sys.exit(run(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5:]))
    if sys.argv[1:2] == ["serve"]:
        own, kept, seconds, asked, *tests = sys.argv[2:]
        sys.exit(serve([tuple(a) for a in json.loads(asked)], own, Path(kept), float(seconds), tests))
    sys.exit(main())
