"""What is shipped, and what ``import flexsn`` brings and does not bring."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

import pytest

import flexsn

ROOT = Path(__file__).parent.parent


def output_of(program: str) -> str:
    """What a program prints in a process of its own."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_public_names_exist() -> None:
    assert set(flexsn.__all__) <= set(dir(flexsn))
    assert callable(flexsn.scan) and isinstance(flexsn.FlexSN, type)


def test_typed_and_versioned() -> None:
    for folder in ("flexsn", "kernels", "neurons"):
        assert (ROOT / folder / "py.typed").exists()
    assert f'\nversion = "{flexsn.__version__}"\n' in (ROOT / "pyproject.toml").read_text()
    assert flexsn.__version__ == metadata.version("flexsn") and "__version__" in dir(flexsn)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_the_source_archive_is_the_tree(tmp_path: Path) -> None:
    """Tests, documents, benchmarks and examples are in, and nothing that was made from them."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tree = {name for name in listed.split("\0") if name and (ROOT / name).exists()}
    made = ("docs/_build/index.html", "docs/made/page.md", "tests/__pycache__/made.pyc", "bench/results/gpu.csv")
    for name in (*tree, *made):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes() if name in tree else b"")
    build = "import setuptools.build_meta as build; build.build_sdist('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, check=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {name for name in files if "egg-info" not in name} - {"PKG-INFO", "setup.cfg"} == tree


def test_import_brings_nothing_but_flexsn() -> None:
    """No matplotlib, triton, sympy, no part of torch that torch itself does not load."""
    new = output_of("import sys, torch; old = set(sys.modules); import flexsn; print(*set(sys.modules) - old)").split()
    assert {name.partition(".")[0] for name in new} - set(sys.stdlib_module_names) == {"flexsn"}
    assert not {
        "flexsn.functional",
        "flexsn.neurons",
        "flexsn.nir",
        "flexsn.plot",
        "flexsn.report",
        "flexsn.surrogate",
    } & set(new)


def test_import_flexsn_is_enough() -> None:
    """Each of these in an order in which none is there because of another; matplotlib waits for the first figure."""
    uses = [
        "functional.reset_net",
        "plot.plot_1d_spikes",
        "surrogate.ATan",
        "kernels.__name__",
        "neurons.LIF",
        "neurons.norse.LIF",
        "neurons.snntorch.Leaky",
        "neurons.spikingjelly.LIFNode",
        "neurons.rnnbuilder.LIF",
        "nir.from_nir",
    ]
    used = "; ".join(f"flexsn.{use}" for use in uses)
    assert output_of(f"import sys, flexsn; {used}; print('matplotlib' in sys.modules)") == "False\n"


def test_rooms_are_listed_and_nothing_else_is_made_up() -> None:
    listed = output_of("import flexsn; print(*dir(flexsn), *dir(flexsn.neurons))").split()
    assert {"functional", "kernels", "neurons", "nir", "plot", "surrogate", "snntorch", "norse", "LIF"} <= set(listed)
    for module in (flexsn, flexsn.neurons):
        with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'nonsense'"):
            module.nonsense  # noqa: B018
