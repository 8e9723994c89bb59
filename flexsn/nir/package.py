"""The package nir, which only these two directions need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["nir_package"]


def nir_package() -> Any:
    """The package ``nir``, or an error that says how to get it."""
    try:
        return import_module("nir")
    except ImportError as error:
        raise ImportError(f'flexsn.nir needs the package nir ({error}): pip install "flexsn[nir]"') from error
