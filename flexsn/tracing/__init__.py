"""From a core to its step graph and vjps."""
