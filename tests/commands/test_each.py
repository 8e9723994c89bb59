"""What the commands say of neurons, cores and machines; ``demo`` and ``explain`` have tests of their own."""

from __future__ import annotations

import builtins
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from flexsn import kernels
from flexsn.__main__ import main
from flexsn.commands.neurons import neurons_of


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda: capsys.readouterr().out


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "cache"
    monkeypatch.setenv("FLEXSN_CACHE_DIR", str(directory))
    return directory


# ---- check -----------------------------------------------------------------------------------------------------


def test_check_passes_and_says_what_moves(own_file: Path, said: Any) -> None:
    assert main(["check", f"{own_file}:core", "--shape", "5,2,3", "--seed", "1"]) == 0
    text = said()
    assert text.startswith("check of core: passed\n") and "8 bytes per lane and step in inference" in text
    assert "[5, 2, 3]" in text


def test_check_fails_with_the_line_that_stands_in_the_way(own_file: Path, said: Any) -> None:
    assert main(["check", f"{own_file}:mixing"]) == 1
    assert "h = v + x.cumsum(-1)  # the line" in said()


def test_check_of_inputs_that_do_not_fit_is_a_matter_of_usage(
    own_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", f"{own_file}:Leaky", "--shape", "4,2,5"]) == 2
    assert "the loop does not run on such inputs" in capsys.readouterr().err


def test_check_wants_shapes_of_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", "LIF", "--shape", "4,0"])
    assert ended.value.code == 2 and "'4,0' is no shape T,B,..." in capsys.readouterr().err


# ---- neurons ---------------------------------------------------------------------------------------------------


def test_neurons_lists_all_with_their_equations(said: Any) -> None:
    from flexsn import neurons

    assert main(["neurons"]) == 0
    text = said()
    assert "\nLIF: Leaky integrate-and-fire.\n    h = v + (x − (v − v_reset))/tau\n" in text
    assert all(f"\n{neuron.__name__}: " in text for neuron in neurons_of(neurons)) and "`" not in text
    assert "    snntorch: Alpha, " in text and "spikingjelly: " in text


@pytest.mark.parametrize("name", ["ALIF", "core"])
def test_neurons_draws_one(name: str, own_file: Path, tmp_path: Path, said: Any) -> None:
    picture = tmp_path / "picture.png"
    assert main(["neurons", "--plot", f"{own_file}:core" if name == "core" else name, "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG") and said() == f"picture: {picture}\n"


def test_without_matplotlib_a_picture_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name=name)
        return brought(name, *args, **kwargs)

    brought = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["neurons", "--plot", "LIF"]) == 2
    assert 'pip install "flexsn[plot]"' in capsys.readouterr().err


# ---- bench -----------------------------------------------------------------------------------------------------


def test_bench_times_both_ways_beside_the_loop(own_file: Path, said: Any) -> None:
    assert main(["bench", f"{own_file}:Leaky", "--size", "4x30", "--seconds", "0.01", "--device", "cpu"]) == 0
    lines = said().splitlines()
    assert len(lines) == 5 and lines[3].startswith("forward ") and lines[4].startswith("forward and backward ")
    assert all("4 x 30" in line and re.search(r"\d ms \(.*\d ms \(.*  \d+\.\d$", line) for line in lines[3:])


def test_bench_wants_sizes_of_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "LIF", "--size", "4"]) == 2
    assert capsys.readouterr().err == "--size 4: steps x lanes are meant, such as 16x4096\n"


# ---- info, cache -----------------------------------------------------------------------------------------------


def test_info_is_what_a_bug_report_needs(own_cache: Path, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXSN_PRINT_CODE", "0")
    monkeypatch.delenv("CXX", raising=False)
    assert main(["info"]) == 0
    rows = {line[:16].strip(): line for line in said().splitlines()}
    assert torch.__version__ in rows["torch"] and "-ffp-contract=off" in rows["c++ flags"]
    assert "runs here" in rows["backend cpp"] and f"{own_cache}: 0 kernels" in rows["cache"]
    assert "FLEXSN_PRINT_CODE=0" in rows["environment"] and "PATH" not in rows["environment"]


def test_info_without_a_compiler_and_packages(own_cache: Path, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from flexsn.commands import info

    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(info, "_PACKAGES", ("flexsn", "no-such-package"))
    assert main(["info"]) == 0
    text = said()
    assert re.search(r"c\+\+ compiler +no C\+\+ compiler: no-such-compiler not found", text)
    assert re.search(r"no-such-package +not installed", text)


def test_cache_shows_and_clears_kernels_and_nothing_else(own_cache: Path, said: Any) -> None:
    assert main(["cache"]) == 0
    names = ["0" * 32 + ".so", "flexsn_" + "1" * 32 + ".py"]
    others = {"mine.txt", "0" * 32 + ".abcd1234.so"}  # the latter another process is building
    for name in (*names, *others):
        (own_cache / name).write_bytes(bytes(2**20))
    assert {path.name for path in kernels.cached_kernels()} == set(names)
    assert main(["cache", "--clear"]) == 0
    assert {path.name for path in own_cache.iterdir()} == others
    zero, two, removed = said().splitlines()
    assert zero == f"{own_cache}: 0 kernels, 0.0 MiB" and two == f"{own_cache}: 2 kernels, 2.0 MiB"
    assert removed.startswith("removed 2 kernels")
