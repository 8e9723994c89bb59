"""Graphs from elsewhere: the Neuromorphic Intermediate Representation, read and written."""

from flexsn.nir.network import Network
from flexsn.nir.reading import from_nir
from flexsn.nir.writing import to_nir

__all__ = ["Network", "from_nir", "to_nir"]
