"""Every error a user can meet, each saying what happened, where, why and what to do."""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import Any

__all__ = [
    "LIBRARIES",
    "BackendError",
    "CoreError",
    "FallbackWarning",
    "FlexSNError",
    "GradientError",
    "SourceLine",
    "UnsupportedOpError",
    "call_for_user",
    "calling_line",
    "core_line",
    "defined_at",
    "failing_line",
    "is_users_frame",
    "ours_failed",
    "stack_level",
]

LIBRARIES = ("torch", "numpy", "scipy")
"""Packages whose code is neither the user's nor flexsn's."""

_STANDARD = os.path.dirname(os.__file__) + os.sep
_PACKAGE = __name__.partition(".")[0]
_TRACING = f"{_PACKAGE}.tracing."
_TRACER = f"{_TRACING}tracer"
_NEURONS = f"{_PACKAGE}.neurons."


@dataclass(frozen=True)
class SourceLine:
    """A line of the user's own code."""

    filename: str
    lineno: int
    function: str
    text: str

    def __str__(self) -> str:
        where = f"{self.filename}:{self.lineno}, in {self.function}"
        return f"{where}: {self.text}" if self.text else where


class FlexSNError(Exception):
    """Base of all flexsn errors.

    Args:
        what: one sentence, what went wrong.
        where: the user's source line, or a name that locates the problem.
        why: the rule that was broken.
        hint: what to do about it.
    """

    def __init__(self, what: str, *, where: SourceLine | str | None = None, why: str = "", hint: str = "") -> None:
        self.what, self.where, self.why, self.hint = what, where, why, hint
        rows = [("where", str(where) if where else ""), ("why", why), ("hint", hint)]
        super().__init__("\n".join([what, *(f"  {label + ':':7}{text}" for label, text in rows if text)]))


class CoreError(FlexSNError, ValueError):
    """The core does not keep the contract ``core(*inputs, *states) -> (*outputs, *new_states)``."""


class UnsupportedOpError(FlexSNError, NotImplementedError):
    """The core does something no fused kernel can express; the torch loop still can."""


class BackendError(FlexSNError, RuntimeError):
    """A backend was asked for by name and cannot run here: no compiler, no GPU, no Triton."""


class GradientError(FlexSNError, RuntimeError):
    """A gradient was asked for and no path leads to it, usually a spike without a surrogate."""


class FallbackWarning(UserWarning):
    """``backend="auto"`` runs the torch loop because a fused kernel could not be made."""


def failing_line(error: BaseException) -> SourceLine | None:
    """The innermost line of the user's own code on the way to ``error``."""
    found, traceback = None, error.__traceback__
    while traceback is not None:
        if is_users_frame(traceback.tb_frame):
            found = _line(traceback.tb_frame, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


def call_for_user(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a core, or an operator a core asked for, while tracing: what fails in there is no fault of the tracer."""
    return function(*args, **kwargs)


def ours_failed(error: BaseException) -> bool:
    """Whether the tracer itself broke, not the core it was tracing.

    A core's own lines, a built-in neuron's and a surrogate's included, run in the loop too, where nothing hides what
    is wrong with them. Only the tracer runs the tracer's.
    """
    ours, traceback = True, error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code is call_for_user.__code__:
            ours = False
        elif _module_of(traceback.tb_frame).startswith(_TRACING):  # the recorder, called from inside the core
            ours = True
        traceback = traceback.tb_next
    return ours


def calling_line() -> SourceLine | None:
    """The innermost line of the user's own code that is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_users_frame(frame):
        frame = frame.f_back
    return None if frame is None else _line(frame, frame.f_lineno)


def core_line() -> SourceLine | None:
    """The innermost line of the core, asked from an operator it runs under the tracer.

    The user's own line where there is one, else that of a built-in neuron.
    """
    built_in: SourceLine | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = _module_of(frame)
        if module == _TRACER:
            return built_in  # below this frame lies the caller of the tracer, not the core
        if _is_users(module, frame.f_code.co_filename):
            return _line(frame, frame.f_lineno)
        if built_in is None and module.startswith(_NEURONS):
            built_in = _line(frame, frame.f_lineno)
        frame = frame.f_back
    return None


def defined_at(core: object) -> str:
    """Where a core is written, or its name."""
    function = getattr(core, "func", core)
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    name = getattr(function, "__qualname__", type(core).__name__)
    return f"{code.co_filename}:{code.co_firstlineno}, {name}" if code else name


def stack_level() -> int:
    """The ``stacklevel`` for ``warnings.warn`` in the caller that points at the user's line."""
    level, frame = 0, sys._getframe(1)
    while frame.f_back is not None and not is_users_frame(frame):
        level, frame = level + 1, frame.f_back
    return level + 1


def _line(frame: FrameType, lineno: int) -> SourceLine:
    code = frame.f_code
    return SourceLine(code.co_filename, lineno, code.co_name, linecache.getline(code.co_filename, lineno).strip())


def is_users_frame(frame: FrameType) -> bool:
    """Whether a frame runs the user's own code: not Python's, not a library's, not flexsn's, wherever they lie.

    Modules are told by name, which is the same in a wheel and in an editable install.
    """
    return _is_users(_module_of(frame), frame.f_code.co_filename)


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


@cache
def _is_users(module: str, filename: str) -> bool:
    return module.partition(".")[0] not in (*LIBRARIES, _PACKAGE) and not _is_standard(filename)


def _is_standard(filename: str) -> bool:
    """Whether a file is of Python's own library, installed packages not included."""
    path = os.path.abspath(filename)
    packages = (_STANDARD + "site-packages", _STANDARD + "dist-packages")
    return filename.startswith("<frozen ") or (path.startswith(_STANDARD) and not path.startswith(packages))
