"""The examples in the docstrings of flexsn.neurons run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import flexsn.neurons

MODULES = [
    "flexsn.neurons",
    *(m.name for m in pkgutil.walk_packages(flexsn.neurons.__path__, "flexsn.neurons.")),
]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
