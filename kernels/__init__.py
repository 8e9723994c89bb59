"""From a plan to something that runs: op table, printers, runtimes, cache."""
