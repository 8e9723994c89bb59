"""Every error a user can meet, each saying what happened, where, why and what to do."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "BackendError",
    "CoreError",
    "FallbackWarning",
    "FlexSNError",
    "GradientError",
    "SourceLine",
    "UnsupportedOpError",
]


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

    def __init__(
        self, what: str, *, where: SourceLine | str | None = None, why: str = "", hint: str = ""
    ) -> None:
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
