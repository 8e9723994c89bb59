"""The page of ``make gpu``, and what it says where there is no GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tests import fresh

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize("script", ["gpu_report.py", "gpu.py"])
def test_without_a_gpu_it_says_so_and_measures_nothing(script: str) -> None:
    ended = fresh.run(f"import runpy; runpy.run_path({str(BENCH / script)!r}, run_name='__main__')", BENCH)
    assert ended.returncode == 2 and "GPU" in ended.stderr and not ended.stdout


def test_the_page_has_failures_and_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import gpu_report

    header, size = "dtype,T,N,contender,ms,GB_per_s,peak_MiB\n", "float32,16,4096"
    rows = [f"{size},{name},{ms},100,1\n" for name, ms in (("copy", 1.0), ("flexsn", 2.0), ("loop", 9.0))]
    (tmp_path / "gpu.csv").write_text(header + "".join(rows))
    said = f"FAILED tests/gpu/test_gpu.py::test_x - {Path.home()}/core.py is wrong\n1 failed, 2 passed in 3 s\n"
    text = gpu_report.page({"card": "1 x Abacus"}, said, {"tests": 1, "benchmark": 124}, tmp_path)
    assert text.startswith("# flexsn on 1 x Abacus\n") and "\n1 failed, 2 passed in 3 s\n" in text
    assert "- `FAILED tests/gpu/test_gpu.py::test_x - ~/core.py is wrong`" in text
    assert "tests: failed with status 1\nbenchmark: stopped: time was up\n" in text
    assert "| float32 | 16 | 4096 | 2 | 100 | 0.50 | 4.50 |" in text


def test_a_command_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import gpu_report

    said = tmp_path / "log"
    assert gpu_report.run(said, 60, [sys.executable, "-c", "import sys; print('here'); sys.exit(3)"]) == 3
    assert said.read_text() == "here\n"
    assert gpu_report.run(said, 0.5, [sys.executable, "-c", "import time; time.sleep(600)"]) == 124
