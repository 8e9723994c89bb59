"""Every contract is held on every backend that runs CPU tensors here; Triton joins under TRITON_INTERPRET=1."""

from __future__ import annotations

import pytest

from flexsn.execution.backends import interpreting, supported_backends

ON_THE_CPU = [name for name in supported_backends() if name != "triton" or interpreting()]


@pytest.fixture(params=ON_THE_CPU)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
