"""What a person puts into a network: FlexSN and what goes with it."""
