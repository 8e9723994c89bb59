"""What became of a core, as data and as text."""
