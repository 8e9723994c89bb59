"""In a process where Triton interprets, these tests hold the Triton kernels alone (see reference.BACKENDS)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _quiet_numpy() -> Iterator[None]:
    """Triton's interpreter is NumPy and computes masked lanes too; what overflows there is thrown away."""
    with np.errstate(all="ignore"):
        yield
