"""Triton's interpreter must be chosen before Triton is imported: these tests have a process of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("TRITON_INTERPRET", "0") in ("", "0"):
        skip = pytest.mark.skip(reason="run as `TRITON_INTERPRET=1 pytest tests/triton`")
        for item in items:
            if "tests/triton/" in item.nodeid.replace(os.sep, "/"):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def _quiet_numpy() -> Iterator[None]:
    """The interpreter computes masked lanes too; what overflows there is thrown away."""
    with np.errstate(all="ignore"):
        yield
