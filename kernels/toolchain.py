"""What kernels are built with on this machine, in words."""

from __future__ import annotations

from flexsn.errors import BackendError
from flexsn.kernels.backend import BACKENDS, backend
from flexsn.kernels.cpp.compiler import find_compiler, flags, identity, lacking, vector_math

__all__ = ["toolchain"]


def toolchain() -> dict[str, str]:
    """By name: the C++ compiler and what it is asked for, which backends run, or why not."""
    rows = _compiler()
    for name in BACKENDS:
        problem = backend(name).problem()
        rows[f"backend {name}"] = "runs here" if problem is None else _in_a_line(problem)
    return rows


def _compiler() -> dict[str, str]:
    try:
        compiler = find_compiler()
        version, lacks = identity(compiler)[2].partition("\n")[0], lacking(compiler)
        rows = {
            "c++ compiler": f"{compiler.program}: {version or 'does not say its version'}",
            "c++ flags": " ".join((*compiler.command[1:], *flags(compiler))),
            "vector math": ("none", "exp, log, sin, cos, pow", "libmvec")[vector_math(compiler)],
        }
        return rows | ({"c++ lacks": ", ".join(lacks)} if lacks else {})
    except BackendError as error:
        return {"c++ compiler": _in_a_line(error)}


def _in_a_line(error: BackendError) -> str:
    return " ".join(str(error).split())
