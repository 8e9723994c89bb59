"""The environment of a test is its own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_forced_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEXSN_BACKEND", raising=False)
