"""A neuron's backends held to the loop, for a user's own tests."""

from flexsn.checking.checker import check
from flexsn.checking.result import CheckResult, Finding

__all__ = ["CheckResult", "Finding", "check"]
