"""From a step graph and its vjps to a plan."""
