"""From a plan to something that runs: op table, printers, runtimes, cache."""

from flexsn.kernels.cache import cache_dir, cached_kernels, clear_cache
from flexsn.kernels.toolchain import toolchain

__all__ = ["cache_dir", "cached_kernels", "clear_cache", "toolchain"]
