"""For the first person with a card: the GPU tests, the benchmark, and a page of results to paste, in ten minutes.

    make gpu                          # in an environment of its own, torch for CUDA
    python bench/gpu_report.py        # in yours: ROCm, another torch
    python bench/gpu_report.py --minutes 4

Writes ``results/gpu.md``, the page. If something failed, ``results/gpu_failed.tar.gz`` has what we need to see it: the
page, the logs, the first failure once more with every launch waited for, and the kernels that ran. Status 0 if all
went well, 1 if something failed, 2 on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
KERNELS = RESULTS / "gpu_kernels"
PAGE, PACKED = RESULTS / "gpu.md", RESULTS / "gpu_failed.tar.gz"
TEST_MINUTES = 5.0  # at most; the benchmark has the rest
ADDRESS = "an issue titled `GPU: <card>`"


def run(log: Path, seconds: float, command: Sequence[str], **environment: str) -> int:
    """Run a command, its output on the screen and in a file; 124 if it was stopped because time was up."""
    print(f"$ {' '.join(command)}", flush=True)
    full = {**os.environ, "FLEXSN_CACHE_DIR": str(KERNELS), "PYTHONUNBUFFERED": "1", **environment}
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=full, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            file.write(line)
        status = process.wait()
        timer.cancel()
    return 124 if late.is_set() else status


def machine() -> dict[str, str]:
    """What the figures were taken on, in words that name no host."""
    card = torch.cuda.get_device_properties(0)
    return {
        "card": f"{torch.cuda.device_count()} x {card.name}, {card.total_memory / 2**30:.0f} GiB",
        "architecture": getattr(card, "gcnArchName", "") or f"sm_{card.major}{card.minor}",
        "multiprocessors": str(card.multi_processor_count),
        "driver": _driver(),
        "torch": f"{torch.__version__} ({'ROCm ' + torch.version.hip if torch.version.hip else torch.version.cuda})",
        "Triton": _version("triton"),
        "Python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "flexsn": f"{_version('flexsn')}, {_commit()}",
    }


def _driver() -> str:
    return _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


def _commit() -> str:
    return _said("git", "-C", str(ROOT), "describe", "--always", "--dirty")


def _said(*command: str) -> str:
    """The first line a command says, if there is such a command."""
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.partition("\n")[0].strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of equal keys, as Markdown."""
    if not rows:
        return "(none)\n"
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def side_by_side(rows: Iterable[Mapping[str, str]]) -> list[dict[str, object]]:
    """A row per size: flexsn's time, its bandwidth over a copy's, and the times of others over flexsn's."""
    sizes: dict[tuple[str, str, str], dict[str, Mapping[str, str]]] = {}
    for row in rows:
        sizes.setdefault((row["dtype"], row["T"], row["N"]), {})[row["contender"]] = row
    others = sorted({name for found in sizes.values() for name in found} - {"flexsn", "copy"})
    result = []
    for (dtype, num_steps, lanes), found in sizes.items():
        if "flexsn" in found:
            own = float(found["flexsn"]["ms"])
            over = {name: f"{float(row['ms']) / own:.2f}" for name, row in found.items()}
            result.append(
                {"dtype": dtype, "T": num_steps, "N": lanes, "flexsn, ms": f"{own:.4g}"}
                | {"GB/s": found["flexsn"]["GB_per_s"], "copy": over.get("copy", "-")}
                | {name: over.get(name, "-") for name in others}
            )
    return result


def page(about: Mapping[str, str], tests: str, status: Mapping[str, int], results: Path = RESULTS) -> str:
    """The page to paste.

    Args:
        about: the machine.
        tests: what pytest said.
        status: of each command.
        results: where the tables are.
    """
    rows = {path.stem: list(csv.DictReader(path.open())) for path in sorted(results.glob("gpu*.csv"))}
    failures = re.findall(r"^(?:FAILED|ERROR) .*", tests, re.MULTILINE)
    outcome = {0: "passed", 124: "stopped: time was up"}
    text = f"""# flexsn on {about["card"]}

{table([{"what": key, "is": value} for key, value in about.items()])}
## Tests

{tests.strip().rpartition(chr(10))[2]}

{"".join(f"- `{line[:300]}`" + chr(10) for line in failures)}
{"".join(f"{name}: {outcome.get(code, f'failed with status {code}')}" + chr(10) for name, code in status.items())}
## LIF, forward + backward

Times of the others over flexsn's; `copy` moves the bytes of flexsn's plan.

{table(side_by_side(rows.get("gpu", [])))}
## First calls

{table(rows.get("gpu_first", []))}
## What the tiling model expected

{table(rows.get("gpu_model", []))}"""
    return _nameless(text)


def _nameless(text: str) -> str:
    """Without the places of this machine."""
    for path, name in ((ROOT.resolve(), "."), (Path(sys.prefix), "<python>"), (Path.home(), "~")):
        text = text.replace(str(path), name)
    return text


def pack(logs: Sequence[Path]) -> None:
    """What we need to see a failure."""
    with tarfile.open(PACKED, "w:gz") as archive:
        for log in logs:
            log.write_text(_nameless(log.read_text()))
        for path in (PAGE, *logs, *sorted(KERNELS.glob("*.py"))):
            archive.add(path, path.name)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    minutes = parser.parse_args().minutes
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        print(
            "no GPU here that torch can see, so nothing was run or measured"
            + ("" if built else f"; this torch ({torch.__version__}) is built without CUDA and ROCm"),
            file=sys.stderr,
        )
        return 2
    end = time.monotonic() + minutes * 60
    shutil.rmtree(KERNELS, ignore_errors=True)  # those of this run alone are packed
    for old in (PACKED, PAGE, *RESULTS.glob("gpu*.csv"), *RESULTS.glob("gpu*.log")):
        old.unlink(missing_ok=True)
    RESULTS.mkdir(exist_ok=True)
    tests, bench, again = (RESULTS / f"gpu_{name}.log" for name in ("tests", "bench", "again"))
    python, cache = [sys.executable, "-m", "pytest", "-rfE", "--tb=short", "tests/gpu"], f"cache_dir={KERNELS}"
    status = {"tests": run(tests, min(TEST_MINUTES, minutes / 2) * 60, [*python, "-o", cache, "-o", "addopts="])}
    logs = [tests, bench]
    if status["tests"]:
        logs.append(again)
        waiting = {"CUDA_LAUNCH_BLOCKING": "1", "AMD_SERIALIZE_KERNEL": "3", "FLEXSN_PRINT_CODE": "1"}
        run(again, 60, [*python, "-o", cache, "-o", "addopts=", "--last-failed", "-x"], **waiting)
    left = (end - time.monotonic()) / 60
    status["benchmark"] = run(bench, left * 60 + 30, [sys.executable, "bench/gpu.py", "--minutes", f"{left:.2f}"])
    PAGE.write_text(page(machine(), tests.read_text(), status))
    print(f"\n{PAGE.read_text()}\nThis page is {PAGE.relative_to(ROOT)}: please paste it into {ADDRESS}.")
    if any(status.values()):
        pack(logs)
        print(f"Something failed: please attach {PACKED.relative_to(ROOT)}, which has logs and kernels.")
    return int(any(status.values()))


if __name__ == "__main__":
    raise SystemExit(main())
