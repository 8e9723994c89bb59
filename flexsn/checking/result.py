"""What a check found, as data and as text."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

from flexsn.report.report import Report

__all__ = ["CheckResult", "Finding"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        passed: whether it is as it should be; ``None`` for what is only to be known.
        what: was looked at.
        details: what was seen there.
    """

    passed: bool | None
    what: str
    details: str

    def __str__(self) -> str:
        mark = {True: "ok", False: "FAILED", None: "note"}[self.passed]
        first, *more = f"{self.what}: {self.details}".splitlines()
        return "\n".join([f"  {mark:8}{first}", *(textwrap.indent(line, " " * 12) for line in more)])


@dataclass(frozen=True)
class CheckResult:
    """What :func:`flexsn.check` found; true if all is well. ``print`` it.

    Attributes:
        name: of the neuron or core.
        findings: in the order they were made.
        report: what the core is compiled to; ``None`` if it cannot be compiled.
    """

    name: str
    findings: tuple[Finding, ...]
    report: Report | None = field(default=None, repr=False)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(finding.passed is not False for finding in self.findings)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """What failed."""
        return tuple(finding for finding in self.findings if finding.passed is False)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        verdict = "passed" if self.passed else f"{len(self.failures)} of {len(self.findings)} findings are failures"
        return "\n".join([f"check of {self.name}: {verdict}", *map(str, self.findings)])

    def raise_if_failed(self) -> None:
        """Raise what was found.

        Raises:
            AssertionError: something failed; with the text of this result.
        """
        if not self.passed:
            raise AssertionError(str(self))
