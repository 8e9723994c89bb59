"""Every contract is held on every backend that runs CPU tensors here; Triton joins under TRITON_INTERPRET=1.

Every graph and plan that any test makes is checked on the way.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from flexsn.execution import dispatch
from flexsn.execution.backends import supported_backends
from flexsn.ir import spec
from flexsn.ir.passes import watching
from flexsn.kernels.triton import offline
from flexsn.kernels.triton.runtime import interpreting

ON_THE_CPU = [name for name in supported_backends() if name != "triton" or interpreting()]


def pytest_collection_finish() -> None:
    """What has been imported stays; a test that collects garbage need not look through all of torch."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Or what counts its own objects at the end says that they leaked."""
    gc.unfreeze()


@pytest.fixture(params=ON_THE_CPU)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def the_same_random_numbers_whatever_ran_before() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(autouse=True)
def nothing_was_said_of_the_machine() -> None:
    dispatch._said_of_the_machine.clear()


@pytest.fixture(scope="session", autouse=True)
def every_form_is_well_formed() -> Iterator[None]:
    with watching(lambda name, form: spec.verify(form)):
        yield


@pytest.fixture(scope="session", autouse=True)
def triton_rewrites_what_it_has_not_rewritten_before(pytestconfig: pytest.Config) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        cache = getattr(pytestconfig, "cache", None)  # which may be turned off
        if interpreting() and cache is not None:
            from tests import rewritten

            rewritten.keep(cache.mkdir("rewritten"), patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def triton_compiles_what_it_has_not_compiled_before() -> Iterator[None]:
    """Only the seconds of a report, which no test looks at, want everything compiled anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offline, "_anew", nullcontext)
        yield
