"""Every graph and plan that any test makes is checked on the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flexsn.ir import spec
from flexsn.ir.passes import watching


@pytest.fixture(scope="session", autouse=True)
def every_form_is_well_formed() -> Iterator[None]:
    with watching(lambda name, form: spec.verify(form)):
        yield
