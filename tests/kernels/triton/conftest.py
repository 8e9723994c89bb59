"""Where Triton interprets, NumPy is quiet."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _quiet_numpy() -> Iterator[None]:
    """The interpreter computes masked lanes too; what overflows there is thrown away."""
    with np.errstate(all="ignore"):
        yield
