"""The built-in neurons: each a core of a few lines and a thin class."""
